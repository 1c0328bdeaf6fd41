"""The bounds of an episode, and who is to blame where its time is over."""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import dataclass
from time import monotonic

from agentgym import activity as doing
from agentgym.activity import Activity
from agentgym.errors import EngineFault, EnvFault, EpisodeFault, ProgramFault, ToolFault, VerifierFault, told
from agentgym.overrun import HOLD


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an episode; reaching one truncates it, and what is there is scored. 0 means none.

    Those of time are nested: a call of a tool ends with its turn at the latest, a turn with its episode. Where one
    thing that the model cannot help (an engine, a tool) has taken most of the time that ran out, that is at fault, and
    the episode unscored.
    """

    turns: int = 0
    message_tokens: int = 256
    episode_tokens: int = 0
    seconds: float = 300.0
    turn_seconds: float = 0.0
    tool_seconds: float = 0.0


def held_up_by(activity: Activity, limits: Limits) -> EpisodeFault | None:
    """Who took most of the time that ran out, as the episode's fault; None where it was no single one."""
    what, since = activity.waiting_on()
    now = monotonic()
    tool = what.startswith(f"{doing.TOOL} ")
    allowed = min((limits.tool_seconds if tool else 0) or limits.seconds, limits.turn_seconds or limits.seconds)
    if tool and activity.inline:
        allowed = min(allowed, HOLD)
    if now - since < allowed / 2 or what == doing.PROGRAM:  # a program is the agent: that is its own doing
        return None
    took = f"{now - since:.3g} s"
    if tool:
        return ToolFault(f"{what.partition(' ')[2]} gave no answer for {took}, and then its time was over")
    if what == doing.ENGINE:
        return EngineFault(f"it gave no answer for {took}, and then the time of the turn or episode was over")
    if what == doing.REWARD:
        return VerifierFault(f"the reward gave no verdict for {took}, and then the episode's time was over")
    return EnvFault(f"its step did not end within {took}, and then the time of the turn or episode was over")


def cancelled_by(what: str) -> EpisodeFault:
    """The fault of an episode that was cancelled by what it was doing: its own code has cancelled its task."""
    if what.startswith(f"{doing.TOOL} "):
        blamed: type[EpisodeFault] = ToolFault
    else:
        blamed = {doing.ENGINE: EngineFault, doing.REWARD: VerifierFault, doing.PROGRAM: ProgramFault}.get(
            what, EnvFault
        )
    return blamed(f"{what or 'episode'}: {told(CancelledError())}")
