"""Pay over a whole group: after its last episode has ended, an env may compare them all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentgym.errors import EpisodeFault, VerifierFault, boundary
from agentgym.protocols import GroupPay, GroupScorer
from agentgym.types import Outcome, StopReason, Trajectory


async def score_group(
    env: Any, trajectories: Sequence[Trajectory], options: Mapping[str, Any], seconds: float
) -> tuple[Trajectory, ...]:
    """The trajectories, the scored ones with the env's pay for them; as they are where the env is no `GroupScorer`.

    The pay is added to the last turn's reward, so that a trajectory's reward stays the sum of its turns'. A fault, or
    no verdict within `seconds`, leaves them all unscored: a part of their reward is not known.
    """
    given = tuple(trajectories)
    if not isinstance(env, GroupScorer):
        return given
    scored = [t for t in given if t.reward is not None]
    try:
        with boundary(VerifierFault, "score_group"):
            async with asyncio.timeout(seconds):
                pays = await env.score_group(scored, options)
            if len(pays) != len(scored):
                raise VerifierFault(f"score_group: {len(pays)} pays for {len(scored)} episodes")
    except EpisodeFault as fault:
        return tuple(t if t.reward is None else _unscored(t, f"{fault.kind}: {fault}") for t in given)
    paid = iter([_paid(t, pay) for t, pay in zip(scored, pays, strict=True)])
    return tuple(t if t.reward is None else next(paid) for t in given)


def _paid(t: Trajectory, pay: GroupPay) -> Trajectory:
    turns, components = t.turns, {**t.components, **pay.components}
    if not turns or not pay.reward:
        return replace(t, components=components)
    turns = (*turns[:-1], replace(turns[-1], reward=turns[-1].reward + pay.reward))
    return replace(t, turns=turns, reward=float(sum(turn.reward for turn in turns)), components=components)


def _unscored(t: Trajectory, error: str) -> Trajectory:
    return replace(t, reward=None, outcome=Outcome.unscored, stop_reason=StopReason.fault, error=error)
