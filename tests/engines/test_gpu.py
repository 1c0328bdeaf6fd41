"""The contract on a CUDA device: logprobs of the sampled tokens against the plain forward on the CPU.

On a pretended one, too: what stays behind on the CPU is seen without a GPU.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from agentgym.engines.local import LocalEngine
from agentgym.weights import WeightUpdate
from tests.pretended_gpu import pretended_gpu


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama", "mistral", "gemma2", "qwen3_moe", "gpt_oss"])
def test_logprobs_on_a_gpu(given: Any, name: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    play(given, name, routing=False)


@pytest.mark.parametrize(("name", "routing"), [("qwen3", False), ("gemma2", False), ("qwen3_moe", True)])
def test_logprobs_on_a_pretended_gpu(given: Any, name: str, routing: bool) -> None:
    with pretended_gpu():
        engine = play(given, name, routing=routing)
        assert {tensor.device.type for tensor in engine._runner.cache.keys} == {"cuda"}
        assert engine._runner.recordings.refused is None


def play(given: Any, name: str, *, routing: bool) -> LocalEngine:
    engine = LocalEngine(
        given.build_model(name), slots=given.SLOTS, max_context=given.CONTEXT, device="cuda", routing=routing
    )

    async def episodes(first: int) -> list[Any]:
        return await asyncio.gather(*(given.Episode(engine, first + i).play() for i in range(14)))

    for seed in (0, 1):
        if seed:
            asyncio.run(engine.update_weights(WeightUpdate(1, "full", given.weights(name, 1))))
        for episode in asyncio.run(episodes(20 * seed)):
            for prompt, completion in episode.played:
                assert given.gap(name, seed, prompt, completion) < 1e-4
    return engine
