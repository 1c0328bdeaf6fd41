"""A mesh of FSDP and tensor parallelism learns what one rank would. Gloo, on the CPU."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from agentgym.config import load_config
from agentgym.errors import ConfigError, RunError
from agentgym.trainers import optim
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.lora import Lora
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.plan.layout import lay_out
from agentgym.trainers.plan.memory import learner_memory
from agentgym.trainers.plan.model import count
from agentgym.trainers.policy import Build, prepare, skeleton
from agentgym.trainers.ranks.followers import LOCAL
from agentgym.trainers.ranks.learner import ShardedLearner, make_ranked
from agentgym.trainers.ranks.pieces import gathered, own
from agentgym.trainers.ranks.team import Rendezvous, Team, join, keep_store
from tests.trainers.rows import SIZES, rows, tiny, tiny_moe
from tests.trainers.test_ranks import OPTIONS, apart, loaded, ranked, saved, steps

KEPT = {**SIZES, "num_key_value_heads": 2}
UNTIED = {**KEPT, "tie_word_embeddings": False}
EVEN = {"num_key_value_heads": 2}
UNEVEN = {**EVEN, "tie_word_embeddings": False, "intermediate_size": 66, "hidden_size": 35}
"""FSDP's shares of what is cut are then not all of one size."""


def qwen2() -> Any:
    """Biases that are cut, and scaled up from 0, where a lost one would not be seen."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**KEPT))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


def biased() -> Any:
    """A bias behind a product that is a sum over ranks: to be added once."""
    model = tiny(**EVEN, attention_bias=True)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.bias.normal_()
    return model


def gemma() -> Any:
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**KEPT, sliding_window=8, query_pre_attn_scalar=8))


def phi() -> Any:
    """Queries, keys and values in one matrix: its products are gathered."""
    torch.manual_seed(0)
    sizes = {name: size for name, size in UNTIED.items() if name != "head_dim"}
    return Phi3ForCausalLM(Phi3Config(**sizes, pad_token_id=0, bos_token_id=0, eos_token_id=0))


def untied() -> Any:
    return tiny(**{**EVEN, "tie_word_embeddings": False})


def forgetful() -> Any:
    """By a plan that does not say that queries are normed head by head."""
    model = tiny(**EVEN)
    plan = {name: style for name, style in model.config.base_model_tp_plan.items() if "norm" not in name}
    model.config.base_model_tp_plan = plan
    return model


@dataclass
class Seen:
    """What a learner's first step sees and does."""

    metrics: dict[str, float]
    gradient: dict[str, torch.Tensor] = field(default_factory=dict)
    after: dict[str, torch.Tensor] = field(default_factory=dict)


def first_step(learner: Learner, clip: float = 1e9) -> Seen:
    learner.restart(LearnerOptions(lr=1e-3, tokens_per_microbatch=128, grad_clip=clip))
    seen = Seen({})
    step = learner.optimizers[0].step

    def watched() -> None:
        for name, parameter in learner.model.named_parameters():
            seen.gradient[name] = whole(parameter.grad)
        step()

    learner.optimizers[0].step = watched  # type: ignore[method-assign, assignment]
    seen.metrics = learner.train(rows(12), grpo_loss, seed=0)
    seen.after = {name: whole(parameter) for name, parameter in learner.model.named_parameters()}
    return seen


def whole(tensor: Any) -> torch.Tensor:
    found: torch.Tensor = gathered(tensor) if hasattr(tensor, "device_mesh") else tensor.clone()
    return found.detach()


def cut(model: Any, team: Team, build: Build | None = None) -> ShardedLearner:
    """This rank's part of a learner; all ranks make it at once."""
    decided = prepare(model, build or Build())
    part = skeleton(type(model), model.config, decided)
    options = LearnerOptions(tokens_per_microbatch=128)
    return ShardedLearner(part, options, team.device, decided, team, source=model if team.rank == 0 else None)


FAMILIES: dict[str, Callable[[], Any]] = {
    "tied": lambda: tiny(**EVEN),
    "untied, and sizes that are not even": lambda: tiny(**UNEVEN),
    "qwen2": qwen2,
    "biased": biased,
    "gemma": gemma,
    "phi": phi,
}


@dataclass
class Found:
    """What two ranks that share every matrix have done."""

    families: dict[str, Seen] = field(default_factory=dict)
    clipped: Seen | None = None
    fused: Seen | None = None
    half: Seen | None = None
    agreed: float = 0.0
    failure: str = ""
    held: int = 0
    """Bytes of one rank's weights."""


def agreement(learner: Learner) -> float:
    """The sum of cosines between the gradients of successive minibatches."""
    learner.restart(LearnerOptions(lr=1e-3, tokens_per_microbatch=128, minibatches=3, agreement=0.9))
    learner.train(rows(12), grpo_loss, seed=0)
    return learner.agreement.total


def script(team: Team) -> Found:
    """Each of the ranks does this."""
    found = Found()
    for name, make in FAMILIES.items():
        found.families[name] = first_step(cut(make(), team))
    found.clipped = first_step(cut(tiny(**EVEN), team), clip=0.01)
    found.held = sum(own(parameter).nbytes for parameter in cut(tiny(**EVEN), team).model.parameters())
    found.agreed = agreement(cut(tiny(**EVEN), team))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim, "_adamw", fused)
        found.fused = first_step(cut(tiny(**EVEN), team))
    found.half = first_step(cut(tiny(**EVEN), team, Build(dtype="bfloat16", recompute=True)))
    try:
        first_step(cut(forgetful(), team))
    except RunError as e:  # on every rank
        found.failure = str(e)
    return found


def fused(params: Any, lr: float, decay: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """The kernel that GPUs take; a CPU has it, too."""
    return optim._peak(torch.optim.AdamW(params, lr=lr, betas=betas, weight_decay=decay, fused=True))


def follow(rendezvous: Rendezvous) -> None:
    torch.set_num_threads(1)
    script(join(rendezvous, 1, torch.device("cpu")))


@pytest.fixture(scope="module")
def found() -> Found:
    store = keep_store(2, LOCAL, 300.0)
    rendezvous = Rendezvous(LOCAL, store.port, 2, "gloo", 300.0, tp=2)
    other = mp.get_context("spawn").Process(target=follow, args=(rendezvous,), daemon=True)
    other.start()
    try:
        return script(join(rendezvous, 0, torch.device("cpu"), store))
    finally:
        other.join(10.0)
        other.kill()
        other.join()
        Team(size=2).leave()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rank_holds_what_is_planned(found: Found) -> None:
    config = load_config(None, {"learner": {"ranks": 2, "tensor_parallel": 2, "device": "cpu"}})
    model = count(tiny(**EVEN).config, config, "tiny", "tiny")
    planned = learner_memory(config, model, lay_out(config, model), tokens=100)
    assert planned.weights == pytest.approx(found.held, rel=0.02)  # norms, which each rank has whole, are left out
    assert planned.weights < 4 * model.parameters / 1.5


def far(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The relative difference of all tensors together."""
    assert list(one) == list(other)
    squares = sum(float((one[name] - other[name]).square().sum()) for name in one)
    return (squares / sum(float(tensor.square().sum()) for tensor in one.values())) ** 0.5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_one_rank(found: Found, family: str) -> None:
    ours = first_step(Learner(FAMILIES[family](), LearnerOptions()))
    theirs = found.families[family]
    assert far(ours.gradient, theirs.gradient) <= 1e-5
    for name, gradient in ours.gradient.items():  # also of what is small
        assert float((gradient - theirs.gradient[name]).norm()) <= 1e-4 * float(gradient.norm()) + 1e-7
    assert theirs.metrics == pytest.approx(ours.metrics, rel=1e-5, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_is_clipped_and_compared_as_on_one_rank(found: Found) -> None:
    assert found.clipped is not None
    ours = first_step(Learner(tiny(**EVEN), LearnerOptions()), clip=0.01)
    assert found.clipped.metrics["grad_norm"] == pytest.approx(ours.metrics["grad_norm"], rel=1e-5)
    assert far(ours.gradient, found.clipped.gradient) <= 1e-5
    assert found.agreed == pytest.approx(agreement(Learner(tiny(**EVEN), LearnerOptions())), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_gpus_optimizer_and_half_precision(found: Found) -> None:
    assert found.fused is not None
    assert found.half is not None
    ours = first_step(Learner(tiny(**EVEN), LearnerOptions()))
    assert far(ours.after, found.fused.after) <= 1e-5
    assert found.half.metrics["loss"] != ours.metrics["loss"]
    assert found.half.metrics["grad_norm"] == pytest.approx(ours.metrics["grad_norm"], rel=0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plan_that_forgets_something_ends_the_run(found: Found) -> None:
    assert "learner.tensor_parallel: its ranks differ on the gradient of model.layers.0.self_attn." in found.failure


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_by_two_ranks_go_on_from_other_layouts_and_others_from_theirs(tmp_path: Path) -> None:
    """Two by FSDP alone, then two by two, then one: against one that never stopped."""
    one = Learner(tiny(**UNEVEN), OPTIONS)
    one.hold_here()
    with ranked(2, tiny(**UNEVEN)) as two:
        two.hold_here()
        steps(one, 0, 2)
        steps(two, 0, 2)
        before = saved(two, tmp_path / "two")
    with ranked(4, loaded(before), tensor_parallel=2) as four:
        four.load_state(before)
        assert apart(one, four) < 1e-5
        ours, theirs = steps(one, 2, 4), steps(four, 2, 4)
        assert apart(one, four) < 1e-5
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)
        for a, b in zip(one.logprobs(rows(5)), four.logprobs(rows(5)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        assert four.follow([3, 1, 4, 1, 5]) == pytest.approx(one.follow([3, 1, 4, 1, 5]), abs=1e-5)
        _a_row_that_is_no_number_is_left_out_once(one, four)
        folder = saved(four, tmp_path / "four")
        exported = dict(loaded(folder).named_parameters())
        for name, tensor in four.weights().items():
            assert torch.equal(tensor, exported[name])
    back = Learner(loaded(folder), OPTIONS)
    back.load_state(folder)
    assert back.skipped == 1
    steps(one, 4, 5)
    steps(back, 4, 5)
    assert apart(one, back) < 1e-5


def _a_row_that_is_no_number_is_left_out_once(one: Learner, four: Learner) -> None:
    for learner in (one, four):
        batch = rows(12, seed=9)
        batch[3].advantages[-1] = np.nan
        learner.train(batch, grpo_loss, seed=9)
        assert learner.skipped == 1
        assert [len(row.ids) for row in learner.skips.rows] == [len(batch[3].ids)]
    assert apart(one, four) < 1e-5  # by the batch's other minibatch, too


def plan(model: Any, **changed: str) -> Any:
    model.config.base_model_tp_plan = {**model.config.base_model_tp_plan, **changed}
    return model


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4))


@pytest.mark.parametrize(
    ("make", "parts", "build", "told"),
    [
        (lambda: tiny(**EVEN), 3, Build(), r"= 3 does not divide learner\.ranks = 8; set one so"),
        (lambda: tiny(**EVEN), 8, Build(), r"= 8 does not divide the 4 attention heads of Qwen3ForCausalLM"),
        (lambda: tiny(**EVEN), 4, Build(), r"= 4 does not divide the 2 key/value heads of Qwen3ForCausalLM"),
        (lambda: tiny(**EVEN, intermediate_size=65), 2, Build(), r"does not divide the 65 of model\.layers\.0\.mlp\."),
        (gpt2, 2, Build(), r"transformers has no plan of how to cut GPT2LMHeadModel; set learner\.tensor_parallel = 1"),
        (
            lambda: tiny_moe(**EVEN),
            2,
            Build(),
            r"plan of Qwen3MoeForCausalLM has the style '\w+' for layers\.\*\.mlp\.ex",
        ),
        (
            lambda: plan(tiny(**EVEN), **{"layers.*.mlp": "folded"}),
            2,
            Build(),
            r"has the style 'folded' for layers\.\*\.mlp, which we cannot do; set learner\.tensor_parallel = 1",
        ),
        (lambda: tiny(**EVEN), 2, Build(lora=Lora(4)), r"with model\.lora_rank = 4: adapters are not cut"),
        (lambda: tiny(**EVEN), 2, Build(compile=True), r"with learner\.compile: compiled blocks are not cut"),
    ],
)
def test_what_cannot_be_cut_is_refused_before_anything_starts(
    make: Callable[[], Any], parts: int, build: Build, told: str
) -> None:
    others = mp.active_children()  # of other tests' fixtures
    with pytest.raises(ConfigError, match=r"^learner\.tensor_parallel.*" + told):
        make_ranked(make(), LearnerOptions(), ranks=8, tensor_parallel=parts, build=build)
    assert mp.active_children() == others


def test_a_configuration_with_groups_that_are_not_whole_is_refused() -> None:
    assert load_config(None, {"learner": {"ranks": 4, "tensor_parallel": 2}}).learner.tensor_parallel == 2
    with pytest.raises(ConfigError, match=r"learner\.tensor_parallel.*does not divide learner\.ranks = 4"):
        load_config(None, {"learner": {"ranks": 4, "tensor_parallel": 3}})
