"""Routing replay: tokens go to the experts that the engine sent them to, and nothing else changes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.engines.local import LocalEngine
from agentgym.engines.routing import Note, mixture_of
from agentgym.errors import ConfigError
from agentgym.rollout.routing import experts_known
from agentgym.trainers.batch import Row, build_rows
from agentgym.trainers.gap import GapProbe, ReplayGap
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.micro import lay_out
from agentgym.trainers.policy import Build
from agentgym.types import Completion, Group, Message, Outcome, SamplingParams, StopReason, Trajectory, Turn
from tests.trainers.rows import rows, tiny, tiny_moe
from tests.trainers.test_invariance import apart, gpt_oss, gradient

REPLAY = Build(routing_replay=True)
PADDED, PACKED = replace(REPLAY, layout="padded"), replace(REPLAY, layout="packed")
UNKNOWN = 255
LAYOUTS = pytest.mark.parametrize("build", [PADDED, PACKED], ids=["padded", "packed"])


def with_experts(given: Sequence[Row], seed: int = 0, count: int = 4) -> list[Row]:
    """Two different experts a token and layer, at random."""
    rng = np.random.default_rng(seed)
    return [
        replace(row, experts=rng.random((len(row.ids), 2, count)).argsort(-1)[..., :2].astype(np.uint8))
        for row in given
    ]


def own_experts(model: Any, given: Sequence[Row]) -> list[Row]:
    """Those that the learner's routers choose, each row alone."""
    Learner(model, LearnerOptions(), build=PADDED)  # which taps it
    mixture = mixture_of(model.config.to_dict())
    assert mixture is not None
    found = []
    for row in given:
        note = Note()
        with torch.no_grad():
            model.base_model(input_ids=torch.from_numpy(row.ids.astype(np.int64))[None], use_cache=False, routing=note)
        found.append(replace(row, experts=note.experts(mixture)))
    return found


@LAYOUTS
@pytest.mark.parametrize("make", [tiny_moe, gpt_oss])
def test_its_own_choice_changes_nothing_and_another_does(make: Callable[[], Any], build: Build) -> None:
    plain = rows(8)
    own, others = own_experts(make(), plain), with_experts(plain)
    learner = Learner(make(), LearnerOptions(), build=build)
    expected = learner.logprobs(plain)
    for a, b in zip(expected, learner.logprobs(own), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert max(float(np.abs(a - b).max()) for a, b in zip(expected, learner.logprobs(others), strict=True)) > 1e-3


@LAYOUTS
@pytest.mark.parametrize("make", [tiny_moe, gpt_oss])
def test_each_expert_has_the_weight_of_its_own_score(make: Callable[[], Any], build: Build) -> None:
    """Told in another order, they are the same experts."""
    plain = rows(8)
    turned = [replace(row, experts=row.experts[..., ::-1].copy()) for row in own_experts(make(), plain)]  # type: ignore[index]
    learner = Learner(make(), LearnerOptions(), build=build)
    for a, b in zip(learner.logprobs(plain), learner.logprobs(turned), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@LAYOUTS
def test_tokens_without_a_record_go_where_their_router_says(build: Build) -> None:
    """Also rows without any, beside others: each is as it is alone."""
    plain = rows(8)
    half = own_experts(tiny_moe(), plain)
    for row in half:
        assert row.experts is not None
        row.experts[::2] = UNKNOWN
    learner = Learner(tiny_moe(), LearnerOptions(), build=build)
    mixed = [half[0], plain[1], *half[2:]]
    for a, b in zip(learner.logprobs(plain), learner.logprobs(mixed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@LAYOUTS
def test_the_gradient_reaches_routers_and_the_chosen_experts_only(build: Build) -> None:
    model = tiny_moe()
    given = [replace(row, experts=np.tile(np.uint8([3, 1]), (len(row.ids), 2, 1))) for row in rows(6)]
    learner = Learner(model, LearnerOptions(lr=1e-9), build=build)
    seen: dict[str, torch.Tensor] = {}
    learner.optimizers[0].step = lambda: seen.update(  # type: ignore[method-assign]
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    )
    learner.train(given, grpo_loss, seed=0)
    for layer in range(2):
        assert float(seen[f"model.layers.{layer}.mlp.gate.weight"].norm()) > 0
        for name in ("gate_up_proj", "down_proj"):
            met = seen[f"model.layers.{layer}.mlp.experts.{name}"].flatten(1).norm(dim=1) > 0
            assert met.tolist() == [False, True, False, True]


@pytest.mark.parametrize("make", [tiny_moe, gpt_oss])
def test_the_gradient_does_not_depend_on_how_rows_are_laid_out(make: Callable[[], Any]) -> None:
    given = with_experts(rows(12))
    whole = gradient(make(), given, PADDED)
    assert apart(whole, gradient(make(), given, PACKED)) < 1e-5
    for build in (PADDED, PACKED):
        assert apart(whole, gradient(make(), given, build, 64)) < 1e-5
        assert apart(whole, gradient(make(), given, replace(build, recompute=True), 64)) < 1e-5
    without = [replace(row, experts=None) for row in given]
    assert apart(whole, gradient(make(), without, PACKED)) > 1e-2, "the experts were followed"


def test_the_reference_goes_by_its_own_routing() -> None:
    given = with_experts(rows(4))
    learner = Learner(tiny_moe(), LearnerOptions(kl=0.1), build=REPLAY)
    before = learner.logprobs([replace(row, experts=None) for row in given])
    learner.hold_here()
    for a, b in zip(before, learner.logprobs(given, reference=True), strict=True):
        np.testing.assert_array_equal(a, b)
    assert learner.train(given, grpo_loss, seed=0)["kl_ref"] > 0, "and the policy by that of the rows"


def test_without_routing_replay_rows_experts_are_left_alone() -> None:
    given = with_experts(rows(4))
    learner = Learner(tiny_moe(), LearnerOptions())
    for row, logprobs in zip(given, learner.logprobs(given), strict=True):
        (expected,) = learner.logprobs([replace(row, experts=None)])
        np.testing.assert_allclose(logprobs, expected, atol=1e-6)


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner.routing_replay: Qwen3ForCausalLM has no experts; set it to false"):
        Learner(tiny(), LearnerOptions(), build=REPLAY)
    with pytest.raises(ConfigError, match=r"learner.routing_replay with learner.compile"):
        Learner(tiny_moe(), LearnerOptions(), build=replace(REPLAY, compile=True))


def test_experts_of_another_number_of_tokens_are_an_error() -> None:
    (row,) = with_experts(rows(1))
    laid = lay_out([row], torch.device("cpu"), routing=True)
    assert laid.experts is not None
    learner = Learner(tiny_moe(), LearnerOptions(), build=REPLAY)
    with pytest.raises(ValueError, match="were told of a choice of"):
        learner.policy(replace(laid, experts=laid.experts[1:]), 1.0)


# ---- from turns to rows ----


def token_turns(draw: Callable[[Any], Any]) -> tuple[Turn, ...]:
    """A tree of turns whose tokens are numbered; each one's experts are its number (one layer, one choice). Turns tell
    of what those before them do not, as an agent asks for it; some tell nothing, and some are cut afterwards."""
    turns: list[Turn] = []
    branches: dict[int | None, list[int]] = {None: []}
    number = 0
    for i in range(draw(st.integers(1, 6))):
        parent = draw(st.sampled_from(sorted(branches, key=str))) if i else None
        context, sampled = draw(st.integers(0 if parent is not None else 1, 4)), draw(st.integers(1, 5))
        ids = list(range(number, number + context + sampled))
        number += context + sampled
        branch = [*branches[parent], *ids]
        known = experts_known(turns, parent, len(branches[parent]))
        told = np.asarray(branch[known:-1], np.uint16).reshape(-1, 1, 1) if draw(st.booleans()) else None
        arrays = np.asarray(ids[context:], np.int32), np.zeros(sampled, np.float32), np.zeros(sampled, np.int32)
        completion = Completion(*arrays, experts=told)
        kept = draw(st.integers(1, sampled))
        if kept < sampled:
            completion, branch = completion.first(kept), branch[: kept - sampled]
        message = Message("assistant", "")
        turns.append(Turn(i, parent, np.asarray(ids[:context], np.int32), completion, message))
        branches[i] = branch
    return tuple(turns)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_each_token_keeps_its_own_experts(data: Any) -> None:
    """Through branches, cuts, rows and micro-batches; and all are known where every turn told."""
    turns = token_turns(data.draw)
    played = Trajectory("t", "t", "e", turns, (), 1.0, {}, Outcome.correct, StopReason.completed)
    credit = [[[np.ones(len(turn.completion.ids), np.float32) for turn in turns]]]
    made = build_rows([Group("g", "t", "e", (played,))], credit, version=0, max_staleness=0).rows
    everything = all(turn.completion.experts is not None for turn in turns)
    for row in made:
        if row.experts is None:
            assert not everything
            continue
        told = row.experts[:, 0, 0]
        known = told != np.iinfo(np.uint16).max
        np.testing.assert_array_equal(told[known], row.ids[known])
        assert not known[-1], "the last token was never run"
        assert known[:-1].all() or not everything
    ordered = sorted(made, key=lambda row: -len(row.ids))
    for layout in ("padded", "packed"):
        laid = lay_out(ordered, torch.device("cpu"), layout, routing=True)  # type: ignore[arg-type]
        if laid.experts is not None:
            told = laid.experts[:, 0, 0]
            assert len(told) == laid.ids.numel()
            assert (told[told >= 0] == laid.ids.flatten()[told >= 0]).all()


# ---- an engine that routes otherwise ----


async def play(engine: LocalEngine, seed: int, turns: int = 3) -> Row:
    """An episode of several turns, as the row that it is trained as."""
    rng = np.random.default_rng(seed)
    made: list[Turn] = []
    branch: list[int] = []
    for i in range(turns):
        parent = i - 1 if i else None
        known = experts_known(made, parent, len(branch))
        context = rng.integers(0, 50, 5).astype(np.int32)
        branch += context.tolist()
        params = SamplingParams(8, seed=100 * seed + i, experts_from=known)
        done = await engine.generate(branch, params, session=str(seed))
        branch += done.ids.tolist()
        made.append(Turn(i, parent, context, done, Message("assistant", "")))
    played = Trajectory("t", "t", "e", tuple(made), (), 1.0, {}, Outcome.correct, StopReason.completed)
    credit = [[[np.ones(len(turn.completion.ids), np.float32) for turn in made]]]
    (row,) = build_rows([Group("g", "t", "e", (played,))], credit, version=0, max_staleness=0).rows
    return row


def perturbed(model: Any) -> Any:
    """Routers that are a little off, as those of an engine with other kernels or types."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.add_(torch.randn_like(parameter) * 0.05 * parameter.std())
    return model


def rounded(model: Any) -> Any:
    return model.to(torch.bfloat16)


def larger() -> Any:
    """A mixture whose experts differ, so that it matters which are chosen."""
    return tiny_moe(num_experts=16, num_experts_per_tok=4, num_hidden_layers=4, initializer_range=0.15)


@pytest.mark.parametrize("off", [perturbed, rounded])
def test_an_engine_that_routes_otherwise_is_followed(off: Callable[[Any], Any]) -> None:
    learner = Learner(larger(), LearnerOptions(), build=REPLAY)
    engine = LocalEngine(off(larger()), slots=4, max_context=64, routing=True)

    async def played() -> list[Row]:
        return list(await asyncio.gather(*(play(engine, seed) for seed in range(16))))

    given = asyncio.run(played())
    figures = ReplayGap()(given, learner)
    assert figures["routing_replay/told"] == 1.0
    assert figures["routing_replay/own_gap_max"] > 0.1, "some tokens went elsewhere"
    assert figures["routing_replay/gap_max"] < 0.3 * figures["routing_replay/own_gap_max"], figures
    assert figures["routing_replay/gap"] < 0.8 * figures["routing_replay/own_gap"], figures


def test_an_engine_that_routes_alike_has_no_gap_with_or_without() -> None:
    learner = Learner(larger(), LearnerOptions(), build=REPLAY)
    probe = GapProbe(learner, keep=2)
    probe.published(0, learner.weights())
    engine = LocalEngine(larger(), slots=4, max_context=64, routing=True)
    given = [asyncio.run(play(engine, seed)) for seed in range(4)]
    with torch.no_grad():  # the learner has gone on: it is the probe's weights that are compared
        for parameter in learner.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    figures = ReplayGap(probe)(given, learner)
    assert figures["routing_replay/gap_max"] < 1e-4
    assert figures["routing_replay/own_gap_max"] < 1e-4
    assert ReplayGap()(given, learner)["routing_replay/gap"] > 1e-2
    assert ReplayGap(probe)([replace(row, experts=None) for row in given], learner) == {"routing_replay/told": 0.0}


def test_a_copy_of_a_policy_is_told_for_itself() -> None:
    """The reference is a copy: hooks that held the original's state would be followed by both."""
    learner = Learner(tiny_moe(), LearnerOptions(), build=REPLAY)
    other = copy.deepcopy(learner.policy)
    (row,) = with_experts(rows(1))
    laid = lay_out([row], torch.device("cpu"), routing=True)
    with torch.no_grad():
        np.testing.assert_array_equal(learner.policy(laid, 1.0)[0], other(laid, 1.0)[0])
        plain = replace(laid, experts=None)
        assert not torch.equal(other(plain, 1.0)[0], other(laid, 1.0)[0])
