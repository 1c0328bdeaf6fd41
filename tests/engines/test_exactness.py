"""Whatever is in the batch, a sampled token has the logprob of the model's own plain forward (fp32, 1e-5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.engines.local import LocalEngine
from agentgym.protocols import Engine
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightUpdate

EngineOf = Callable[[str, str], Engine]
TOLERANCE = 1e-5


def test_logprobs_with_turns_joins_leaves_and_evictions(
    given: Any, engine_of: EngineOf, family: str, mode: str
) -> None:
    engine = engine_of(family, mode)

    async def play() -> list[Any]:
        episodes = [given.Episode(engine, seed, session=seed % 5 != 0) for seed in range(14)]
        return await asyncio.gather(*(episode.play() for episode in episodes))

    played = asyncio.run(play())
    turns = [turn for episode in played for turn in episode.played]
    assert max(len(prompt) + len(c.ids) for prompt, c in turns) > 2 * given.WINDOW
    assert sum(len(c.ids) for _, c in turns) > 100
    assert max(given.gap(family, 0, prompt, c) for prompt, c in turns) < TOLERANCE
    # the reference tells weights apart, so that agreeing with it means something
    assert max(given.gap(family, 1, prompt, c) for prompt, c in turns[:4]) > 0.1
    if isinstance(engine, LocalEngine):
        assert engine._runner.recordings.refused is None  # and what was held to it are replayed steps, too
        assert engine._runner.recordings.kinds


def test_turns_of_a_session_reuse_its_cache(given: Any, engine_of: EngineOf, family: str, mode: str) -> None:
    engine: Any = engine_of(family, mode)

    async def play() -> tuple[Any, dict[str, float], dict[str, float]]:
        before = engine.stats
        episode = await given.Episode(engine, 3, turns=4).play()
        return episode, before, engine.stats

    episode, before, after = asyncio.run(play())
    contexts = [len(prompt) for prompt, _ in episode.played]
    ran = after["prefill_tokens"] - before["prefill_tokens"]
    assert ran < sum(contexts) / 2
    assert after["cached_tokens"] > before["cached_tokens"]
    assert max(given.gap(family, 0, prompt, c) for prompt, c in episode.played) < TOLERANCE


def test_a_changed_past_is_computed_anew(given: Any, engine_of: EngineOf, family: str, mode: str) -> None:
    engine = engine_of(family, mode)
    params = SamplingParams(6, seed=1)

    async def play() -> list[tuple[list[int], Completion]]:
        prompts = [[7, 8, 9, 10, 11, 12], [7, 8, 9, 40, 41], [7, 8, 9, 40, 41], [50, 51], [7, 8, 9, 10]]
        return [(p, await engine.generate(p, params, session="rewriting")) for p in prompts]

    for prompt, completion in asyncio.run(play()):
        assert given.gap(family, 0, prompt, completion) < TOLERANCE


def test_greedy_is_argmax_at_temperature_one(given: Any, engine_of: EngineOf, family: str, mode: str) -> None:
    engine = engine_of(family, mode)

    async def play() -> list[Completion]:
        params = SamplingParams(12, temperature=0.0)
        hot = SamplingParams(12, temperature=1.0, seed=4)  # another kind of row in the same batch
        return await asyncio.gather(
            *(engine.generate([5 + i, 6, 7], params) for i in range(3)), engine.generate([3], hot)
        )

    for i, completion in enumerate(asyncio.run(play())[:3]):
        prompt = [5 + i, 6, 7]
        table = given.all_logprobs(family, 0, prompt + completion.ids.tolist())[2:-1]
        assert completion.ids.tolist() == table.argmax(-1).tolist()
        assert given.gap(family, 0, prompt, completion) < TOLERANCE


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_logprobs_are_of_the_sampling_distribution(
    given: Any, engine_of: EngineOf, family: str, mode: str, temperature: float
) -> None:
    episode = given.Episode(engine_of(family, mode), 11, temperature=temperature)
    asyncio.run(episode.play())
    for prompt, completion in episode.played:
        assert given.gap(family, 0, prompt, completion, temperature) < TOLERANCE


def test_a_seed_samples_the_same_alone_and_in_a_crowd(given: Any, engine_of: EngineOf, family: str, mode: str) -> None:
    engine = engine_of(family, mode)
    prompt, params = [9, 8, 7, 6, 5], SamplingParams(20, seed=77)

    async def alone() -> Completion:
        return await engine.generate(prompt, params)

    async def crowd() -> Completion:
        others = [asyncio.create_task(given.Episode(engine, 100 + i).play()) for i in range(8)]
        await asyncio.sleep(0.01)
        mine = await engine.generate(prompt, params)
        await asyncio.gather(*others)
        return mine

    one, two = asyncio.run(alone()), asyncio.run(crowd())
    assert one.ids.tolist() == two.ids.tolist()
    np.testing.assert_allclose(one.logprobs, two.logprobs, atol=TOLERANCE)
    other = asyncio.run(engine.generate(prompt, SamplingParams(20, seed=78)))  # type: ignore[arg-type]
    assert other.ids.tolist() != one.ids.tolist()


def test_weights_change_between_two_tokens(given: Any, engine_of: EngineOf, family: str, mode: str) -> None:
    engine = engine_of(family, mode)
    first = engine.version

    async def update(seed: int) -> None:
        await engine.update_weights(WeightUpdate(engine.version + 1, "full", given.weights(family, seed)))

    async def play() -> tuple[list[Completion], list[Completion]]:
        params = [SamplingParams(45, seed=i) for i in range(given.SLOTS)]
        running = [asyncio.create_task(engine.generate([3 + i] * (i + 1), p)) for i, p in enumerate(params)]
        await asyncio.sleep(0.02)
        await update(1)
        after = [await engine.generate([3 + i] * (i + 1), p) for i, p in enumerate(params[:2])]
        done = await asyncio.gather(*running)
        await update(0)
        return done, after

    done, after = asyncio.run(play())
    assert engine.version == first + 2
    for i, completion in enumerate(done):
        prompt, versions = [3 + i] * (i + 1), completion.versions
        assert (np.diff(versions) >= 0).all()
        assert set(versions.tolist()) <= {first, first + 1}
        # each token by the weights that sampled it, given all tokens before it
        for seed, version in ((0, first), (1, first + 1)):
            table = given.all_logprobs(family, seed, prompt + completion.ids.tolist())[len(prompt) - 1 : -1]
            chosen = table.gather(1, torch.from_numpy(completion.ids.astype(np.int64))[:, None])[:, 0].numpy()
            mine = versions == version
            np.testing.assert_allclose(completion.logprobs[mine], chosen[mine], atol=TOLERANCE)
    assert any(len(set(c.versions.tolist())) == 2 for c in done), "no sequence spanned the update"
    for i, completion in enumerate(after):
        assert set(completion.versions.tolist()) == {first + 1}
        assert given.gap(family, 1, [3 + i] * (i + 1), completion) < TOLERANCE
