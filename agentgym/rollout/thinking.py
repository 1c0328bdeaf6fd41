"""A budget for the reasoning of a message: where it is used up, the reasoning is closed and the model goes on to speak.

The closing tokens are given, not sampled: they carry the version `GIVEN` and are never trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agentgym.protocols import Engine, Parser
from agentgym.rollout.renderer import ChatRenderer
from agentgym.types import GIVEN, Completion, Experts, Ids, SamplingParams
from agentgym.weights import WeightUpdate


class ThinkingEngine:
    """An engine whose messages reason for `budget` tokens at most (budget forcing, arXiv:2501.19393, section 3.1).

    Agents that play on it need to know nothing of it. It asks the engine once more where a message reaches the budget.
    """

    def __init__(self, engine: Engine, renderer: ChatRenderer, parser: Parser, budget: int):
        self._engine = engine
        self._renderer = renderer
        self._parser = parser
        self._budget = budget

    @property
    def version(self) -> int:
        return self._engine.version

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        """As the engine's own; `count` is then the number of tokens that were sampled."""
        bounded = replace(params, max_tokens=min(self._budget, params.max_tokens))
        first = await self._engine.generate(ids, bounded, session=session)
        left = params.max_tokens - len(first.ids)
        if first.finish_reason != "length" or len(first.ids) < self._budget or left <= 0:
            return first
        closing = self._closing(first)
        so_far = [*ids, *first.ids.tolist(), *closing.tolist()]
        # the same random numbers would be drawn again
        seed = None if params.seed is None else (params.seed * 48_271 + 1) & 0x7FFFFFFF
        params = replace(params, max_tokens=left, seed=seed)
        if first.experts is not None:
            params = replace(params, experts_from=len(ids) + len(first.ids) - 1)
        rest = await self._engine.generate(so_far, params, session=session)
        return Completion(
            np.concatenate([first.ids, closing, rest.ids]),
            np.concatenate([first.logprobs, np.zeros(len(closing), np.float32), rest.logprobs]),
            np.concatenate([first.versions, np.full(len(closing), GIVEN, np.int32), rest.versions]),
            rest.finish_reason,
            count=len(first.ids) + len(rest.ids) if len(closing) else None,
            experts=_joined(first, rest),
        )

    async def release(self, session: str) -> None:
        await self._engine.release(session)

    async def update_weights(self, update: WeightUpdate) -> None:
        await self._engine.update_weights(update)

    async def aclose(self) -> None:
        await self._engine.aclose()

    def _closing(self, sampled: Completion) -> Ids:
        """The tokens that end the reasoning these are in the middle of; none where they are in none."""
        closing = self._parser.closing(self._renderer.decode(sampled.ids.tolist()))
        return self._renderer.written(closing) if closing else np.zeros(0, np.int32)


def _joined(first: Completion, rest: Completion) -> Experts | None:
    """The second answer goes on where the first one's experts end; without it, theirs do not reach up to the end."""
    if first.experts is None or rest.experts is None:
        return None
    return np.concatenate([first.experts, rest.experts])
