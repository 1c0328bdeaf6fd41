"""Stops, limits, queues, cancellation, closing and bad input, in this process and in another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.engines.local import LocalEngine
from agentgym.errors import EngineFault, ModelError
from agentgym.protocols import Engine
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightUpdate

EngineOf = Callable[[str, str], Engine]


@pytest.fixture
def engine(engine_of: EngineOf, mode: str) -> Any:
    return engine_of("qwen3", mode)


def test_stop_ids_end_a_completion_and_are_part_of_it(engine: Any) -> None:
    free = asyncio.run(engine.generate([3, 4], SamplingParams(20, seed=1)))
    assert free.finish_reason == "length"
    assert len(free.ids) == 20
    stop = int(free.ids[7])
    first = free.ids.tolist().index(stop)
    cut = asyncio.run(engine.generate([3, 4], SamplingParams(20, seed=1, stop_ids=(95, stop, 96))))
    assert cut.finish_reason == "stop"
    assert cut.ids.tolist() == free.ids[: first + 1].tolist()


def test_a_stop_at_the_last_allowed_token_is_a_stop(engine: Any) -> None:
    token = int(asyncio.run(engine.generate([3, 4], SamplingParams(1, seed=1))).ids[0])
    again = asyncio.run(engine.generate([3, 4], SamplingParams(1, seed=1, stop_ids=(token,))))
    assert again.finish_reason == "stop"


def test_the_arrays_have_the_types_of_the_contract(engine: Any) -> None:
    completion = asyncio.run(engine.generate(np.array([3, 4]), SamplingParams(5, seed=1)))
    assert (completion.ids.dtype, completion.logprobs.dtype) == (np.int32, np.float32)
    assert completion.versions.tolist() == [engine.version] * 5


def test_a_full_context_ends_with_length(engine: Any, given: Any) -> None:
    prompt = [3] * (given.CONTEXT - 4)
    completion = asyncio.run(engine.generate(prompt, SamplingParams(100, seed=1)))
    assert (len(completion.ids), completion.finish_reason) == (4, "length")
    assert given.gap("qwen3", 0, prompt, completion) < 1e-5


@pytest.mark.parametrize("excess", [0, 1, 50])
def test_a_prompt_without_room_yields_nothing(engine: Any, given: Any, excess: int) -> None:
    completion = asyncio.run(engine.generate([3] * (given.CONTEXT + excess), SamplingParams(5)))
    assert (len(completion.ids), len(completion.versions), completion.finish_reason) == (0, 0, "length")


@pytest.mark.parametrize(("ids", "says"), [([], "at least one"), ([3, 97], "97"), ([-1], "-1")])
def test_bad_ids_are_a_fault_that_harms_nobody_else(engine: Any, ids: list[int], says: str) -> None:
    async def play() -> Completion:
        good = asyncio.create_task(engine.generate([3], SamplingParams(4, seed=1)))
        with pytest.raises(EngineFault, match=says):
            await engine.generate(ids, SamplingParams(4))
        completion: Completion = await good
        return completion

    assert len(asyncio.run(play()).ids) == 4


def test_more_requests_than_slots_are_served_in_order(engine: Any, given: Any) -> None:
    ended: list[int] = []

    async def one(i: int) -> None:
        await engine.generate([3 + i], SamplingParams(8, seed=i))
        ended.append(i)

    async def play() -> None:
        await asyncio.gather(*(one(i) for i in range(3 * given.SLOTS)))

    asyncio.run(play())
    waves = [sorted(ended[i : i + given.SLOTS]) for i in range(0, len(ended), given.SLOTS)]
    assert waves == [list(range(i, i + given.SLOTS)) for i in range(0, 3 * given.SLOTS, given.SLOTS)]


def test_idle_sessions_make_room_least_recently_used_first(engine: Any, given: Any) -> None:
    async def cached(name: str, prompt: list[int]) -> float:
        """Context tokens that a short call of this session found cached."""
        before = engine.stats["cached_tokens"]
        await engine.generate(prompt, SamplingParams(1, seed=1), session=name)
        return float(engine.stats["cached_tokens"] - before)

    async def play() -> list[float]:
        prompts = {f"s{i}": [3 + i] * 20 for i in range(given.SLOTS + 1)}
        names = list(prompts)
        for name in names[:-1]:
            await cached(name, prompts[name])
        await cached("s0", prompts["s0"])  # now s1 is the oldest
        evictions = engine.stats["evictions"]
        await cached(names[-1], prompts[names[-1]])
        assert engine.stats["evictions"] == evictions + 1
        found = [await cached(name, prompts[name]) for name in ("s0", names[-1], "s1")]
        for name in names:
            await engine.release(name)
        return found

    assert asyncio.run(play()) == [19, 19, 0]


def test_release_forgets_and_does_not_mind_strangers(engine: Any) -> None:
    async def play() -> float:
        await engine.release("nobody")
        await engine.generate([3] * 20, SamplingParams(1, seed=1), session="x")
        await engine.release("x")
        before = engine.stats["evictions"]
        for i in range(20):
            await engine.generate([4, 5, 6 + i], SamplingParams(1, seed=1))
        return float(engine.stats["evictions"] - before)

    assert asyncio.run(play()) == 0


def test_two_calls_of_one_session_at_once_are_both_right(engine: Any, given: Any) -> None:
    prompts = [[3, 4, 5, 6], [3, 4, 50], [3, 4, 5, 6]]

    async def play() -> list[Completion]:
        params = SamplingParams(9, seed=2)
        return await asyncio.gather(*(engine.generate(p, params, session="both") for p in prompts))

    done = asyncio.run(play())
    assert all(given.gap("qwen3", 0, p, c) < 1e-5 for p, c in zip(prompts, done, strict=True))
    assert done[0].ids.tolist() == done[2].ids.tolist()


def test_a_cancelled_call_frees_its_slot(engine: Any, given: Any) -> None:
    async def play() -> dict[str, float]:
        long = [
            asyncio.create_task(engine.generate([3 + i], SamplingParams(60, seed=i))) for i in range(2 * given.SLOTS)
        ]
        await asyncio.sleep(0.01)
        for task in long:
            task.cancel()
        assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*long, return_exceptions=True))
        await engine.generate([3], SamplingParams(3, seed=1))
        stats: dict[str, float] = engine.stats
        return stats

    stats = asyncio.run(play())
    assert (stats["running"], stats["waiting"]) == (0, 0)


def test_engines_outlive_an_event_loop(engine: Any) -> None:
    async def abandoned() -> None:
        task = asyncio.create_task(engine.generate([3], SamplingParams(60, seed=1)))
        await asyncio.sleep(0.005)
        del task  # asyncio.run cancels it, and the engine's own task with it

    asyncio.run(abandoned())
    assert len(asyncio.run(engine.generate([3], SamplingParams(5, seed=1))).ids) == 5


def _spoilt(weights: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    name = "model.norm.weight"
    spoilt = dict(weights)
    match how:
        case "unknown":
            spoilt["model.extra"] = torch.zeros(1)
        case "missing":
            del spoilt[name]
        case "shape":
            spoilt[name] = torch.zeros(3)
        case "tied":
            spoilt["lm_head.weight"] = torch.zeros_like(spoilt["lm_head.weight"])
    return spoilt


@pytest.mark.parametrize(
    ("how", "says"),
    [("unknown", "model.extra"), ("missing", "model.norm.weight"), ("shape", r"\(3,\)"), ("tied", "lm_head.weight")],
)
def test_weights_that_do_not_fit_change_nothing(engine: Any, given: Any, how: str, says: str) -> None:
    version = engine.version
    update = WeightUpdate(version + 1, "full", _spoilt(given.weights("qwen3", 1), how))
    with pytest.raises(ModelError, match=says):
        asyncio.run(engine.update_weights(update))
    assert engine.version == version
    completion = asyncio.run(engine.generate([3, 4], SamplingParams(9, seed=1)))
    assert given.gap("qwen3", 0, [3, 4], completion) < 1e-5


@pytest.mark.parametrize(
    "update",
    [WeightUpdate(9), WeightUpdate(9, "adapter", {}), WeightUpdate(9, path="no/such/folder")],
    ids=["empty", "adapter", "no folder"],
)
def test_updates_that_say_too_little_are_refused(engine: Any, update: WeightUpdate) -> None:
    with pytest.raises(ModelError):
        asyncio.run(engine.update_weights(update))


def test_one_name_of_tied_weights_is_enough(engine: Any, given: Any) -> None:
    weights = {k: v for k, v in given.weights("qwen3", 1).items() if k != "lm_head.weight"}
    asyncio.run(engine.update_weights(WeightUpdate(engine.version + 1, "full", weights)))
    completion = asyncio.run(engine.generate([3, 4], SamplingParams(9, seed=1)))
    assert given.gap("qwen3", 1, [3, 4], completion) < 1e-5
    back = WeightUpdate(engine.version + 1, "full", given.weights("qwen3", 0))
    asyncio.run(engine.update_weights(back))


def test_weights_from_a_folder(engine: Any, given: Any, tmp_path: Path) -> None:
    for seed in (1, 0):
        folder = tmp_path / str(seed)
        given.build_model("qwen3", seed).save_pretrained(folder)
        asyncio.run(engine.update_weights(WeightUpdate(engine.version + 1, path=str(folder))))
        completion = asyncio.run(engine.generate([3, 4], SamplingParams(9, seed=1)))
        assert given.gap("qwen3", seed, [3, 4], completion) < 1e-5


def test_a_folder_of_a_mixture_of_experts(given: Any, engine_of: EngineOf, tmp_path: Path) -> None:
    engine: Any = engine_of("qwen3_moe", "in-process")  # saved under other names than it has in memory
    for seed in (1, 0):
        given.build_model("qwen3_moe", seed).save_pretrained(tmp_path / str(seed))
        asyncio.run(engine.update_weights(WeightUpdate(engine.version + 1, path=str(tmp_path / str(seed)))))
        completion = asyncio.run(engine.generate([3, 4], SamplingParams(9, seed=1)))
        assert given.gap("qwen3_moe", seed, [3, 4], completion) < 1e-5


def test_nan_logits_are_a_fault_and_do_not_linger(engine: Any, given: Any) -> None:
    async def play() -> Completion:
        broken = dict(given.weights("qwen3", 0))
        broken["model.layers.0.self_attn.k_proj.weight"] = torch.full((8, 32), float("nan"))
        # another sequence has been here before, and its slot is used again after
        await engine.generate([3] * 30, SamplingParams(2, seed=1), session="old")
        await engine.update_weights(WeightUpdate(engine.version + 1, "full", broken))
        with pytest.raises(EngineFault, match="NaN"):
            await engine.generate([3] * 30, SamplingParams(9, seed=1), session="old")
        await engine.update_weights(WeightUpdate(engine.version + 1, "full", given.weights("qwen3", 0)))
        completion: Completion = await engine.generate([3] * 10, SamplingParams(9, seed=1), session="old")
        await engine.release("old")
        return completion

    assert given.gap("qwen3", 0, [3] * 10, asyncio.run(play())) < 1e-5


def test_closing_fails_what_is_pending_and_what_comes_later(given: Any, tmp_path: Path) -> None:
    engine = given.new_engine("qwen3", "in-process", tmp_path)

    async def play() -> list[Any]:
        pending = [asyncio.create_task(engine.generate([3 + i], SamplingParams(60, seed=i))) for i in range(9)]
        await asyncio.sleep(0.01)
        await engine.aclose()
        results = await asyncio.gather(*pending, return_exceptions=True)
        with pytest.raises(EngineFault, match="closed"):
            await engine.generate([3], SamplingParams(3))
        await engine.aclose()
        return results

    assert all(isinstance(result, EngineFault) for result in asyncio.run(play()))


def test_a_crash_inside_a_step_fails_its_requests_and_no_later_ones(given: Any) -> None:
    engine = LocalEngine(given.build_model("qwen3"), slots=4, max_context=32)
    runner: Any = engine._runner
    step = runner.step

    def broken() -> Any:
        raise RuntimeError("out of luck")

    async def play() -> Completion:
        runner.step = broken
        with pytest.raises(EngineFault, match="out of luck"):
            await asyncio.wait_for(engine.generate([3], SamplingParams(4, seed=1)), 5)
        runner.step = step
        return await engine.generate([3], SamplingParams(4, seed=1))

    assert given.gap("qwen3", 0, [3], asyncio.run(play())) < 1e-5


def test_models_it_would_run_wrongly_are_refused(given: Any) -> None:
    with pytest.raises(ModelError, match="128 positions"):
        LocalEngine(given.build_model("qwen3"), slots=2, max_context=256)
    with pytest.raises(ModelError, match="no-such-model"):
        LocalEngine.from_pretrained("./no-such-model")


def test_caches_are_kept_where_that_is_asked(given: Any) -> None:
    """`engine.pause = in_place`: what comes after new weights looks back on what the old ones made of the past."""
    engine = LocalEngine(given.build_model("qwen3"), slots=2, max_context=64, keep_caches=True)
    prompt = [5, 6, 7, 8]

    async def play() -> Completion:
        running = asyncio.create_task(engine.generate(prompt, SamplingParams(40, seed=3)))
        while engine.stats["tokens"] < 5:
            await asyncio.sleep(0)
        await engine.update_weights(WeightUpdate(1, "full", given.weights("qwen3", 1)))
        return await running

    done = asyncio.run(play())
    old, new = ((done.versions == version).sum() for version in (0, 1))
    assert min(old, new) > 3, "it spans the update"
    models = [given.build_model("qwen3", seed) for seed in (0, 1)]
    ids = torch.tensor([prompt + done.ids.tolist()])
    seen = len(prompt) + int(old) - 1  # the last of the old tokens is run by the new weights
    with torch.no_grad():
        past = models[0](ids[:, :seen], use_cache=True).past_key_values
        logits = models[1](ids[:, seen:-1], past_key_values=past, use_cache=True).logits[0]
    expected = torch.log_softmax(logits.float(), -1).gather(1, ids[0, seen + 1 :, None])[:, 0]
    np.testing.assert_allclose(done.logprobs[old:], expected.numpy(), atol=1e-4)
    fresh = given.all_logprobs("qwen3", 1, ids[0].tolist())[seen:-1].gather(1, ids[0, seen + 1 :, None])[:, 0]
    assert np.abs(done.logprobs[old:] - fresh.numpy()).max() > 1e-3, "else nothing was kept"
