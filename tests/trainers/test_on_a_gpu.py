"""A learner on a GPU that is pretended: nothing of what it does stays behind on the CPU, and it comes to the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import agentgym as ag
from agentgym.trainers.check_run import check_run
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.lora import Lora
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.policy import Build
from tests.pretended_gpu import GPU, pretended_gpu
from tests.trainers.rows import rows, tiny, tiny_moe
from tests.trainers.test_invariance import gemma, gpt_oss
from tests.trainers.test_offload import OPTIONS, held
from tests.trainers.tiny_runs import SMALL, Stopper, quick_runs
from tests.trainers.tiny_runs import rows as lines

PACKED, PADDED = Build(layout="packed"), Build(layout="padded")


def trained(model: Any, build: Build, device: str) -> dict[str, torch.Tensor]:
    """The weights after two batches, on the CPU."""
    options = LearnerOptions(lr=1e-3, tokens_per_microbatch=64, minibatches=2)
    learner = Learner(model, options, torch.device(device), build)
    for seed in range(2):
        learner.train(rows(8, seed), grpo_loss, seed=seed)
    learner.logprobs(rows(2))
    return {name: tensor.detach().cpu() for name, tensor in learner.weights().items()}


@pytest.mark.parametrize(
    ("make", "build"),
    [
        pytest.param(tiny, PACKED, id="packed"),
        pytest.param(tiny, PADDED, id="padded"),
        pytest.param(tiny, Build(layout="packed", recompute=True), id="recomputed"),
        pytest.param(tiny, Build(layout="packed", lora=Lora(rank=2)), id="lora"),
        pytest.param(tiny_moe, Build(layout="packed", routing_replay=True), id="routing replay"),
        pytest.param(gemma, PACKED, id="softcap and window"),
        pytest.param(gpt_oss, PACKED, id="sinks"),
    ],
)
def test_it_learns_what_it_learns_on_the_cpu(make: Callable[[], Any], build: Build) -> None:
    if build.lora.rank:
        pytest.importorskip("peft", reason="needs peft (extra lora)")
    torch.manual_seed(0)
    expected = trained(make(), build, "cpu")
    with pretended_gpu():
        torch.manual_seed(0)
        found = trained(make(), build, "cuda")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=0)


def test_memory_is_given_back_and_taken_again() -> None:
    with pretended_gpu():
        learner = Learner(tiny(), OPTIONS, GPU)
        learner.hold_here()
        learner.train(rows(8), grpo_loss, seed=0)
        learner.offload()
        assert {tensor.device.type for tensor in held(learner)} == {"cpu"}
        learner.onload()
        assert {tensor.device.type for tensor in held(learner)} == {"cuda"}
        learner.train(rows(8, 1), grpo_loss, seed=1)


def test_a_run(tmp_path: Path) -> None:
    """Engine and learner on one GPU: warm start, play, learning, saving, going on, evaluating."""
    folder = tmp_path / "run"
    settings = {**SMALL, "learner": {"device": "cuda", "kl": 0.1}, "engine": {"device": "cuda"}}
    with quick_runs(), pretended_gpu():
        ag.train(settings, env__id="agentgym/Store-v0", run__dir=str(folder), reporter=Stopper())
        ag.train(resume=str(folder), trainer__steps=6, reporter=Stopper())
    assert [row["step"] for row in lines(folder, "metrics.jsonl") if "eval" not in row] == list(range(1, 7))
    assert not check_run(folder).problems
