"""SGLang replicas as actors of a Ray cluster of several nodes, on fake servers: in `make test-ray`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import agentgym as ag
from agentgym.config import Config
from agentgym.errors import ConfigError, RunError
from agentgym.report.plain import PlainReporter
from agentgym.trainers import session
from agentgym.trainers.check_run import check_run
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.tiny_model import build_model, build_tokenizer
from agentgym.trainers.weights.distributed import DistributedSync
from agentgym.trainers.weights.handed import HandedSync
from tests.cluster.playing import ENVS, Play, lives, logprobs, versions, zeroed
from tests.trainers.tiny_runs import quick_runs

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., Any]) -> Any:
    return make_cluster(*[{"num_cpus": 1}] * 3)


@pytest.fixture
def model() -> Any:
    config = Config()
    config.model.layers, config.model.width, config.model.heads = 1, 32, 2
    return build_model(len(build_tokenizer(["Say 1."])), config.model, max_context=96, seed=0)


@pytest.fixture
def home(tmp_path: Path, model: Any) -> Path:
    (tmp_path / "envs.py").write_text(ENVS)
    save_model(model, build_tokenizer(["Say 1."]), tmp_path / "model")
    return tmp_path


@pytest.fixture
def config(home: Path, cluster: Any, fake_python: str) -> Config:
    config = Config()
    config.env.id = f"{home}/envs.py:say"
    config.run.dir = str(home / "run")
    config.cluster.kind, config.cluster.address = "ray", cluster.address
    config.engine.kind, config.engine.replicas, config.engine.python = "sglang", 2, fake_python
    config.rollout.max_tokens, config.engine.max_context, config.engine.timeout = 8, 96, 20.0
    return config


@pytest.fixture
def play(config: Config, home: Path) -> Iterator[Callable[[], Play]]:
    made: list[Play] = []

    def begin() -> Play:
        made.append(Play(config, home))
        return made[-1]

    yield begin
    for each in made:
        each.rollouts.close()


@pytest.mark.parametrize(("way", "order"), [("disk", "rolling"), ("distributed", "together")])
def test_weights_reach_every_server_and_nothing_is_left_behind(
    play: Callable[[], Play], config: Config, home: Path, model: Any, way: str, order: Any
) -> None:
    config.engine.update, config.rollout.cpus_each = order, 0.5
    config.rollout.workers = 2
    begun = play()
    shutil.rmtree(home / "model")  # what servers and workers need has travelled: there is no shared file system
    begun.rollouts.ready()
    sync = HandedSync() if way == "disk" else DistributedSync(bucket_bytes=2000)
    try:
        begun.rollouts.update(sync.publish(3, dict(model.named_parameters())))
        assert versions(begun.groups(6)) == {3}
        begun.rollouts.update(sync.publish(4, zeroed(model)))
        later = begun.groups(6)
        assert versions(later) == {4}
        assert np.allclose(logprobs(later), -np.log(model.config.vocab_size), atol=1e-5), "zeros choose evenly"
        for index in range(2):
            label = httpx.get(f"{begun.url(index)}/test_state", trust_env=False).json()["label"]
            assert label.startswith("v4-"), "each replica was given them"
        assert begun.rollouts.stats()["engine/tokens"] > 0
        pids = [begun.pid(0), begun.pid(1)]
        begun.rollouts.close()
        assert not any(lives(pid) for pid in pids)
        logs = sorted(path.name for path in (home / "run" / "servers").iterdir())
        assert logs == ["server-0.log", "server-1.log"]
        assert "Loading weights" in (home / "run" / "servers" / "server-1.log").read_text()
    finally:
        sync.close()


def test_a_dead_server_and_a_dead_actor_come_back_with_the_weights_of_the_day(
    play: Callable[[], Play], model: Any
) -> None:
    begun, sync = play(), HandedSync()
    begun.rollouts.ready()
    begun.rollouts.update(sync.publish(1, dict(model.named_parameters())))
    names = begun.submit(12)
    before = begun.url(0)
    os.kill(begun.pid(0), signal.SIGKILL)
    begun.received(names)
    begun.until(lambda: bool(begun.deaths()))
    begun.rollouts.update(sync.publish(2, zeroed(model)))  # whether it is back or not
    begun.until(lambda: len(begun.fleet.serving) == 2)
    assert begun.url(0) != before
    assert begun.deaths() == {"died": 1}
    for index in range(2):
        assert httpx.get(f"{begun.url(index)}/test_state", trust_env=False).json()["label"].startswith("v2-")
    assert versions(begun.groups(6)) == {2}

    actor = int(next(note for note in begun.notes if note.startswith("engine replica 1 is on")).split()[-2].rstrip(","))
    server = begun.pid(1)
    names = begun.submit(12)
    os.kill(actor, signal.SIGKILL)
    begun.received(names)
    begun.until(lambda: "lost" in begun.deaths())
    assert not lives(server), "a server never outlives its actor"
    begun.rollouts.update(sync.publish(3, zeroed(model)))
    begun.until(lambda: len(begun.fleet.serving) == 2)
    assert begun.deaths() == {"died": 1, "lost": 1}
    assert httpx.get(f"{begun.url(1)}/test_state", trust_env=False).json()["label"].startswith("v3-")
    assert versions(begun.groups(6)) == {3}
    assert begun.rollouts.stats()["engine/deaths"] == 2


def test_a_server_that_takes_requests_and_never_answers_is_started_anew(
    play: Callable[[], Play], config: Config, model: Any
) -> None:
    config.engine.timeout = 2.0
    begun, sync = play(), HandedSync()
    begun.rollouts.ready()
    begun.rollouts.update(sync.publish(1, dict(model.named_parameters())))
    begun.groups(8)  # its workers have met both
    httpx.post(f"{begun.url(0)}/test_hang", trust_env=False)
    httpx.post(f"{begun.url(1)}/test_hang", trust_env=False)
    began = time.monotonic()
    begun.groups(8)
    assert time.monotonic() - began > 2.0
    begun.until(lambda: begun.deaths() == {"silent": 2} and len(begun.fleet.serving) == 2)
    assert any("took requests and gave no answer" in note for note in begun.notes)


def test_a_machine_is_lost_and_another_joins(play: Callable[[], Play], cluster: Any, model: Any) -> None:
    from ray._private.state import actors

    begun, sync = play(), HandedSync()
    begun.rollouts.ready()
    begun.rollouts.update(sync.publish(1, dict(model.named_parameters())))
    actor = begun.fleet.links.actors[1]._actor_id.hex()
    where = actors()[actor]["Address"]["NodeID"]
    node = next(node for node in cluster.worker_nodes if node.node_id == where)
    names = begun.submit(12)
    cluster.remove_node(node, allow_graceful=False)
    begun.received(names)
    begun.until(lambda: begun.fleet.serving == [0])
    begun.rollouts.update(sync.publish(2, zeroed(model)))
    assert versions(begun.groups(4)) == {2}
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    begun.until(lambda: len(begun.fleet.serving) == 2, seconds=200)
    assert httpx.get(f"{begun.url(1)}/test_state", trust_env=False).json()["label"].startswith("v2-")
    assert versions(begun.groups(4)) == {2}


@pytest.mark.parametrize("order", ["rolling", "together"])
def test_one_replica_serves_at_every_moment_of_a_rolling_update(
    play: Callable[[], Play], config: Config, model: Any, order: Any
) -> None:
    config.engine.update, config.engine.server_args = order, ["--fault", "slow-updates"]
    config.rollout.max_tokens = 60
    begun, sync = play(), HandedSync()
    begun.rollouts.ready()
    begun.rollouts.update(sync.publish(0, dict(model.named_parameters())))
    begun.groups(4)
    seen: list[int] = []
    done = threading.Event()

    def poll() -> None:
        with httpx.Client(trust_env=False) as client:
            while not done.is_set():
                states = [client.get(f"{begun.url(i)}/test_state").json()["serves"] for i in range(2)]
                seen.append(sum(states))

    names = begun.submit(60)
    polling = threading.Thread(target=poll)
    polling.start()
    try:
        for version in range(1, 4):
            begun.rollouts.update(sync.publish(version, zeroed(model)))
            time.sleep(0.1)
    finally:
        done.set()
        polling.join()
    groups = begun.received(names)
    assert versions(groups) <= {0, 1, 2, 3}
    assert 1 in seen, "an update takes a replica out of service"
    if order == "rolling":
        assert 0 not in seen
    else:
        assert 0 in seen, "and would be noticed where it takes both"
    even = -np.log(model.config.vocab_size)
    for turn in (turn for g in groups for t in g.trajectories for turn in t.turns):
        for version, logprob in zip(turn.completion.versions, turn.completion.logprobs, strict=True):
            assert version == 0 or abs(logprob - even) < 1e-5, "each token has the version that sampled it"


def test_weights_that_do_not_arrive_end_the_run(play: Callable[[], Play], config: Config, model: Any) -> None:
    config.engine.server_args = ["--fault", "lose-updates"]
    begun = play()
    begun.rollouts.ready()
    with pytest.raises(RunError, match=r"version 5 of the weights did not arrive: SGLang server http://.*does not run"):
        begun.rollouts.update(HandedSync().publish(5, zeroed(model)))


def test_a_server_that_does_not_start_shows_its_log(play: Callable[[], Play], config: Config) -> None:
    config.engine.server_args = ["--fault", "no-start"]
    begun = play()
    with pytest.raises(ConfigError, match=r"engine\.kind = 'sglang'.*ended while it was starting:\nCUDA out of luck"):
        begun.rollouts.ready()


def test_more_gpus_than_the_cluster_has(config: Config, home: Path) -> None:
    config.engine.device, config.engine.gpus_each = "cuda", 4
    with pytest.raises(ConfigError, match=r"engine\.replicas = 2 .*gpus_each = 4 asks for 8 GPUs; the cluster has 0"):
        Play(config, home)


def test_no_room_for_the_servers(config: Config, home: Path) -> None:
    config.engine.threads, config.cluster.patience = 64, 1.0
    with pytest.raises(ConfigError, match=r"no room for 2 SGLang servers .* 128 CPU .*engine\.replicas, engine\.gpus"):
        Play(config, home)


def test_servers_that_are_there_are_used(config: Config, home: Path, model: Any, given_server: Any) -> None:
    config.engine.urls = [given_server.url]
    from agentgym.trainers.weights.disk import DiskSync

    begun, sync = Play(config, home), DiskSync(home / "weights", str(home / "model"))
    try:
        begun.rollouts.ready()
        assert versions(begun.groups(2)) == {0}, "an evaluation sends no weights"
        begun.rollouts.update(sync.publish(1, zeroed(model)))
        groups = begun.groups(4)
        assert versions(groups) == {1}
        assert np.allclose(logprobs(groups), -np.log(model.config.vocab_size), atol=1e-5)
    finally:
        begun.rollouts.close()
        sync.close()
    assert given_server.alive, "it is another's"


@pytest.fixture
def given_server(home: Path, fake_python: str) -> Iterator[Any]:
    from agentgym.engines.sglang.process import ServerCommand, ServerProcess

    server = ServerProcess(ServerCommand(fake_python, "fake"), str(home / "model"), home / "given.log")
    server.wait_ready()
    yield server
    server.close()


class Killer(PlainReporter):
    """After each step, a server that serves is killed, the two in turn, until ten have died."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[int] = []
        self.fleet: Any = None

    def metrics(self, row: Any, step: int) -> None:
        super().metrics(row, step)
        deadline = time.monotonic() + 60
        while len(self.killed) < min(10, step) and time.monotonic() < deadline:
            live = [place.pid for place in self.fleet.places if place and place.pid not in self.killed]
            if live:
                pid = live[step % len(live)]
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
            time.sleep(0.05)  # play goes on meanwhile
        if step == 12:
            time.sleep(2)  # the last row is to know of the last death


@pytest.mark.slow
def test_a_replica_is_killed_ten_times_and_the_run_ends_with_all_steps_done(
    config: Config, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer, make = Killer(), session.make_rollouts

    def seen(*given: Any, **options: Any) -> Any:
        rollouts = make(*given, **options)
        killer.fleet = rollouts.fleet  # type: ignore[attr-defined]
        return rollouts

    monkeypatch.setattr(session, "make_rollouts", seen)
    with quick_runs():
        summary = ag.train(
            {
                "cluster": config.cluster.model_dump(),
                "engine": {**config.engine.model_dump(), "max_context": 0},
                "run": {"live": "off"},
                "model": {"layers": 1, "width": 32, "heads": 2},
                "trainer": {"steps": 13},
                "rollout": {"groups": 4, "group_size": 2, "max_tokens": 24},
                "eval": {"tasks": 0},
            },
            env__id=config.env.id,
            run__dir=str(home / "run"),
            reporter=killer,
        )
    assert summary["steps"] == 13
    assert summary["unscored"] == 0
    assert summary["logprob_gap_max"] < 1e-4
    assert check_run(home / "run").problems == []
    rows = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(killer.killed) == 10
    assert sum(row.get("worker/engine/deaths_died", 0) for row in rows) == 10, "counted by type"
    assert sum(row["trajectories"] for row in rows if "trajectories" in row) == 13 * 4 * 2
    assert not any(lives(pid) for pid in killer.killed)
