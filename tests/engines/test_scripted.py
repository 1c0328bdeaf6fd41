"""The public fake keeps the promises that its users test against."""

from __future__ import annotations

import asyncio

import pytest

from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import EngineFault
from agentgym.protocols import Engine
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightUpdate


class Letters:
    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [ord(c) for c in text]


def ask(engine: Engine, params: SamplingParams | None = None) -> Completion:
    return asyncio.run(engine.generate([1, 2], params or SamplingParams(8)))  # type: ignore[arg-type]


def test_replies_in_order_and_then_a_fault() -> None:
    engine = ScriptedEngine([[5], "ab"], tokenizer=Letters())
    assert ask(engine).ids.tolist() == [5]
    assert ask(engine).ids.tolist() == [97, 98]
    with pytest.raises(EngineFault, match="no reply is left"):
        ask(engine)


def test_a_function_sees_the_context() -> None:
    engine = ScriptedEngine(lambda ids, params: [len(ids), params.max_tokens])
    completion = ask(engine)
    assert completion.ids.tolist() == [2, 8]
    assert completion.logprobs.tolist() == [0, 0]
    assert completion.finish_reason == "stop"
    assert engine.calls[0][0] == [1, 2]


@pytest.mark.parametrize(
    ("params", "ids", "reason"),
    [
        (SamplingParams(2), [7, 8], "length"),
        (SamplingParams(3), [7, 8, 9], "stop"),
        (SamplingParams(9, stop_ids=(8,)), [7, 8], "stop"),
        (SamplingParams(2, stop_ids=(8,)), [7, 8], "stop"),
        (SamplingParams(0), [], "length"),
    ],
)
def test_limits_are_kept(params: SamplingParams, ids: list[int], reason: str) -> None:
    completion = ask(ScriptedEngine([[7, 8, 9]]), params)
    assert (completion.ids.tolist(), completion.finish_reason) == (ids, reason)


def test_versions_follow_updates_and_closing_closes() -> None:
    engine = ScriptedEngine([[1], [1]])
    asyncio.run(engine.update_weights(WeightUpdate(4)))
    assert ask(engine).versions.tolist() == [4]
    asyncio.run(engine.aclose())
    with pytest.raises(EngineFault, match="closed"):
        ask(engine)


def test_a_script_that_raises_is_an_engine_fault() -> None:
    with pytest.raises(EngineFault, match="ZeroDivisionError"):
        ask(ScriptedEngine(lambda ids, params: [1 // 0]))
    with pytest.raises(EngineFault, match="no tokenizer"):
        ask(ScriptedEngine(["text"]))
