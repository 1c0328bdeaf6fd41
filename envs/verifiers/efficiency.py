"""Pays for saying less, and only those who are right: a part of a reward that compares a group's episodes.

Kimi k1.5 (arXiv 2501.12599, section 2.3.3) pays episode i of a group, of length l_i,

    lambda_i = 0.5 - (l_i - l_min) / (l_max - l_min)   if it is right, and min(0, lambda_i) if it is wrong,

l_min and l_max over the whole group (0 where they are equal). Here, as in ShorterBetter (arXiv 2504.21370), only the
right ones are compared: a short wrong answer neither earns anything nor sets the mark. And the pay is never negative,
so that no weight of it can put a right answer below a wrong one:

    pay_i = 1 - (l_i - l_min) / (l_max - l_min)   if it is right, else 0;   l_min, l_max over the right ones

where all right ones are equally long, each is paid 1, and nothing is learned of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from agentgym.types import Outcome, Task, Trajectory, Turn


def _tokens(turn: Turn) -> int:
    return turn.completion.tokens


def _characters(turn: Turn) -> int:
    message = turn.message
    written = sum(len(call.name) + len(str(dict(call.arguments))) for call in message.tool_calls)
    return len(message.text) + len(message.reasoning or "") + written


def _turns(turn: Turn) -> int:
    return 1


def _calls(turn: Turn) -> int:
    return len(turn.message.tool_calls)


MEASURES: dict[str, Callable[[Turn], int]] = {
    "tokens": _tokens,
    "characters": _characters,
    "turns": _turns,
    "calls": _calls,
}


class Efficiency:
    """A `GroupReward`, 0 to 1: 1 for the shortest right episodes of a group, 0 for the longest and for every wrong one.

    measure: what is counted: sampled `tokens` (reasoning too), `characters`, `turns` or `calls`.
    slack: this much more than the shortest, as a share of it, is as good as the shortest.
    excused: turns that were answered by nothing but these texts are not counted. A busy tool is not the agent's
    doing: were its second call dear, giving up after the first would be learned in groups where nobody has yet.
    """

    def __init__(self, measure: str = "tokens", slack: float = 0.0, excused: Collection[str] = ("busy",)):
        if measure not in MEASURES:
            raise ValueError(f"measure = {measure!r}: must be one of {', '.join(MEASURES)}")
        if not slack >= 0:
            raise ValueError(f"slack = {slack!r}: must be 0 or more")
        self._count = MEASURES[measure]
        self._slack = slack
        self._excused = (excused,) if isinstance(excused, str) else tuple(excused)

    def __call__(self, task: Task, trajectories: Sequence[Trajectory]) -> list[float]:
        lengths = [self.length(t) if t.outcome is Outcome.correct else None for t in trajectories]
        right = [length for length in lengths if length is not None]
        if not right:
            return [0.0] * len(lengths)
        shortest = min(right) * (1 + self._slack)
        span = max(right) - shortest
        return [0.0 if n is None else 1 - max(0.0, n - shortest) / span if span > 0 else 1.0 for n in lengths]

    def length(self, trajectory: Trajectory) -> int:
        """How long an episode was, by its measure, the excused turns left out."""
        return sum(self._count(turn) for turn in trajectory.turns if not self._is_excused(turn))

    def _is_excused(self, turn: Turn) -> bool:
        answers = [message.text for message in turn.observations]
        return bool(answers) and all(text in self._excused for text in answers)
