"""The whole plan: where things go, what a step takes, what is said where it does not fit."""

from __future__ import annotations

import json
import math
import shlex
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

from agentgym.config import Config, load_config
from agentgym.errors import ConfigError, UserError
from agentgym.trainers.packing import passes
from agentgym.trainers.plan.architectures import ARCHITECTURES
from agentgym.trainers.plan.batches import draw_lengths, plan_batch
from agentgym.trainers.plan.hardware import CARDS, find_card
from agentgym.trainers.plan.layout import lay_out
from agentgym.trainers.plan.model import Model, count
from agentgym.trainers.plan.remedies import remedies
from agentgym.trainers.plan.resolve import Plan, make_plan
from agentgym.trainers.plan.rows import sections
from agentgym.trainers.plan.show import figures, verdict
from agentgym.trainers.plan.split import best_split, splits

BIG = {
    "model.path": "Qwen/Qwen3-32B",
    "model.dtype": "bfloat16",
    "engine.kind": "sglang",
    "engine.gpus_each": 4,
    "engine.replicas": 8,
    "engine.sync": "distributed",
    "learner.ranks": 32,
    "learner.recompute": True,
    "rollout.groups": 64,
    "rollout.group_size": 16,
    "rollout.workers": 16,
    "plan.gpu": "H100",
    "plan.gpus": 64,
}
RECIPES = {
    "qwen3-4b-24gb": 1,
    "qwen3-4b-80gb": 1,
    "qwen3-30b-a3b-8gpu": 8,
    "qwen3-32b-64gpu": 64,
    "qwen3-32b-1024gpu": 1024,
}


def of(config: Config) -> Model:
    settings = dict(ARCHITECTURES[config.model.path])
    return count(AutoConfig.for_model(settings.pop("model_type"), **settings), config, config.model.path, "table")


def plan_of(recipe: str | None = None, **given: Any) -> Plan:
    config = load_config(recipe, {**({} if recipe else BIG), **given})
    return make_plan(config, of(config))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_fit_what_they_are_for(recipe: str) -> None:
    plan = plan_of(recipe)
    assert not plan.lacks, verdict(plan)
    assert plan.layout.gpus == plan.layout.taken == RECIPES[recipe]
    assert 1 < plan.step_seconds < 3600
    if (best := best_split(plan)) is not None:  # and they are split as the plan would
        assert plan.step_seconds <= 1.05 * best.step_seconds


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"learner.ranks": 4, "plan.gpus": 36}, "a learner rank"),
        ({"engine.gpus_each": 1, "plan.gpu": "A100-40GB"}, "an engine's GPU"),
    ],
)
def test_what_does_not_fit_is_named_and_the_remedies_are_true(given: dict[str, Any], part: str) -> None:
    plan = plan_of(**given)
    assert part in [lack.part for lack in plan.lacks]
    lack = next(lack for lack in plan.lacks if lack.part == part)
    assert lack.over == lack.needs - lack.has > 0
    told = verdict(plan)
    assert "does not fit" in told
    assert f"{lack.over / 2**30:,.1f} GiB too much" in told
    found = remedies(plan)
    assert found
    for remedy in found:
        assert not after(remedy, {**BIG, **given}).lacks, remedy


def after(remedy: str, given: dict[str, Any]) -> Plan:
    """The plan with a remedy, typed as it is told."""
    options = [*(f"{key}={json.dumps(value)}" for key, value in given.items()), *shlex.split(remedy)]
    changed = load_config(None, [option.removeprefix("--") for option in options])
    return make_plan(changed, of(changed))


def test_sglang_beside_a_learner_has_to_leave_it_room() -> None:
    given = {"model.path": "Qwen/Qwen3-4B", "model.dtype": "bfloat16", "model.lora_rank": 16, "engine.kind": "sglang"}
    given |= {"plan.gpu": "H100", "plan.gpus": 1, "learner.recompute": True}
    plan = make_plan(config := load_config(None, given), of(config))
    assert plan.layout.shared
    assert plan.lacks
    (remedy, *_) = remedies(plan)
    assert "mem-fraction-static" in remedy
    assert not after(remedy, given).lacks


def test_in_turn_each_may_have_the_whole_card() -> None:
    given = {"model.path": "Qwen/Qwen3-4B", "model.dtype": "bfloat16", "model.lora_rank": 16, "engine.kind": "sglang"}
    given |= {"plan.gpu": "H100", "plan.gpus": 1, "learner.recompute": True, "rollout.max_staleness": 0}
    beside = make_plan(config := load_config(None, given), of(config))
    in_turn = make_plan(config := load_config(None, {**given, "cluster.placement": "colocated"}), of(config))
    assert beside.lacks
    assert not in_turn.lacks
    assert in_turn.layout.taken == 1
    assert in_turn.step_seconds >= in_turn.learn.total + in_turn.play.longest
    small = {**given, "cluster.placement": "colocated", "model.lora_rank": 0, "plan.gpu": "A100-40GB"}
    lacks = make_plan(config := load_config(None, small), of(config)).lacks
    assert [lack.part for lack in lacks] == ["the learner in its turn"]


def test_full_training_of_4b_beside_its_engine_does_not_fit_24_gb() -> None:
    plan = plan_of("qwen3-4b-24gb", **{"model.lora_rank": 0})
    assert plan.lacks[0].part == "learner and engine on one GPU"
    assert plan.lacks[0].needs > 16 * 4.02e9 + 2 * 4.02e9
    assert any("model.lora_rank=16" in remedy for remedy in remedies(plan))


def test_shards_are_the_whole_divided() -> None:
    for ranks in (8, 16, 32):
        memory = plan_of(**{"learner.ranks": ranks}).learner
        assert memory.state == pytest.approx(16 * 32_762_123_264 / ranks, rel=1e-6)


def test_adapters_leave_the_weights_without_gradients_and_moments() -> None:
    whole, adapted = plan_of(), plan_of(**{"model.lora_rank": 16})
    assert adapted.learner.gradients == math.ceil(4 * adapted.model.adapter / 32)
    assert adapted.learner.optimizer == math.ceil(8 * adapted.model.adapter / 32)
    assert adapted.sync.bytes == whole.sync.bytes == 2 * whole.model.parameters  # engines get merged weights
    assert adapted.learn.compute < whole.learn.compute


def test_arithmetic_is_eight_a_weight_and_token_at_short_rows() -> None:
    """Forward two, backward four, blocks once more: of a dense model at rows so short that attention is nothing."""
    given = {"engine.max_context": 64, "learner.tokens_per_microbatch": 64, "plan.sampled": 1.0, "plan.mfu": 1.0}
    plan = plan_of(**given)
    per_token = plan.learn.compute * 989e12 / plan.batch.busiest
    assert per_token == pytest.approx(8 * plan.model.parameters, rel=0.03)


def test_decoding_reads_weights_and_caches_once_a_step() -> None:
    given = {"plan.launch_us": 1e-9, "plan.bandwidth": 1.0, "rollout.workers": 1, "rollout.concurrency": 8}
    plan = plan_of(**{**given, "plan.episode_tokens": 1000, "engine.max_context": 8192})
    assert plan.play.sequences == 1
    mean = plan.batch.tokens // plan.batch.rows
    read = 2 * plan.model.parameters + 2 * 2 * 64 * 8 * 128 * mean / 2
    assert plan.play.tokens_per_s == pytest.approx(8 / (read / (4 * 3.35e12)))


def test_more_sequences_meet_more_experts() -> None:
    recipe = "qwen3-30b-a3b-8gpu"
    alone = plan_of(recipe, **{"rollout.workers": 1, "rollout.concurrency": 2}).play
    many = plan_of(recipe, **{"rollout.workers": 4, "rollout.concurrency": 256}).play
    assert alone.sequences == 1
    assert many.tokens_per_s < alone.tokens_per_s * many.sequences


def test_sharding_between_machines_is_slower_than_within_one() -> None:
    within, between = plan_of(**{"learner.ranks": 8}), plan_of(**{"learner.ranks": 16})
    each = [plan.learn.gather / plan.batch.micro_batches for plan in (within, between)]
    assert each[1] > 5 * each[0]


def test_ranks_that_share_every_matrix_halve_the_work_of_a_row_and_wait_for_each_other() -> None:
    given = {"learner.ranks": 8, "learner.tokens_per_microbatch": 65536, "learner.recompute": False}
    apart, shared = plan_of(**given), plan_of(**given, **{"learner.tensor_parallel": 2})
    assert shared.layout.groups == 4
    # embedding and head, which are not cut, are on twice as many numbers a rank
    more = shared.learner.weights - apart.learner.weights
    assert more == pytest.approx(4 * apart.model.embedding / 8, rel=1e-6)
    assert 0.5 < shared.learner.activations / apart.learner.activations < 0.8  # hidden states are whole on each
    assert apart.learn.cut == 0 < shared.learn.cut
    busiest = shared.batch.busiest / apart.batch.busiest
    assert 0.5 * busiest * apart.learn.compute < shared.learn.compute < 0.6 * busiest * apart.learn.compute
    assert "4 (FSDP) by 2 (tensor parallel)" in sections(shared, None)["place"]["learner"]


def test_a_model_that_cannot_be_cut_is_refused_here_too() -> None:
    with pytest.raises(ConfigError, match=r"learner\.tensor_parallel = 16 does not divide the 8 key/value heads"):
        plan_of(**{"learner.tensor_parallel": 16})
    with pytest.raises(ConfigError, match=r"learner\.tensor_parallel: transformers' plan of Qwen3MoeForCausalLM"):
        plan_of(**{"model.path": "Qwen/Qwen3-30B-A3B", "learner.tensor_parallel": 2})


def test_one_side_waits_where_nothing_may_be_stale() -> None:
    synchronous, free = plan_of(**{"rollout.max_staleness": 0}), plan_of()
    assert synchronous.in_turn
    assert not free.in_turn
    assert synchronous.step_seconds > free.step_seconds
    assert free.step_seconds == pytest.approx(max(free.learn.total, free.play.total) + free.sync.seconds)
    assert plan_of("qwen3-4b-24gb").in_turn


def test_the_balanced_split_uses_every_card_and_is_the_fastest_that_fits() -> None:
    plan = plan_of(**{"learner.ranks": 8, "engine.replicas": 14})
    assert all(ranks + 4 * replicas == 64 for ranks, replicas in splits(plan))
    best = best_split(plan)
    assert best is not None
    assert not best.lacks
    assert best.step_seconds <= plan.step_seconds
    assert best.layout.taken == 64


@pytest.mark.parametrize("name", ["H100", "h100", "NVIDIA H100", "a100-40gb", "A100_40GB", "rtx 4090"])
def test_cards_are_found_by_their_usual_names(name: str) -> None:
    assert find_card(name) in CARDS


def test_an_unknown_card_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"plan.gpu = 'H1000': no such card is known; did you mean 'H100'"):
        find_card("H1000")
    with pytest.raises(ConfigError, match=r"\(known: .*cpu\)"):
        find_card("abacus")


def test_every_card_has_plausible_rates() -> None:
    for card in CARDS:
        assert 20e9 < card.memory < 300e9
        assert card.fp32 < card.bf16 < 5e15
        assert card.net <= card.link <= card.bandwidth < 10e12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learner.ranks": 48}, r"learner.ranks = 48 and 8 engines of 4 take 80 GPUs, and plan.gpus = 64"),
        ({"engine.gpus_each": 16}, r"engine.gpus_each = 16: a machine has plan.gpus_per_node = 8"),
        ({"engine.gpus_each": 3}, r"engine.gpus_each = 3: the model's 64 attention heads cannot be cut so"),
        ({"engine.kind": "local", "cluster.kind": "ray"}, r"rollout.gpus_each = 0"),
    ],
)
def test_places_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(**given)


def test_as_many_cards_as_it_takes_where_none_are_counted() -> None:
    config = load_config(None, {**BIG, "plan.gpus": 0})
    layout = lay_out(config, of(config))
    assert (layout.gpus, layout.nodes) == (64, 8)


@pytest.mark.parametrize(("mean", "most"), [(1024, 2048), (500, 16384), (4096, 4096), (30, 100)])
def test_lengths_have_their_mean_and_end_at_the_context(mean: int, most: int) -> None:
    lengths = draw_lengths(mean, most, 4096, 0)
    assert lengths.mean() == pytest.approx(mean, rel=0.02)
    assert lengths.min() >= 1
    assert lengths.max() <= most
    assert (lengths == draw_lengths(mean, most, 4096, 0)).all()


def test_micro_batches_are_cut_by_the_trainers_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def cut(rows: Any, ranks: int, **how: Any) -> Any:
        seen.append(len(rows))
        return passes(rows, ranks, **how)

    monkeypatch.setattr("agentgym.trainers.plan.batches.passes", cut)
    config = load_config(None, {"engine.max_context": 512, "learner.minibatches": 2, "rollout.groups": 8})
    settings = AutoConfig.for_model("qwen3")
    batch = plan_batch(config, settings, 1)
    assert sum(seen) == batch.rows == 64
    assert len(seen) == batch.minibatches == 2
    assert batch.padded == batch.busiest == batch.tokens
    shared = plan_batch(config, settings, 4)
    assert shared.padded == batch.tokens
    assert batch.tokens / 4 <= shared.busiest <= 1.2 * batch.tokens / 4
    config.learner.layout = "padded"
    assert plan_batch(config, settings, 1).padded > batch.tokens


def test_figures_are_json() -> None:
    plan = plan_of()
    found = json.loads(json.dumps(figures(plan, best_split(plan))))
    assert found["fits"] is True
    assert found["model"]["parameters"] == 32_762_123_264
    assert found["learner_memory"]["total"] == plan.learner.total
    assert found["split"]["seconds"]["step"] <= found["seconds"]["step"]
    assert not any(isinstance(value, float) and np.isnan(value) for value in found["seconds"]["learn"].values())


def test_a_tiny_model_is_planned_for_this_machine() -> None:
    plan = make_plan(load_config("store", {"plan.gpu": "cpu"}))
    assert plan.model.source == "tiny"
    assert plan.layout.gpus == 0
    assert not plan.lacks


def test_a_model_that_transformers_does_not_have_is_the_users_to_mend() -> None:
    with pytest.raises(UserError):
        count(AutoConfig.for_model("vit"), Config(), "vit", "folder")
