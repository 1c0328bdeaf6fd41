"""Where ranks of the learner are, and whom rank 0 blames; `tests/cluster/test_rank_actors.py` has them on a cluster."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.trainers.cluster.ranks import RayRanks, number_here, rank_needs
from agentgym.trainers.ranks.followers import Answer, Followers, Order, RankError, RankLost
from agentgym.trainers.ranks.network import interface_of

GLOO = "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection reset by peer"


class Scripted:
    """A follower that gives these answers; an exception is raised."""

    def __init__(self, answers: Sequence[Answer | Exception | None]):
        self.answers = list(answers)

    def arrive(self) -> None: ...

    def send(self, order: Order) -> None: ...

    def receive(self, patience: float) -> Answer | None:
        found = self.answers.pop(0) if self.answers else None
        if isinstance(found, Exception):
            raise found
        return found

    def place(self, folder: Path) -> Path:
        return folder

    def bring(self, folder: Path) -> None: ...

    def close(self) -> None: ...


def followers(*members: Sequence[Answer | Exception | None], last_words: float = 5.0) -> Followers:
    return Followers([Scripted(member) for member in members], 5.0, last_words)


def test_the_rank_that_failed_is_blamed_and_not_one_that_saw_it_go() -> None:
    saw = Answer(traceback=GLOO)
    lost = RankLost("rank 2 of the learner is gone")
    with pytest.raises(RankLost, match="rank 2"):
        followers([saw], [None, None, lost]).blame(RuntimeError(GLOO))
    with pytest.raises(RankError, match="rank 2 of the learner failed:\nValueError"):
        followers([saw], [None, Answer(traceback="ValueError")]).blame(RuntimeError(GLOO))
    with pytest.raises(RankError, match="rank 3 of the learner failed:\nValueError"):  # and rank 0 has not failed
        followers([Answer(1)], [saw], [None, Answer(traceback="ValueError")]).answers()


def test_where_nobody_knows_better_what_was_seen_is_told() -> None:
    with pytest.raises(RankError, match=r"rank 1 of the learner failed:\nRuntimeError: .*gloo"):
        followers([Answer(traceback=GLOO)], [], last_words=0.3).blame(RuntimeError(GLOO))
    with pytest.raises(RankError, match="rank 1 of the learner failed"):
        followers([Answer(traceback=GLOO)], [Answer(2)], last_words=0.3).answers()


def test_a_gpu_is_kept_for_each_rank_and_more_than_there_are_is_refused() -> None:
    config = Config()
    config.learner.ranks, config.learner.threads = 4, 2
    assert rank_needs(config, "cpu", 0) == {"CPU": 2.0}
    assert rank_needs(config, "cuda", 4) == {"CPU": 2.0, "GPU": 1.0}
    with pytest.raises(ConfigError, match=r"learner\.ranks = 4 takes a GPU for each; there are 3"):
        rank_needs(config, "cuda", 3)


def test_the_number_of_a_gpu_is_the_drivers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert number_here("3") == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert number_here("3") == 1
    with pytest.raises(ConfigError, match=r"gave GPU 0 .* start Ray and the run with the same CUDA_VISIBLE_DEVICES"):
        number_here("0")


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") in {name for _, name in socket.if_nameindex()}
    assert interface_of("198.51.100.7") == ""


def test_rank_0_has_to_be_on_the_cluster() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
    config = Config()
    config.learner.ranks, config.cluster.address = 2, "ray://10.0.0.1:10001"
    with pytest.raises(ConfigError, match="rank 0 is the process that was started"):
        RayRanks(config, "cpu")
