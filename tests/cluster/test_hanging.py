"""Workers of a cluster whose tools hang, or that hang themselves: nobody waits for them for long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import Config
from agentgym.rollout.worker import WorkerSpec
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.cluster import counters
from agentgym.trainers.cluster import rollouts as driving
from agentgym.trainers.cluster.rollouts import RayRollouts
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.types import GroupRequest
from tests.cluster.playing import lives

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
CODE = """
import os
import signal
import time

import httpx

import agentgym as ag

@ag.tool
def blocks() -> str:
    "Waits in the system, and lets nobody run."
    time.sleep(600)
    return "awake"

@ag.tool
def stops() -> str:
    "Its whole process, as C code that never comes back and holds what all threads wait for."
    os.kill(os.getpid(), signal.SIGSTOP)
    return "goes on"

TASKS = [ag.Task(name, name, name) for name in ("none", "blocks", "stops")]

@ag.register("Hangs-v0", tools=[blocks, stops], tasks=TASKS, holdout=0)
async def hangs(task, answer, episode):
    return 1.0

async def agent(session, base_url, api_key):
    name = session.task.id
    if name == "blocks":
        await session.call(name)
    marker = os.path.join({folder!r}, "stopped")
    if name == "stops" and not os.path.exists(marker):
        open(marker, "w").close()
        await session.call(name)
    headers = {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, verify=False, trust_env=False) as http:
        answer = (await http.post("chat/completions", json={"messages": session.messages})).json()
    return answer["choices"][0]["message"]["content"]
"""


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., Any]) -> Any:
    return make_cluster({"num_cpus": 2})


@pytest.fixture
def config(tmp_path: Path, cluster: Any) -> Config:
    (tmp_path / "code.py").write_text(CODE.replace("{folder!r}", repr(str(tmp_path))))
    tokenizer = build_tokenizer(["Say 1."])
    config = Config()
    config.model.layers, config.model.width, config.model.heads = 1, 32, 2
    save_model(build_model(len(tokenizer), config.model, max_context=96, seed=0), tokenizer, tmp_path / "model")
    config.env.id, config.rollout.agent = f"{tmp_path}/code.py:hangs", f"{tmp_path}/code.py:agent"
    config.cluster.kind, config.cluster.address = "ray", cluster.address
    config.rollout.workers, config.rollout.max_tokens, config.engine.max_context = 2, 4, 96
    config.rollout.tool_seconds, config.rollout.retries = 0.5, 0
    return config


Begin = Callable[[], tuple[RayRollouts, list[str]]]


@pytest.fixture
def begin(config: Config, tmp_path: Path) -> Iterator[Begin]:
    made: list[RayRollouts] = []

    def begun() -> tuple[RayRollouts, list[str]]:
        notes: list[str] = []
        made.append(RayRollouts(WorkerSpec(config, str(tmp_path / "model")), notes.append))
        made[-1].ready()
        return made[-1], notes

    yield begun
    for rollouts in made:
        rollouts.close()


def asked(config: Config, *tasks: int) -> list[GroupRequest]:
    return [GroupRequest(f"{i}:t{task}", config.env.id, task, 1, seed=0) for i, task in enumerate(tasks)]


def test_a_tool_that_waits_in_the_system_holds_up_nobody(begin: Begin, config: Config) -> None:
    rollouts, _ = begin()
    began = time.monotonic()
    rollouts.submit(asked(config, 1, 1, 0, 0))
    got = {group.id: group.trajectories[0] for group in (rollouts.receive() for _ in range(4))}
    assert time.monotonic() - began < 20, "the tool sleeps for ten minutes"
    for name in ("0:t1", "1:t1"):
        assert got[name].reward is None
        assert (got[name].error or "").startswith("tool_error: blocks gave no answer for 0.")
    assert [got[name].reward for name in ("2:t0", "3:t0")] == [1.0, 1.0]
    assert rollouts.stats()["cpu_s"] > 0


def test_a_worker_that_is_silent_is_passed_over_and_then_made_again(
    begin: Begin, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(counters, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(driving, "SILENCE", 8.0)
    rollouts, notes = begin()
    before = rollouts.stats()["cpu_s"]
    pids = [int(note.split("process ")[1].split(",")[0]) for note in notes]
    rollouts.submit(asked(config, 2, 0, 0, 0))
    began = time.monotonic()
    for _ in range(20):
        assert rollouts.stats()["cpu_s"] >= before, "what it has told counts while it says nothing"
    assert time.monotonic() - began < 5, "its silence is waited for once, not each time"
    got = {group.id: group.trajectories[0] for group in (rollouts.receive() for _ in range(4))}
    assert {name: t.reward for name, t in got.items()} == {"0:t2": 1.0, "1:t0": 1.0, "2:t0": 1.0, "3:t0": 1.0}
    assert [note for note in notes if "has given no sign of life for 8 s" in note], notes
    assert sum("is gone" in note for note in notes) == 1, notes
    until = time.monotonic() + 60
    while sum("is on" in note for note in notes) < 3:
        assert time.monotonic() < until, notes
        rollouts.arrived()
        time.sleep(0.1)
    rollouts.close()
    until = time.monotonic() + 10
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < until, "none is left behind"
        time.sleep(0.1)


def test_a_worker_whose_process_is_killed_is_made_again(begin: Begin, config: Config) -> None:
    rollouts, notes = begin()
    pids = [int(note.split("process ")[1].split(",")[0]) for note in notes]
    os.kill(pids[0], 9)
    rollouts.submit(asked(config, 0, 0, 0, 0))
    assert len({rollouts.receive().id for _ in range(4)}) == 4
    until = time.monotonic() + 60
    while sum("is on" in note for note in notes) < 3:
        assert time.monotonic() < until, notes
        rollouts.arrived()
        time.sleep(0.1)
