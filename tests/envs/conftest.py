"""Plays episodes for the tests of environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agentgym.protocols import Env, Policy, Start, Step
from agentgym.tools.driving import drive
from agentgym.types import Message

Played = tuple[Start, Step, list[Message]]


@pytest.fixture
def play() -> Callable[..., Played]:
    """play(env, policy or style, seed=0, **options) -> (start, last step, the conversation)."""

    def run(env: Env, player: Policy | str, seed: int = 0, **options: Any) -> Played:
        start = drive(env.areset(seed=seed, options=options))
        policy = env.expert(start.task, seed, player) if isinstance(player, str) else player
        assert policy is not None
        messages = list(start.messages)
        for _ in range(200):
            message = policy(messages)
            messages.append(message)
            step = drive(env.astep(message))
            messages += step.messages
            if step.done:
                return start, step, messages
        raise AssertionError("the episode did not end")

    return run


@pytest.fixture
def rows() -> list[Mapping[str, Any]]:
    return [{"question": f"What is {i}+1?", "answer": i + 1, "kind": "sum"} for i in range(40)]
