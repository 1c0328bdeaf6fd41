"""When too many episodes fail for a run to go on: a budget over the last ones, and what is told where it is spent."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from agentgym.errors import RunError
from agentgym.types import Outcome, Trajectory


class FailureBudget:
    """At most a share of the last `window` episodes may be unscored."""

    def __init__(self, share: float, window: int):
        self._share = share
        self._last: deque[tuple[str, str]] = deque(maxlen=window)
        """(cause, episode) of each; no cause for one that was scored."""

    def spend(self, trajectories: Iterable[Trajectory], step: int) -> None:
        """Count a step's episodes; raises `RunError` naming the cause seen most often, with an example."""
        self._last += [(_cause(t), t.id) for t in trajectories]
        failed = [(cause, episode) for cause, episode in self._last if cause]
        if len(failed) <= self._share * len(self._last):
            return
        top, count = Counter(cause for cause, _ in failed).most_common(1)[0]
        example = next(episode for cause, episode in reversed(failed) if cause == top)
        raise RunError(
            f"step {step}: {len(failed)} of the last {len(self._last)} episodes are unscored; "
            f"most often ({count}): {top} (episode {example}; rollout.failure_budget = {self._share:g})"
        )


def _cause(trajectory: Trajectory) -> str:
    return (trajectory.error or "unknown") if trajectory.outcome is Outcome.unscored else ""
