"""Several ranks learn what one would, go on from each other's checkpoints, and end cleanly. Gloo, on the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing as mp
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.errors import RunError
from agentgym.trainers import optim
from agentgym.trainers.gap import GapProbe
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.lora import Lora
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.models import load_model
from agentgym.trainers.policy import Build
from agentgym.trainers.ranks.followers import RankError, RankLost, compare
from agentgym.trainers.ranks.learner import RankedLearner, make_ranked
from tests.trainers.rows import rows, tiny, tiny_moe

OPTIONS = LearnerOptions(lr=1e-3, optimizer="muon", minibatches=2, tokens_per_microbatch=128, kl=0.1)


@contextlib.contextmanager
def ranked(
    ranks: int = 2, model: Any = None, options: LearnerOptions = OPTIONS, build: Build | None = None, **more: Any
) -> Iterator[RankedLearner]:
    others = {child.pid for child in mp.active_children()}  # of other tests' fixtures
    learner = make_ranked(model or tiny(), options, ranks=ranks, build=build, timeout=300.0, **more)
    try:
        yield learner
    finally:
        learner.close()
        assert {child.pid for child in mp.active_children()} <= others
        assert not torch.distributed.is_initialized()


def steps(learner: Learner, begin: int, end: int) -> dict[str, float]:
    for i in range(begin, end):
        metrics = learner.train(rows(12, i), grpo_loss, seed=i)
    return metrics


def apart(one: Learner, other: Learner) -> float:
    mine, its = one.weights(), other.weights()
    assert list(mine) == list(its)
    return max(float((mine[name] - its[name]).detach().abs().max()) for name in mine)


def saved(learner: Learner, folder: Path) -> Path:
    folder.mkdir()
    learner.save_pretrained(folder)
    learner.save_state(folder)
    return folder


def loaded(folder: Path) -> Any:
    return type(tiny()).from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_do_what_one_does(tmp_path: Path) -> None:
    one = Learner(tiny(), OPTIONS)
    one.hold_here()
    with ranked() as two:
        two.hold_here()
        ours, theirs = steps(one, 0, 20), steps(two, 0, 20)
        assert apart(one, two) < 1e-5
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)
        for a, b in zip(one.logprobs(rows(5)), two.logprobs(rows(5)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        assert two.follow([3, 1, 4, 1, 5]) == pytest.approx(one.follow([3, 1, 4, 1, 5]), abs=1e-5)
        _the_probe_compares_with_what_was_published(two)

        after_20 = {name: tensor.clone() for name, tensor in two.weights().items()}
        fewer = saved(two, tmp_path / "two")
        back = Learner(loaded(fewer), OPTIONS)
        back.load_state(fewer)
        steps(two, 20, 21)
        steps(back, 20, 21)
        assert apart(back, two) < 1e-5
        more = saved(back, tmp_path / "one")

    with ranked() as again:  # from the start, the same to the last bit
        again.hold_here()
        steps(again, 0, 20)
        assert all(torch.equal(tensor, after_20[name]) for name, tensor in again.weights().items())
    with ranked(model=loaded(more)) as again:
        again.load_state(more)
        steps(back, 21, 22)
        steps(again, 21, 22)
        assert apart(back, again) < 1e-5


def _the_probe_compares_with_what_was_published(learner: Learner) -> None:
    probe = GapProbe(learner, keep=2)
    probe.published(0, learner.weights())
    batch = rows(4)
    for row, mine in zip(batch, learner.logprobs(batch), strict=True):
        row.logprobs[:] = mine
    gap = probe.check(batch)
    assert gap is not None
    assert gap < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_ranks_have_the_gradient_of_one() -> None:
    """Also where there are fewer rows than ranks; each rank's part is compared, and the norm of all."""
    options = LearnerOptions(lr=1e-3, tokens_per_microbatch=64, grad_clip=1e9)
    with ranked(4, options=options) as four:
        for count in (12, 2):
            one = Learner(tiny(), options)
            one.model.load_state_dict({**four.weights(), "lm_head.weight": four.weights()["model.embed_tokens.weight"]})
            whole, part = _seen(one), _seen(four)
            ours = one.train(rows(count), grpo_loss, seed=0)
            theirs = four.train(rows(count), grpo_loss, seed=0)
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-5)
            for name, mine in part[0].items():
                expected = whole[0][name].chunk(4)[0]
                assert float((mine - expected).norm()) <= 1e-5 * float(whole[0][name].norm()) + 1e-9


def _seen(learner: Learner) -> list[dict[str, torch.Tensor]]:
    """The gradient at each step, of rank 0's own part."""
    seen: list[dict[str, torch.Tensor]] = []
    step = learner.optimizers[0].step

    def watched(*args: Any) -> None:
        grads: dict[str, Any] = {n: p.grad for n, p in learner.model.named_parameters()}
        seen.append({n: (g.to_local() if hasattr(g, "to_local") else g).clone() for n, g in grads.items()})
        step(*args)

    learner.optimizers[0].step = watched  # type: ignore[method-assign, assignment]
    return seen


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_experts_on_two_ranks(tmp_path: Path, optimizer: Any) -> None:
    options = LearnerOptions(lr=1e-3, optimizer=optimizer, minibatches=2, tokens_per_microbatch=128)
    one = Learner(tiny_moe(), options)
    with ranked(model=tiny_moe(), options=options) as two:
        ours, theirs = steps(one, 0, 3), steps(two, 0, 3)
        assert apart(one, two) < 1e-5
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-5)
        folder = saved(two, tmp_path / "two")
        back = Learner(type(tiny_moe()).from_pretrained(folder), options)
        back.load_state(folder)
        steps(two, 3, 4)
        steps(back, 3, 4)
        assert apart(back, two) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.timeout(600)
def test_compiled_on_two_ranks() -> None:
    options = dataclasses.replace(OPTIONS, kl=0.0)
    one = Learner(tiny(), options)
    with ranked(options=options, build=Build(compile=True)) as two:
        ours, theirs = steps(one, 0, 2), steps(two, 0, 2)
        assert apart(one, two) < 1e-5
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_adapters_on_two_ranks_and_recomputed(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs peft (extra lora)")
    build = Build(lora=Lora(4), recompute=True, layout="padded")
    one = Learner(tiny(), OPTIONS, build=build)
    one.hold_here()
    with ranked(build=build) as two:
        given = {name: p.detach() for name, p in one.model.named_parameters() if "lora_" in name}
        place_first(two, given)
        two.hold_here()
        steps(one, 0, 5)
        steps(two, 0, 5)
        assert apart(one, two) < 1e-5
        folder = saved(two, tmp_path / "two")
        back = Learner(tiny(), OPTIONS, build=build)
        back.load_state(folder)
        assert apart(back, two) < 1e-6
        steps(two, 5, 6)
        steps(back, 5, 6)
        assert apart(back, two) < 1e-5


def place_first(learner: RankedLearner, given: dict[str, torch.Tensor]) -> None:
    """Adapters are drawn by each learner for itself: take another's."""
    learner._together("_take", given)


def test_bf16_is_computed_in_and_fp32_kept() -> None:
    """One rank, in this process: a rate that bf16 weights would round away moves the fp32 ones."""
    options = LearnerOptions(lr=1e-6, tokens_per_microbatch=64)
    exact = Learner(tiny(), options)
    with ranked(1, options=options, build=Build(dtype="bfloat16", recompute=True)) as half:
        before = half._whole()
        ours = exact.train(rows(12), grpo_loss, seed=0)
        theirs = half.train(rows(12), grpo_loss, seed=0)
        assert theirs["loss"] != ours["loss"]
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=0.05)
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=0.05)
        after = half._whole()
        for name, tensor in after.items():
            assert tensor.dtype == torch.float32
            assert not torch.equal(tensor, before[name])
        assert {tensor.dtype for tensor in half.weights().values()} == {torch.bfloat16}


def failing(tokens: Any) -> Any:
    if torch.distributed.get_rank() == 1:
        raise ValueError("the loss of rank 1 fails")
    return grpo_loss(tokens)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rank_that_fails_or_dies_ends_the_run_and_says_why() -> None:
    with ranked() as learner, pytest.raises(RankError, match="the loss of rank 1 fails"):
        learner.train(rows(12), failing, seed=0)
    others = {child.pid for child in mp.active_children()}
    with ranked() as learner:
        (child,) = [child for child in mp.active_children() if child.pid not in others]
        os.kill(child.pid or 0, signal.SIGKILL)
        with pytest.raises(RankLost, match=r"rank 1 .* SIGKILL \(was there enough memory\?\)"):
            learner.train(rows(12), grpo_loss, seed=0)


def test_state_that_cannot_be_written_or_read_is_the_users_to_mend(tmp_path: Path) -> None:
    """One rank, in this process. torch's own error there is no `Exception`."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "learner").write_text("a file where a folder is to be made")
    options = LearnerOptions(lr=1e-3, tokens_per_microbatch=64)
    with ranked(1, options=options, build=Build(dtype="bfloat16")) as learner:
        learner.train(rows(4), grpo_loss, seed=0)
        with pytest.raises(RunError, match="the learner's state cannot be written: rank 0: "):
            learner.save_state(tmp_path / "taken")
        whole = saved(learner, tmp_path / "whole")
        for shards in (whole / "learner").glob("*.distcp"):
            shards.write_bytes(shards.read_bytes()[:1000])
        with pytest.raises(RunError, match="learner: cannot be read: "):
            learner.load_state(whole)


def test_ranks_that_disagree_are_told_apart() -> None:
    mine = {"torch": "2.13.0", "the model": "abc"}
    compare(mine, [mine, dict(mine)])
    with pytest.raises(RunError, match="disagree: the model is 'abc' on rank 0 and 'abd' on rank 2"):
        compare(mine, [mine, {**mine, "the model": "abd"}])


def test_a_fused_optimizer_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # the kernel that GPUs take, over sharded weights; a CPU has it, too
    def fused(params: Any, lr: float, decay: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
        return optim._peak(torch.optim.AdamW(params, lr=lr, betas=betas, weight_decay=decay, fused=True))

    monkeypatch.setattr(optim, "_adamw", fused)
    options, build = LearnerOptions(lr=1e-3, tokens_per_microbatch=128), Build(dtype="bfloat16")
    with ranked(1, options=options, build=build) as learner:
        steps(learner, 0, 2)
        folder = saved(learner, tmp_path / "checkpoint")
        steps(learner, 2, 4)
        expected = {name: tensor.clone() for name, tensor in learner.weights().items()}
    with ranked(1, load_model(str(folder)), options, build) as again:
        again.load_state(folder)
        assert again.optimizers[0].param_groups[0]["fused"]
        counts = [state["step"] for state in again.optimizers[0].state.values()]
        assert [float(count) for count in counts] == [2.0] * len(counts)
        steps(again, 2, 4)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in again.weights().items())
