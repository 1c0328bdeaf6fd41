"""What is kept of workers and servers that come and go, without a cluster: their counters, their logs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agentgym.trainers.cluster.counters import Counters
from agentgym.trainers.cluster.server_logs import ServerLogs


class Ray:
    """Whose references are boxes: what is in one has arrived."""

    def __init__(self) -> None:
        self.waited: list[int] = []

    def wait(self, refs: list[Any], *, num_returns: int = 1, timeout: float) -> tuple[list[Any], list[Any]]:
        if timeout:
            self.waited.append(len(refs))
        return [ref for ref in refs if ref], [ref for ref in refs if not ref]

    def get(self, ref: Any) -> Any:
        if isinstance(ref[0], Exception):
            raise ref[0]
        return ref[0]


class Worker:
    """Puts its next answer into the box, where it has one."""

    def __init__(self, *answers: dict[str, float] | None):
        self.boxes = [[] if answer is None else [answer] for answer in answers]
        self.given: list[list[Any]] = []
        self.actor = SimpleNamespace(stats=SimpleNamespace(remote=self.answer))

    def answer(self) -> list[Any]:
        self.given.append(self.boxes[len(self.given)])
        return self.given[-1]


def fetch(worker: Worker, box: list[Any]) -> Any:
    return box[0]


def test_sums_and_the_largest() -> None:
    counters = Counters(Ray())
    assert counters.total() == {"cpu_s": 0.0, "peak_mem": 0.0}
    counters.ask(
        [Worker({"cpu_s": 1.0, "peak_mem": 5.0}), Worker({"cpu_s": 2.0, "peak_mem": 3.0, "env_s": 1.0})], fetch
    )
    assert counters.total() == {"cpu_s": 3.0, "peak_mem": 5.0, "env_s": 1.0}


def test_who_has_not_answered_counts_as_it_last_did_and_is_not_waited_for_again() -> None:
    ray, late = Ray(), Worker({"cpu_s": 1.0}, None, {"cpu_s": 4.0})
    counters = Counters(ray)
    for _ in range(3):
        counters.ask([late], fetch)
    assert counters.total()["cpu_s"] == 1.0
    assert (ray.waited, len(late.given)) == ([1, 1], 2)
    late.given[-1].append({"cpu_s": 3.0})  # its answer comes
    counters.ask([], fetch)
    assert counters.total()["cpu_s"] == 3.0
    counters.ask([late], fetch)
    assert counters.total()["cpu_s"] == 4.0


def test_a_new_process_counts_on_and_its_gauges_do_not() -> None:
    worker, counters = (
        Worker({"cpu_s": 1.0, "concurrency": 8.0, "peak_mem": 5.0}, None, {"cpu_s": 0.5}),
        Counters(Ray()),
    )
    for _ in range(2):
        counters.ask([worker], fetch)
    counters.lost(worker)  # and what it was asked last with it
    counters.begin(worker)
    assert counters.total() == {"cpu_s": 1.0, "peak_mem": 0.0}
    counters.ask([worker], fetch)
    assert counters.total() == {"cpu_s": 1.5, "peak_mem": 0.0}


def test_one_that_is_lost_with_its_answer_keeps_what_it_told() -> None:
    worker, counters = Worker({"cpu_s": 1.0}, {"cpu_s": 2.0}), Counters(Ray())

    def lost(by: Worker, box: list[Any]) -> Any:
        counters.lost(by)

    counters.ask([worker], fetch)
    counters.ask([worker], lost)
    assert counters.total()["cpu_s"] == 1.0


def actor(*told: Any) -> Any:
    asked: list[int] = []

    def sign(at: int) -> list[Any]:
        asked.append(at)
        return list(told)

    return SimpleNamespace(sign=SimpleNamespace(remote=sign), asked=asked)


def test_logs_go_on_where_they_were_and_a_new_actor_begins_anew(tmp_path: Path) -> None:
    logs = ServerLogs(Ray(), tmp_path / "servers")
    logs.write(1, b"")
    assert not (tmp_path / "servers").exists()
    logs.write(1, b"one ")
    logs.write(1, b"two ")
    assert (logs.at(0), logs.at(1)) == (0, 8)
    logs.begin(1)
    logs.write(1, b"three ")
    assert logs.at(1) == 6
    last = {0: actor(), 1: actor(SimpleNamespace(log=b"four")), 2: actor(OSError("it is gone"))}
    logs.ask_for_the_last(last)
    logs.take_the_last()
    assert [last[i].asked for i in range(3)] == [[0], [6], [0]]
    assert (tmp_path / "servers" / "server-1.log").read_bytes() == b"one two three four"
    assert [file.name for file in (tmp_path / "servers").iterdir()] == ["server-1.log"]
