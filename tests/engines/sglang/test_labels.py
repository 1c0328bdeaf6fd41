"""Which version a label means, and which labels mean none."""

from __future__ import annotations

import pytest

from agentgym.engines.sglang.labels import Labels, UnknownWeights, new_mark


def test_versions_by_the_first_label_and_by_form() -> None:
    labels = Labels("default", 3)
    assert labels.version("default") == 3
    assert labels.version(labels.of(9)) == 9
    assert labels.version(Labels("", 0).of(4)) == 4, "another client of the same run"
    for other in ("", "mine", "v3", "v3-xyz"):
        with pytest.raises(UnknownWeights, match="has not sent"):
            labels.version(other)


def test_a_shared_mark_knows_a_run_from_an_earlier_one() -> None:
    mark = new_mark()
    sender, player = Labels("default", 0, mark), Labels("", 0, mark)
    assert player.version(sender.of(7)) == 7
    with pytest.raises(UnknownWeights):
        player.version(Labels("", 0).of(7))
    with pytest.raises(UnknownWeights):
        player.version("default")  # of a server that was started anew
