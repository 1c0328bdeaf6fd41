"""How likely the policy that is trained thinks the task's answer, before each turn: a score of states (IGPO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentgym.trainers.annotate import Annotator
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner
from agentgym.trainers.paths import ids_before
from agentgym.types import Group, Ids, Trajectory


@dataclass(slots=True)
class GoldLikelihood(Annotator):
    """Scores a state by exp(mean over the answer's tokens of their logprob at temperature 1), as if the agent said the
    answer at once (IGPO, arXiv 2510.14967). The state after a turn is that before the next; the last one has none, as
    then the reward says how good the answer was. A state with no room left for the answer has none either.

    One row a turn is run through the learner, each with all that came before: for long episodes that is much.
    """

    learner: Learner
    tokenizer: Any
    answers: Mapping[tuple[str, str], str]
    """By env and task id."""
    max_context: int = 0

    def __call__(self, groups: Sequence[Group]) -> list[Group]:
        rows: list[Row] = []
        for group in groups:
            gold = self._gold(group)
            for trajectory in group.trajectories:
                rows += [_row(before, gold) for before in self._asked(trajectory, gold)]
        # what the policy thinks, not what it would say at the temperature of play
        found = iter(self.learner.logprobs(rows, temperature=1.0))
        scored = iter([float(np.exp(logprobs[row.mask > 0].mean())) for row, logprobs in zip(rows, found, strict=True)])
        return [self._noted(group, scored) for group in groups]

    def _gold(self, group: Group) -> list[int]:
        text = self.answers.get((group.env_id, group.task_id), "")
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return ids

    def _asked(self, trajectory: Trajectory, gold: Sequence[int]) -> list[Ids]:
        """The tokens before each turn where the answer is asked for."""
        if trajectory.reward is None or not gold:
            return []
        return [before for before in ids_before(trajectory) if self._fits(before, gold)]

    def _fits(self, before: Ids, gold: Sequence[int]) -> bool:
        return len(before) > 0 and (not self.max_context or len(before) + len(gold) <= self.max_context)

    def _noted(self, group: Group, scored: Any) -> Group:
        gold = self._gold(group)
        noted = []
        for trajectory in group.trajectories:
            if trajectory.reward is None or not gold:
                noted.append(trajectory)
                continue
            scores = [next(scored) if self._fits(before, gold) else None for before in ids_before(trajectory)]
            turns = [
                replace(turn, score=after) for turn, after in zip(trajectory.turns, [*scores[1:], None], strict=True)
            ]
            start = scores[0] if scores else None
            noted.append(replace(trajectory, turns=tuple(turns), start_score=start))
        return replace(group, trajectories=tuple(noted))


def _row(before: Ids, gold: Sequence[int]) -> Row:
    ids = np.concatenate([before, np.array(gold, np.int32)])
    mask = np.zeros(len(ids), np.float32)
    mask[len(before) :] = 1.0
    nothing = np.zeros(len(ids), np.float32)
    return Row(ids, mask, nothing, nothing, np.zeros(len(ids), np.int32))
