"""What a rollout worker is at right now: asked for where nothing comes out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from time import monotonic
from typing import Any

from agentgym.activity import Activity


@dataclass(frozen=True, slots=True)
class Phase:
    """Episodes that do the same: how many, and for how many seconds the one does that has done it for longest."""

    what: str
    episodes: int
    longest: float
    episode: str
    """Id of that one."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Of one worker. Counts are of episodes, times in seconds."""

    phases: tuple[Phase, ...] = ()
    waiting: int = 0
    """Those that wait for a place."""
    room: int = 0
    """Episodes that may be under way at once."""
    engine: Mapping[str, float] = field(default_factory=dict)
    """Its `slots`, `running`, `waiting`, as far as it has them."""
    held_up: tuple[str, str, float] | None = None
    """(what, of which episode, for how long) keeps all others from going on; None where nothing does."""

    @property
    def under_way(self) -> int:
        return sum(phase.episodes for phase in self.phases)

    def row(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "engine": dict(self.engine)}

    def told(self) -> str:
        """As a sentence."""
        parts = [f"{self.under_way} episodes under way"]
        if self.phases:
            parts[0] += ": " + ", ".join(
                f"{p.episodes} {_place(p.what)} (longest {p.longest:.0f} s)" for p in self.phases
            )
        if self.waiting:
            parts.append(f"{self.waiting} wait for a place ({self.room} may play at once)")
        if self.held_up is not None:
            what, episode, seconds = self.held_up
            parts.append(f"all are held up by {episode}, {_place(what)} for {seconds:.0f} s without letting others run")
        if self.engine:
            parts.append(_engine(self.engine))
        return "; ".join(parts)


def joined(situations: Sequence[Situation]) -> Situation:
    """Of several workers as if they were one; of those that are held up, the one that is for longest."""
    phases: dict[str, Phase] = {}
    engine: dict[str, float] = {}
    for situation in situations:
        for phase in situation.phases:
            known = phases.get(phase.what)
            count = phase.episodes + (known.episodes if known else 0)
            longer = known if known and known.longest > phase.longest else phase
            phases[phase.what] = replace(longer, episodes=count)
        for name, value in situation.engine.items():
            engine[name] = engine.get(name, 0.0) + value
    return Situation(
        tuple(sorted(phases.values(), key=lambda phase: -phase.episodes)),
        sum(situation.waiting for situation in situations),
        sum(situation.room for situation in situations),
        engine,
        max((s.held_up for s in situations if s.held_up is not None), key=lambda held: held[2], default=None),
    )


def _place(what: str) -> str:
    kind, _, name = what.partition(" ")
    if kind == "tool":
        return f"in tool `{name}`"
    words = {"engine": "at the engine", "setup": "in the env's setup", "env": "in the env", "reward": "in the reward"}
    return words.get(what, f"in {what}")


def _engine(engine: Mapping[str, float]) -> str:
    slots, running, waiting = (engine.get(name) for name in ("slots", "running", "waiting"))
    used = f"{running or 0:.0f} used" if slots is not None else f"{running or 0:.0f} requests"
    told = f"the engine has {slots:.0f} slots, {used}" if slots is not None else f"the engine has {used}"
    return told + (f", {waiting:.0f} in its queue" if waiting else "")


def phases_of(activities: Iterable[Activity]) -> tuple[Phase, ...]:
    """Episodes by what they do, the most frequent first."""
    now = monotonic()
    found: dict[str, list[tuple[float, str]]] = {}
    for activity in activities:
        what, since = activity.waiting_on()
        found.setdefault(what, []).append((now - since, activity.episode))
    by_count = sorted(found.items(), key=lambda item: -len(item[1]))
    return tuple(Phase(what, len(each), *max(each)) for what, each in by_count)
