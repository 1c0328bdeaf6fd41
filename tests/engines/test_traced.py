"""A recorded step is used where it is proven, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from agentgym.engines.local import LocalEngine
from agentgym.weights import WeightUpdate


def play(given: Any, model: Any, family: str, episodes: int = 24) -> tuple[LocalEngine, list[Any]]:
    engine = LocalEngine(model, slots=given.SLOTS, max_context=given.CONTEXT)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(given.Episode(engine, seed).play() for seed in range(episodes)))

    played = asyncio.run(all_of_them())
    return engine, [turn for episode in played for turn in episode.played]


@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_steps_are_replayed_and_exact(given: Any, name: str) -> None:
    engine, turns = play(given, given.build_model(name), name)
    recordings = engine._runner.recordings
    assert recordings.refused is None
    assert {("all",), ("all", "join")} <= recordings.kinds
    assert max(given.gap(name, 0, prompt, c) for prompt, c in turns) < 1e-5


def test_new_weights_reach_a_recording(given: Any) -> None:
    engine, _ = play(given, given.build_model("gemma2"), "gemma2")
    kinds = engine._runner.recordings.kinds
    asyncio.run(engine.update_weights(WeightUpdate(1, "full", given.weights("gemma2", 1))))
    episode = asyncio.run(given.Episode(engine, 5).play())
    assert max(given.gap("gemma2", 1, prompt, c) for prompt, c in episode.played) < 1e-5
    assert engine._runner.recordings.kinds >= kinds


def test_a_forward_that_depends_on_its_data_is_not_recorded(given: Any) -> None:
    model = given.build_model("qwen3")
    mlp = model.model.layers[0].mlp
    forward = mlp.forward
    mlp.forward = lambda x: forward(x) if x.sum() > 0 else forward(x) * 1.0
    engine, turns = play(given, model, "qwen3")
    assert "Python boolean" in str(engine._runner.recordings.refused)
    assert max(given.gap("qwen3", 0, prompt, c) for prompt, c in turns) < 1e-5


def test_a_recording_that_does_something_else_is_refused(given: Any) -> None:
    model = given.build_model("qwen3")
    mlp, calls = model.model.layers[0].mlp, []
    forward = mlp.forward

    def changing(x: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return forward(x) * (1.0 + 0.01 * (len(calls) % 7))  # the recording keeps one of these factors

    mlp.forward = changing
    engine, _ = play(given, model, "qwen3")
    assert "differ from the forward" in str(engine._runner.recordings.refused)
    assert engine._runner.recordings.kinds == set()


def test_a_recording_that_fails_later_falls_back(given: Any) -> None:
    engine, _ = play(given, given.build_model("qwen3"), "qwen3")
    recordings = engine._runner.recordings

    def broken(*_: Any) -> torch.Tensor:
        raise RuntimeError("cannot replay")

    recordings._steps = dict.fromkeys(recordings._steps, broken)
    episode = asyncio.run(given.Episode(engine, 5).play())
    assert "cannot replay" in str(recordings.refused)
    assert max(given.gap("qwen3", 0, prompt, c) for prompt, c in episode.played) < 1e-5
