"""The rule that cheap players are held to: no more than the env's floor, and never a correct outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agentgym.envs.script import replay, say
from agentgym.envs.validate.bench import Bench, Case
from agentgym.envs.validate.finding import Finding
from agentgym.errors import EpisodeFault, SandboxUnavailable
from agentgym.protocols import Policy
from agentgym.types import Message

TOLD = 3
"""Cases that a finding tells of."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A cheap way to play. `lucky`: it may be right by chance, and counts where it wins most cases of a kind."""

    name: str
    policy: Policy
    lucky: bool = False


@dataclass(frozen=True, slots=True)
class _Try:
    attack: Attack
    case: Case
    wrong: str
    """What is wrong with how it went; empty: nothing."""

    @property
    def group(self) -> tuple[str, str]:
        return self.attack.name, self.case.task.kind


def says(name: str, *messages: str | Message, lucky: bool = False) -> Attack:
    """The attack that says these messages, one a turn; texts are answers."""
    script = [say(message) if isinstance(message, str) else message for message in messages]
    return Attack(name, replay(script), lucky)


def hold(bench: Bench, check: str, attacks: Callable[[Case], Iterable[Attack]], nothing: str = "") -> Finding:
    """Play every attack on the few cases: all must stay at the floor. "na" where there is none, for `nothing`."""
    floor, exempt = float(getattr(bench.env, "floor", 0.0)), exemptions(bench.env, check)
    figures: dict[str, Any] = {"episodes": 0, "most": None, "floor": floor}
    tries: list[_Try] = []
    for case in bench.few:
        if "" in exempt or case.task.kind in exempt:
            continue
        for attack in attacks(case):
            wrong, reward = _play(bench, attack, case, floor)
            tries.append(_Try(attack, case, wrong))
            if reward is not None:
                figures["most"] = reward if figures["most"] is None else max(figures["most"], reward)
    figures["episodes"] = len(tries)
    if exempt:
        figures["exempt"] = {kind or "all": reason for kind, reason in exempt.items()}
    if wrong_ones := [t for t in tries if t.wrong and not _by_chance(t, tries)]:
        figures["wrong"] = len(wrong_ones)
        more = f" (and {len(wrong_ones) - TOLD} more)" if len(wrong_ones) > TOLD else ""
        told = [f"{t.attack.name} on {t.case}: {t.wrong}" for t in wrong_ones[:TOLD]]
        return Finding(False, "; ".join(told) + more, figures)
    if not tries:
        reasons = "; ".join(dict.fromkeys(exempt.values()))
        return Finding("na", f"exempt: {reasons}" if reasons else nothing or "there is nothing to try here", figures)
    return Finding(True, "", figures)


def exemptions(env: Any, check: str) -> dict[str, str]:
    """The env's exemptions from a check: {kind, or "" for every kind: reason}."""
    given: dict[str, str] = dict(getattr(env, "exempt", None) or {})
    parts = {name: name.partition(":") for name in given}
    return {kind: given[name] for name, (of, _, kind) in parts.items() if of == check}


def _play(bench: Bench, attack: Attack, case: Case, floor: float) -> tuple[str, float | None]:
    try:
        played = bench.play(attack.policy, case)
    except SandboxUnavailable:
        raise
    except EpisodeFault as e:  # whatever a model says must be scored: a fault would drop it from training
        return f"a fault, {e.kind}: {e}", None
    if played.won or played.reward > floor + 1e-9:
        return f"reward {played.reward:g}, {'correct' if played.won else 'above the floor'}", played.reward
    return "", played.reward


def _by_chance(found: _Try, tries: Iterable[_Try]) -> bool:
    if not found.attack.lucky:
        return False
    alike = [t for t in tries if t.group == found.group]
    if len(alike) < 2:  # one of its kind says nothing: the same attack on the other kinds
        alike = [t for t in tries if t.attack.name == found.attack.name]
    return 2 * sum(bool(t.wrong) for t in alike) <= len(alike)
