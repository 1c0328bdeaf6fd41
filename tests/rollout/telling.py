"""An engine that tells of each token the number of the token itself, as if that were its expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agentgym.engines.scripted import ScriptedEngine
from agentgym.trainers.batch import Row, build_rows
from agentgym.trainers.routing import unknown
from agentgym.types import Completion, Group, SamplingParams, Trajectory


class Telling(ScriptedEngine):
    """`told`: how many tokens' experts each answer told."""

    def __init__(self, script: object, **options: int):
        super().__init__(script, **options)  # type: ignore[arg-type]
        self.told: list[int] = []

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        done = await super().generate(ids, params, session=session)
        if params.experts_from is None or not len(done.ids):
            return done
        run = [*ids, *done.ids.tolist()][params.experts_from : -1]
        self.told.append(len(run))
        return replace(done, experts=np.asarray(run, np.uint16).reshape(-1, 1, 1))


def rows_of(done: Trajectory) -> list[Row]:
    """Of an episode; each token that is known is found to have its own expert."""
    played = replace(done, reward=1.0)
    credit = [[[np.ones(len(turn.completion.ids), np.float32) for turn in done.turns]]]
    rows = build_rows([Group("g", "t", "e", (played,))], credit, version=9, max_staleness=9).rows
    for row in rows:
        assert row.experts is not None
        told = row.experts[:, 0, 0]
        known = told != unknown(told.dtype)
        np.testing.assert_array_equal(told[known], row.ids[known])
    return rows


def known(row: Row) -> list[bool]:
    assert row.experts is not None
    mine: list[bool] = (row.experts[:, 0, 0] != unknown(row.experts.dtype)).tolist()
    return mine
