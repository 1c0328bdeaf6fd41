"""curve.png is drawn from whatever metrics there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.config import Config
from agentgym.report.curve import History, _figure, draw_curve, running_mean
from agentgym.run_folder import RunFolder

BEFORE = {"step": 0, "eval": "before", "sampled": 0.2, "greedy": 0.4, "by_kind": {"calc": 0.5}, "by_tag": {"busy": 0.1}}
AFTER = {"step": 2, "eval": "after", "sampled": 0.9, "greedy": None, "by_kind": {"calc": 1.0}, "by_tag": {}}
STEPS = [
    {"step": 1, "reward/mean": 0.3, "success": 0.3, "success/calc": 0.6, "success/busy": None},
    {"step": 2, "reward/mean": None, "success": None},
]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", Config())


@pytest.mark.parametrize(
    "rows", [[BEFORE, *STEPS, AFTER], STEPS, [BEFORE], [BEFORE, AFTER], [STEPS[1]]], ids=lambda rows: str(len(rows))
)
def test_draws_a_picture(folder: RunFolder, rows: list[dict[str, object]]) -> None:
    for row in rows:
        folder.append("metrics.jsonl", row)
    path = draw_curve(folder)
    assert path == folder.path / "curve.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(folder.path.glob("*.tmp"))


def test_nothing_to_draw(folder: RunFolder) -> None:
    assert draw_curve(folder) is None


def test_history() -> None:
    done_again = {"step": 1, "reward/mean": 0.7}
    history = History.of([BEFORE, STEPS[0], done_again, STEPS[1], AFTER])
    assert history.steps == [1, 2]
    assert history.reward == [0.7, None]
    assert history.evaluated("before", "calc") == 0.5
    assert history.evaluated("before", "busy") == 0.1
    assert history.evaluated("after", "sampled") == 0.9
    assert history.evaluated("after", "greedy") is None


def test_no_empty_half_for_an_env_without_kinds() -> None:
    rows: list[dict[str, object]] = [{"step": 1, "reward/mean": 0.5}, {"step": 2, "reward/mean": 0.6}]
    assert len(_figure(History.of(rows), "plain").axes) == 1
    rows[0]["success/easy"] = 1.0
    assert len(_figure(History.of(rows), "kinds").axes) == 2


def test_running_mean() -> None:
    assert running_mean([0, 3, 6, 9], 3) == [1.5, 3, 6, 7.5]
    assert running_mean([], 5) == []
