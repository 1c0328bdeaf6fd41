"""Requests that begin alike share what one of them ran."""

from __future__ import annotations

import asyncio
from typing import Any

from agentgym.engines.local import LocalEngine
from agentgym.types import Completion, SamplingParams


def test_a_group_runs_its_prompt_once(given: Any) -> None:
    engine = LocalEngine(given.build_model("mistral"), slots=16, max_context=64)
    prompts = [list(range(3 + i, 40 + i)) for i in range(2)]

    async def play() -> list[Completion]:
        params = [SamplingParams(6, seed=i) for i in range(16)]
        return await asyncio.gather(*(engine.generate(prompts[i // 8], p) for i, p in enumerate(params)))

    done = asyncio.run(play())
    assert max(given.gap("mistral", 0, prompts[i // 8], c) for i, c in enumerate(done)) < 1e-5
    length = len(prompts[0])
    assert engine.stats["cached_tokens"] == 14 * (length - 1)
    assert engine.stats["prefill_tokens"] == 2 * length
    assert len({tuple(c.ids.tolist()) for c in done}) > 8  # each with its own seed


def test_a_common_beginning_is_copied_up_to_where_they_differ(given: Any) -> None:
    engine = LocalEngine(given.build_model("gemma2"), slots=4, max_context=64)
    system = list(range(3, 33))

    async def play() -> list[tuple[list[int], Completion]]:
        prompts = [[*system, 50, 51], [*system, 60], [*system[:20], 70, 71], system[:8]]
        return [(p, await engine.generate(p, SamplingParams(9, seed=1), session=str(p))) for p in prompts]

    for prompt, completion in asyncio.run(play()):
        assert given.gap("gemma2", 0, prompt, completion) < 1e-5
    assert engine.stats["cached_tokens"] == 30 + 20


def test_a_dozen_alike_wait_no_longer_than_a_step(given: Any) -> None:
    engine = LocalEngine(given.build_model("qwen3"), slots=2, max_context=64)

    async def play() -> list[Completion]:
        params = [SamplingParams(3, seed=i) for i in range(12)]
        return await asyncio.wait_for(asyncio.gather(*(engine.generate([5] * 30, p) for p in params)), 20)

    assert all(given.gap("qwen3", 0, [5] * 30, c) < 1e-5 for c in asyncio.run(play()))
