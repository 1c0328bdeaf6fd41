"""A run that waits says what for: a real tool hangs in a real worker process, and the driver is told."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.activity import Activity
from agentgym.config import ModelConfig, load_config
from agentgym.rollout.situation import Phase, Situation, joined, phases_of
from agentgym.rollout.worker import WorkerSpec
from agentgym.run_folder import RunFolder
from agentgym.trainers import rollouts as driving
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.rollouts import LocalRollouts, ProcessRollouts, WorkerDied
from agentgym.trainers.stall import StallWatch
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.types import GroupRequest

CODE = """
import asyncio, time
import agentgym as ag

@ag.tool
async def search() -> str:
    "Finds nothing, for ever."
    await asyncio.sleep(600)

@ag.tool
def read() -> str:
    "Keeps everybody from going on."
    time.sleep(600)

TASKS = [ag.Task(str(i), "Go.", "7") for i in range(8)]
searching = ag.register("Searching-v0", tasks=TASKS, tools=[search], holdout=0)(lambda task, answer, episode: 0.0)
reading = ag.register("Reading-v0", tasks=TASKS, tools=[read], holdout=0)(lambda task, answer, episode: 0.0)

async def agent(session):
    await session.call(session.tools[0]["function"]["name"], {})
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> WorkerSpec:
    home = tmp_path_factory.mktemp("stalled")
    (home / "code.py").write_text(CODE)
    tokenizer = build_tokenizer(["Go."])
    model = build_model(len(tokenizer), ModelConfig(layers=1, width=32, heads=2), max_context=96, seed=0)
    save_model(model, tokenizer, home / "model")
    envs = [{"id": f"{home}/code.py:{name}", "name": name} for name in ("searching", "reading")]
    given = {"agent": f"{home}/code.py:agent", "max_seconds": 2.5, "retries": 0, "concurrency": 5}
    return WorkerSpec(load_config(None, {"envs": envs, "rollout": given}), str(home / "model"))


class Told(StallWatch):
    def __init__(self, seconds: float) -> None:
        self.notes: list[str] = []
        self.rows: list[Any] = []
        super().__init__(seconds, self.notes.append, self.rows.append)


@pytest.fixture(scope="module")
def started(spec: WorkerSpec) -> Iterator[tuple[ProcessRollouts, Told]]:
    watch = Told(0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driving, "LOOK_SECONDS", 0.2)
        rollouts = ProcessRollouts(spec, watch)
        rollouts.ready()
        yield rollouts, watch
        rollouts.close()


def asked(name: str, groups: int) -> list[GroupRequest]:
    return [GroupRequest(f"0:{name}{i}", name, i, 3, seed=0) for i in range(groups)]


def test_the_driver_is_told_what_a_real_worker_waits_for(started: tuple[ProcessRollouts, Told]) -> None:
    rollouts, watch = started
    watch.notes.clear()
    watch.rows.clear()
    rollouts.submit(asked("searching", 2))
    watch.about = "0 of 2 groups are there"
    groups = [rollouts.receive() for _ in range(2)]
    what = "s for a group: 0 of 2 groups are there; 5 episodes under way: 5 in tool `search` ("
    at = next(i for i, note in enumerate(watch.notes) if what in note)  # the first may have come before all were there
    assert watch.notes[at].startswith("waiting ")
    assert "1 wait for a place (5 may play at once); the engine has 5 slots, 0 used" in watch.notes[at]
    assert watch.rows[at]["situation"]["phases"][0]["what"] == "tool search"
    assert all(t.reward is None for group in groups for t in group.trajectories)
    json.dumps(watch.rows)


def test_a_tool_that_holds_up_the_whole_worker_is_named(started: tuple[ProcessRollouts, Told]) -> None:
    rollouts, watch = started
    watch.notes.clear()
    rollouts.submit(asked("reading", 1))
    time.sleep(0.5)
    rollouts.stats()  # it has to wait for that, too
    (group,) = [rollouts.receive()]
    assert any("for the rollout worker's counters" in note for note in watch.notes)
    held = [note for note in watch.notes if "all are held up by 0:reading0/" in note]
    assert held
    assert "in tool `read` for" in held[0]
    assert {t.outcome.value for t in group.trajectories} == {"unscored"}


def test_a_worker_of_which_nothing_is_heard_is_given_up(
    started: tuple[ProcessRollouts, Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of this worker."""
    rollouts, watch = started
    watch.notes.clear()
    monkeypatch.setattr(driving, "SAYS_SECONDS", 0.2)
    monkeypatch.setattr(driving, "SILENCE", 1.0)
    pid = rollouts._process.pid or 0
    os.kill(pid, signal.SIGSTOP)
    rollouts.submit(asked("searching", 1))
    with pytest.raises(WorkerDied, match=f"process {pid}. has given no sign of life for 1 s: .* --resume"):
        rollouts.receive()
    assert any("nothing is heard of it" in note for note in watch.notes)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="was ended by SIGKILL"):
        rollouts.receive()


def test_a_worker_in_this_process_is_asked_too(spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "LOOK_SECONDS", 0.1)
    watch = Told(0.3)
    rollouts = LocalRollouts(spec, watch)
    rollouts.submit(asked("searching", 1))
    rollouts.receive()
    assert "3 in tool `search`" in watch.notes[0]
    rollouts.close()


def test_it_speaks_seldom_and_only_where_nothing_comes(tmp_path: Path) -> None:
    now, notes = [0.0], []
    folder = RunFolder.create(tmp_path / "run", load_config())
    watch = StallWatch(60.0, notes.append, lambda row: folder.append("stalls.jsonl", row), lambda: now[0])
    for second in range(600):
        now[0] = float(second)
        watch.waiting("a group", lambda: Situation())
    assert [note.split(" s ")[0] for note in notes] == ["waiting 60", "waiting 120", "waiting 240", "waiting 480"]
    assert [row["waited_s"] for row in folder.rows("stalls.jsonl")] == [60, 120, 240, 480]
    watch.over()
    for second in range(600, 659):
        now[0] = float(second)
        watch.waiting("a group", lambda: None)
    assert len(notes) == 4


def test_what_an_episode_does_is_what_its_oldest_call_does() -> None:
    activity = Activity("0:a/0")
    activity.enter("env")
    first, second = activity.begin("slow"), activity.begin("quick")
    activity.end(second)
    (phase,) = phases_of([activity])
    assert (phase.what, phase.episodes, phase.episode) == ("tool slow", 1, "0:a/0")
    activity.end(first)
    assert activity.waiting_on()[0] == "env"
    activity.begin("broken off")
    activity.enter("engine")
    assert activity.waiting_on()[0] == "engine"


def test_several_workers_are_told_as_one() -> None:
    tools = Phase("tool count", 1, 9.0, "b")
    one = Situation((Phase("engine", 2, 3.0, "a"), tools), 1, 4, {"slots": 4.0, "running": 2.0})
    two = Situation((Phase("tool count", 5, 4.0, "c"),), 2, 8, {"slots": 4.0}, ("env", "c", 2.0))
    both = joined([one, two])
    assert both.phases == (Phase("tool count", 6, 9.0, "b"), Phase("engine", 2, 3.0, "a"))
    assert (both.waiting, both.room, both.under_way) == (3, 12, 8)
    assert both.engine == {"slots": 8.0, "running": 2.0}
    assert both.held_up == ("env", "c", 2.0)
