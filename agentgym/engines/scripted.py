"""The public fake: an engine that answers from a script, for tests of whatever talks to engines.

    engine = ScriptedEngine(["<tool_call>...", "42"], tokenizer=tokenizer)     # one reply after the other
    engine = ScriptedEngine(lambda ids, params: [7, 8, 9])                     # a function of the context

It keeps the contract's promises (max_tokens, stop ids, versions per token, faults after `aclose`); its logprobs are 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from agentgym.errors import EngineFault
from agentgym.types import Completion, FinishReason, SamplingParams
from agentgym.weights import WeightUpdate

Reply: TypeAlias = "str | Sequence[int]"
Script: TypeAlias = "Callable[[list[int], SamplingParams], Reply] | Iterable[Reply]"


class ScriptedEngine:
    """Implements `protocols.Engine` from a script.

    script: a function (ids, params) -> reply, or replies to hand out in order of the calls (`EngineFault` after the
    last). A reply is token ids, or text if a `tokenizer` (with `encode(text, add_special_tokens=False)`) is given.
    delay: seconds before each answer. `calls` holds what was asked, `released` the sessions that were let go.
    """

    def __init__(self, script: Script, *, tokenizer: Any = None, delay: float = 0.0, version: int = 0):
        self._answer = script if callable(script) else _in_order(iter(script))
        self._tokenizer, self._delay = tokenizer, delay
        self._version, self._closed = version, False
        self.calls: list[tuple[list[int], SamplingParams, str | None]] = []
        self.updates: list[WeightUpdate] = []
        self.released: list[str] = []

    @property
    def version(self) -> int:
        return self._version

    @property
    def stats(self) -> dict[str, float]:
        return {"calls": len(self.calls)}

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        if self._closed:
            raise EngineFault("the engine is closed")
        context = [int(i) for i in ids]
        self.calls.append((context, params, session))
        if self._delay:
            await asyncio.sleep(self._delay)
        try:
            reply = self._tokens(self._answer(context, params))
        except EngineFault:
            raise
        except Exception as e:
            raise EngineFault(f"script: {type(e).__name__}: {e}") from e
        sampled, reason = _cut(reply, params)
        ids_out = np.asarray(sampled, np.int32)
        versions = np.full(len(sampled), self._version, np.int32)
        return Completion(ids_out, np.zeros(len(sampled), np.float32), versions, reason)

    async def release(self, session: str) -> None:
        self.released.append(session)

    async def update_weights(self, update: WeightUpdate) -> None:
        self.updates.append(update)
        self._version = update.version

    async def aclose(self) -> None:
        self._closed = True

    def _tokens(self, reply: Reply) -> list[int]:
        if not isinstance(reply, str):
            return [int(i) for i in reply]
        if self._tokenizer is None:
            raise EngineFault("script: a reply is text, but the engine was given no tokenizer")
        return list(self._tokenizer.encode(reply, add_special_tokens=False))


def _in_order(replies: Iterator[Reply]) -> Callable[[list[int], SamplingParams], Reply]:
    def answer(ids: list[int], params: SamplingParams) -> Reply:
        try:
            return next(replies)
        except StopIteration:
            raise EngineFault("script: no reply is left") from None

    return answer


def _cut(reply: list[int], params: SamplingParams) -> tuple[list[int], FinishReason]:
    """What a sampler would have returned: up to the first stop id, at most max_tokens. A whole reply is a stop."""
    for i, token in enumerate(reply[: params.max_tokens]):
        if token in params.stop_ids:
            return reply[: i + 1], "stop"
    return reply[: max(params.max_tokens, 0)], "length" if len(reply) > params.max_tokens else "stop"
