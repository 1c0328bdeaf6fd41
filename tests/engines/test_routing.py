"""Engines tell the experts that tokens were sent to: those of the model's own plain forward."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.engines.mixture import Mixture, mixture_of
from agentgym.engines.routing import routes, tap
from agentgym.errors import ModelError
from agentgym.protocols import Engine
from agentgym.types import SamplingParams
from agentgym.weights import WeightUpdate

MIXTURES = pytest.mark.parametrize("mixture", ["qwen3_moe", "gpt_oss"])


def plain_experts(model: Any, ids: list[int]) -> torch.Tensor:
    """[tokens, layers, chosen] in ascending order, by the logits that the library itself reports."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), use_cache=False, output_router_logits=True)
    chosen = [logits.reshape(len(ids), -1).topk(2).indices for logits in out.router_logits]
    return torch.stack(chosen, 1).sort(-1).values


async def converse(
    engine: Engine, seed: int, vocabulary: int, turns: int = 3
) -> tuple[list[int], np.ndarray[Any, Any]]:
    """A branch's tokens, and the experts of all but the last, each asked for once. Prompts share their beginning."""
    rng = np.random.default_rng(seed)
    ids: list[int] = list(range(3, 20))
    told: list[Any] = []
    known = 0
    for turn in range(turns):
        ids += rng.integers(3, vocabulary, rng.integers(1, 4)).tolist()
        params = SamplingParams(int(rng.integers(1, 6)), seed=1000 * seed + turn, experts_from=known)
        done = await engine.generate(ids, params, session=str(seed))
        ids += done.ids.tolist()
        assert done.experts is not None
        told.append(done.experts)
        known += len(done.experts)
        assert known == len(ids) - 1
    return ids, np.concatenate(told)


async def crowd(engine: Engine, vocabulary: int) -> list[tuple[list[int], np.ndarray[Any, Any]]]:
    return list(await asyncio.gather(*(converse(engine, seed, vocabulary) for seed in range(9))))


@MIXTURES
def test_experts_through_turns_copied_caches_and_evictions(given: Any, mixture: str) -> None:
    engine: Any = given.new_engine(mixture, "in-process", None, routing=True)
    model = given.build_model(mixture)
    for ids, told in asyncio.run(crowd(engine, given.VOCAB)):
        assert told.dtype == np.uint8
        expected = plain_experts(model, ids[:-1])
        np.testing.assert_array_equal(np.sort(told, -1), expected.numpy())
    assert engine.stats["evictions"] > 0
    assert engine.stats["cached_tokens"] > 0


def test_experts_of_new_weights(given: Any) -> None:
    """What is cached was run by the old ones: it is run again, and told again."""
    engine: Any = given.new_engine("qwen3_moe", "in-process", None, routing=True)
    ids = list(range(3, 30))
    params = SamplingParams(4, seed=1, experts_from=0)

    async def play() -> Any:
        await engine.generate(ids, params, session="a")
        await engine.update_weights(WeightUpdate(1, tensors=given.weights("qwen3_moe", 1)))
        return await engine.generate(ids, params, session="a")

    done = asyncio.run(play())
    model = given.build_model("qwen3_moe", 1)
    expected = plain_experts(model, [*ids, *done.ids.tolist()][:-1]).numpy()
    np.testing.assert_array_equal(np.sort(done.experts, -1), expected)


def test_nothing_is_told_that_is_not_asked_for(given: Any) -> None:
    engine: Any = given.new_engine("qwen3_moe", "in-process", None, routing=True)
    done = asyncio.run(engine.generate([3, 4, 5], SamplingParams(4, seed=1)))
    assert done.experts is None


def test_an_engine_in_another_process_tells_them_too(given: Any, tmp_path: Any) -> None:
    engine: Any = given.new_engine("qwen3_moe", "process", tmp_path, routing=True)

    async def play() -> Any:
        try:
            return await converse(engine, 0, given.VOCAB)
        finally:
            await engine.aclose()

    ids, told = asyncio.run(play())
    expected = plain_experts(given.build_model("qwen3_moe"), ids[:-1]).numpy()
    np.testing.assert_array_equal(np.sort(told, -1), expected)


def test_a_dense_model_has_none_to_tell(given: Any) -> None:
    with pytest.raises(ModelError, match=r"learner.routing_replay: Qwen3ForCausalLM has no experts; set it to false"):
        given.new_engine("qwen3", "in-process", None, routing=True)


def test_a_choice_that_cannot_be_told_is_found_out(given: Any) -> None:
    """A router that goes by something else than the one call: here, by its own idea of the best."""
    model = given.build_model("qwen3_moe")
    mixture = tap(model)
    assert mixture == Mixture(3, 4, 2)
    assert routes(model, mixture)
    router = model.model.layers[0].mlp.gate

    def sorts(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = torch.nn.functional.linear(hidden, router.weight)
        values, indices = logits.softmax(-1).sort(descending=True)
        return logits, values[:, :2], indices[:, :2]

    for layer in model.model.layers:
        layer.mlp.gate.forward = sorts
    assert not routes(model, mixture)


def test_sizes_of_mixtures() -> None:
    assert mixture_of({"num_hidden_layers": 2}) is None
    many = mixture_of({"text_config": {"n_routed_experts": 256, "num_experts_per_tok": 8, "num_hidden_layers": 61}})
    assert many == Mixture(61, 256, 8)
    assert many.dtype is np.uint16, "one number is kept for what is not known"
    assert Mixture(48, 128, 8).dtype is np.uint8
