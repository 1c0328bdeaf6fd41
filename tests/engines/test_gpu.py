"""The contract on a CUDA device: logprobs of the sampled tokens against the plain forward on the CPU."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from agentgym.engines.local import LocalEngine
from agentgym.weights import WeightUpdate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"),
]


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama", "mistral", "gemma2", "qwen3_moe", "gpt_oss"])
def test_logprobs_on_a_gpu(given: Any, name: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    engine = LocalEngine(given.build_model(name), slots=given.SLOTS, max_context=given.CONTEXT, device="cuda")

    async def play(first: int) -> list[Any]:
        return await asyncio.gather(*(given.Episode(engine, first + i).play() for i in range(14)))

    for seed in (0, 1):
        if seed:
            asyncio.run(engine.update_weights(WeightUpdate(1, "full", given.weights(name, 1))))
        for episode in asyncio.run(play(20 * seed)):
            for prompt, completion in episode.played:
                assert given.gap(name, seed, prompt, completion) < 1e-4
