"""Ranks of the learner as actors of a Ray cluster of several nodes: in `make test-ray`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import agentgym as ag
from agentgym.config import Config
from agentgym.errors import ConfigError, RunError
from agentgym.loading import load_object
from agentgym.report.plain import PlainReporter
from agentgym.trainers.check_run import check_run
from agentgym.trainers.checkpoint import list_checkpoints
from agentgym.trainers.cluster.ranks import RayRanks
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.ranks.followers import RankError, RankLost
from agentgym.trainers.ranks.learner import RankedLearner, make_ranked
from tests.trainers.rows import rows, tiny
from tests.trainers.tiny_runs import quick_runs

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agentgym-train[cluster]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
OPTIONS = LearnerOptions(lr=1e-3, optimizer="muon", minibatches=2, tokens_per_microbatch=128, kl=0.1)
PLAIN = LearnerOptions(lr=1e-3, tokens_per_microbatch=128)
LOSSES = """
from scales import scale
from agentgym.trainers.losses.grpo import grpo_loss
import torch

def doubled(tokens):
    loss, metrics = grpo_loss(tokens)
    return scale * loss, metrics

def failing(tokens):
    if torch.distributed.get_rank() == 1:
        raise ValueError("the loss of rank 1 fails")
    return grpo_loss(tokens)
"""
ENVS = """
import agentgym as ag

@ag.register("Say-v0", tools=[], tasks=[ag.Task(f"t{i}", f"Say {i}.", i) for i in range(40)], holdout=0)
async def say(task, answer, episode):
    return float(episode.rng.integers(2))
"""


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., Any]) -> Any:
    # Ray takes the word for the GPUs, one on each of three machines
    return make_cluster(*[{"num_cpus": 1, "num_gpus": 1}] * 2, head={"num_gpus": 1})


@pytest.fixture
def config(cluster: Any) -> Config:
    config = Config()
    config.cluster.kind, config.cluster.address = "ray", cluster.address
    config.learner.ranks = 2
    return config


class Ranked:
    """A learner whose ranks are actors, and what was told of them."""

    def __init__(self, config: Config, options: LearnerOptions):
        self.notes: list[str] = []
        starter = RayRanks(config, "cpu", self.notes.append)
        count = config.learner.ranks
        self.learner: RankedLearner = make_ranked(tiny(), options, ranks=count, timeout=120.0, starter=starter)

    @property
    def processes(self) -> list[int]:
        """By rank, without rank 0."""
        return [int(found[1]) for note in self.notes if (found := re.search(r"process (\d+)", note))]


@contextlib.contextmanager
def ranked(config: Config, options: LearnerOptions = OPTIONS) -> Iterator[Ranked]:
    made = Ranked(config, options)
    folders = [Path(os.readlink(f"/proc/{pid}/cwd")) for pid in made.processes]
    try:
        yield made
    finally:
        made.learner.close()
        assert gone(made.processes)
        assert not torch.distributed.is_initialized()
    assert len({*folders, Path.cwd()}) == len(folders) + 1, "each has a folder of its own"


def gone(processes: list[int]) -> bool:
    until = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in processes) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(psutil.pid_exists(pid) for pid in processes)


def steps(learner: Learner, begin: int, end: int, loss: Any = grpo_loss) -> dict[str, float]:
    for i in range(begin, end):
        metrics = learner.train(rows(12, i), loss, seed=i)
    return metrics


def apart(one: Learner, other: Learner) -> float:
    mine, its = one.weights(), other.weights()
    assert list(mine) == list(its)
    return max(float((mine[name] - its[name]).detach().abs().max()) for name in mine)


def test_ranks_in_actors_do_what_one_does_and_share_no_disk(config: Config, tmp_path: Path) -> None:
    one = Learner(tiny(), OPTIONS)
    one.hold_here()
    config.learner.ranks = 3
    with ranked(config) as three:
        assert len(three.processes) == 2
        three.learner.hold_here()
        ours, theirs = steps(one, 0, 4), steps(three.learner, 0, 4)
        assert apart(one, three.learner) < 1e-5
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)
        for mine, its in zip(one.logprobs(rows(5)), three.learner.logprobs(rows(5)), strict=True):
            assert abs(mine - its).max() < 1e-5
        assert three.learner.others_cpu_s > 0
        three.learner.save_pretrained(tmp_path)
        three.learner.save_state(tmp_path)
        assert {path.name for path in (tmp_path / "learner").glob("__[012]_0.distcp")} == {
            f"__{rank}_0.distcp" for rank in range(3)
        }, "what other machines wrote was brought here"
        steps(three.learner, 4, 5)
        steps(one, 4, 5)
    back = Learner(type(tiny()).from_pretrained(tmp_path), OPTIONS)
    back.load_state(tmp_path)
    steps(back, 4, 5)
    assert apart(one, back) < 1e-5
    config.learner.ranks = 2
    with ranked(config) as two:
        two.learner._together("_take", {name: tensor.detach() for name, tensor in _before(tmp_path).items()})
        two.learner.load_state(tmp_path)
        steps(two.learner, 4, 5)
        assert apart(one, two.learner) < 1e-5


def _before(folder: Path) -> dict[str, torch.Tensor]:
    return dict(type(tiny()).from_pretrained(folder).named_parameters())


def test_a_loss_of_the_users_travels(config: Config, tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(LOSSES)
    (tmp_path / "scales.py").write_text("scale = 2.0\n")
    config.trainer.loss = f"{tmp_path}/losses.py:doubled"
    doubled, failing = load_object(config.trainer.loss), load_object(f"{tmp_path}/losses.py:failing")
    one = Learner(tiny(), PLAIN)
    steps(one, 0, 2, doubled)
    with ranked(config, PLAIN) as two:
        steps(two.learner, 0, 2, doubled)
        assert apart(one, two.learner) < 1e-5
        with pytest.raises(RankError, match=r"rank 1 of the learner failed:(.|\n)*the loss of rank 1 fails"):
            steps(two.learner, 2, 3, failing)


def test_a_rank_that_is_killed_is_named(config: Config) -> None:
    with ranked(config, PLAIN) as two:
        steps(two.learner, 0, 1)
        os.kill(two.processes[0], signal.SIGKILL)
        said = rf"rank 1 of the learner, on \S+ \(\S+\), process {two.processes[0]}, is gone: .* memory.*--resume"
        with pytest.raises(RankLost, match=said):
            steps(two.learner, 1, 2)


def test_a_machine_that_is_lost_is_named(config: Config, cluster: Any) -> None:
    """Of three ranks: the one that only saw another go away is not blamed."""
    config.learner.ranks = 4  # the driver's and three actors', on three nodes of one core
    extra = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    with ranked(config, PLAIN) as four:
        mine = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerPort"] == _port(extra)]
        members = four.learner.followers._members
        (lost,) = [rank for rank, member in enumerate(members, 1) if member._where.node in mine]  # type: ignore[attr-defined]
        steps(four.learner, 0, 1)
        cluster.remove_node(extra, allow_graceful=False)
        with pytest.raises(RankLost, match=rf"rank {lost} of the learner, on .* is gone"):
            steps(four.learner, 1, 10_000)  # its process may take a moment to see that its machine is gone


def _port(node: Any) -> int:
    return int(node.node_manager_port)


DRIVER = """
import sys, time
from agentgym.config import Config
from agentgym.trainers.cluster.ranks import RayRanks
from agentgym.trainers.learner import LearnerOptions
from agentgym.trainers.ranks.learner import make_ranked
from tests.trainers.rows import rows, tiny

config = Config()
config.cluster.kind, config.cluster.address, config.learner.ranks = "ray", sys.argv[1], 2
starter = RayRanks(config, "cpu", lambda note: print(note, flush=True))
learner = make_ranked(tiny(), LearnerOptions(), ranks=2, starter=starter)
learner.followers.tell("_gather", [(None,)])  # which rank 1 waits in for rank 0
print("waiting", flush=True)
time.sleep(600)
"""


def test_no_rank_outlives_a_driver_that_is_killed(cluster: Any) -> None:
    line = [sys.executable, "-c", DRIVER, cluster.address]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        said = ""
        for text in driver.stdout:
            said += text
            if text.strip() == "waiting":
                break
        driver.kill()
    found = re.search(r"learner rank 1 is on .*process (\d+)", said)
    assert found, said
    assert gone([int(found[1])])


@pytest.fixture
def joined(cluster: Any) -> Iterator[None]:
    """This process on the cluster, before the run comes and after it has gone."""
    ray.init(address=cluster.address, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("joined")
def test_a_gpu_is_kept_for_each_rank_the_drivers_own_among_them(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    starter = RayRanks(config, "cuda")
    try:
        with pytest.raises(ConfigError, match=r"there is no GPU for rank 0: 0 are visible"):
            starter.seat("cuda")  # Ray has given this machine's first, which torch does not see here
        assert free_gpus(1.0), "rank 0's and rank 1's are taken"
    finally:
        starter.close()
    assert free_gpus(3.0)
    config.learner.ranks = 4
    with pytest.raises(ConfigError, match=r"learner\.ranks = 4 takes a GPU for each; there are 3"):
        RayRanks(config, "cuda")


def free_gpus(count: float) -> bool:
    until = time.monotonic() + 20
    while (found := ray.available_resources().get("GPU", 0.0)) != count and time.monotonic() < until:
        time.sleep(0.05)
    return bool(found == count)


def test_more_than_there_is(config: Config) -> None:
    config.learner.ranks, config.cluster.patience = 9, 1.0
    with pytest.raises(ConfigError, match=r"no room for 8 learner ranks .* 8 CPU .*learner\.ranks"):
        RayRanks(config, "cpu")


class Killer(PlainReporter):
    """Kills rank 1 when so many steps are done."""

    def __init__(self, after: int):
        super().__init__()
        self.after, self.process = after, 0

    def note(self, text: str) -> None:
        super().note(text)
        if found := re.search(r"learner rank 1 is on .*process (\d+)", text):
            self.process = int(found[1])

    def advance(self, done: int, **fields: Any) -> None:
        super().advance(done, **fields)
        if "reward" in fields and done == self.after:
            os.kill(self.process, signal.SIGKILL)


def test_a_run_whose_rank_is_killed_is_gone_on_with(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "envs.py").write_text(ENVS)
    run = tmp_path / "run"
    settings = {
        "cluster": {"kind": "ray", "address": cluster.address},
        "run": {"live": "off", "dir": str(run)},
        "model": {"layers": 1, "width": 32, "heads": 2},
        "trainer": {"steps": 4, "checkpoint_every": 1},
        "rollout": {"groups": 4, "group_size": 2, "max_tokens": 4},
        "learner": {"ranks": 2},
        "eval": {"tasks": 0},
    }
    killer = Killer(after=2)
    with quick_runs():
        with pytest.raises(RunError, match=rf"rank 1 of the learner, on .*--resume {run}"):
            ag.train(settings, env__id=f"{tmp_path}/envs.py:say", reporter=killer)
        assert killer.process
        assert gone([killer.process])
        assert list_checkpoints(run / "checkpoints")[-1].name == "step-00001", "it was gone before the second was whole"
        assert not list((run / "checkpoints").glob("*.tmp"))
        summary = ag.train(resume=str(run), reporter=PlainReporter())
    assert summary["steps"] == 4
    assert check_run(run).problems == []
