"""A critic: a value head on the policy's last hidden states, for credit that needs values of tokens.

The head is small and apart: it learns from what it is given and moves nothing of the policy. What it leaves out: a
critic with a body of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from agentgym.config import CreditConfig
from agentgym.trainers.annotate import Annotator
from agentgym.trainers.batch import Row
from agentgym.trainers.credit.bilevel_gae import bilevel_gae
from agentgym.trainers.learner import Learner
from agentgym.trainers.paths import Path, paths
from agentgym.types import Floats, Group, Trajectory

WIDTH = 128
"""Units of the head's hidden layer."""
SLICE = 4096
"""Tokens of one of the head's optimizer steps."""


@dataclass(slots=True)
class ValueHead(Annotator):
    """Notes on each sampled token of scored trajectories the value [T] of the state before it, and learns from each
    batch what credit then knows: token by token, advantage + value (the lambda-return)."""

    learner: Learner
    options: CreditConfig
    seed: int = 0
    head: torch.nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        hidden = int(self.learner.model.config.get_text_config().hidden_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            last = torch.nn.Linear(WIDTH, 1)
            torch.nn.init.zeros_(last.weight)  # it begins by knowing nothing: 0 everywhere
            torch.nn.init.zeros_(last.bias)
            norm = torch.nn.LayerNorm(hidden, elementwise_affine=False)
            self.head = torch.nn.Sequential(norm, torch.nn.Linear(hidden, WIDTH), torch.nn.Tanh(), last)
        self.head.to(self.learner.device)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=self.options.critic_lr)

    def __call__(self, groups: Sequence[Group]) -> list[Group]:
        found: dict[tuple[int, int, int], Floats] = {}
        for place, states in self._states(groups):
            with torch.no_grad():
                found[place] = self._values(states).cpu().numpy()
        return [
            replace(group, trajectories=tuple(_noted(t, found, g, i) for i, t in enumerate(group.trajectories)))
            for g, group in enumerate(groups)
        ]

    def learn(self, groups: Sequence[Group]) -> dict[str, float]:
        """`critic/loss` (mean square, before the passes), and `critic/explained`, the share of the targets' variance
        that the values had explained."""
        targets = _targets(groups, self.options)
        states, wanted = [], []
        for place, hidden in self._states(groups):
            states.append(hidden)
            wanted.append(targets[place])
        if not states:
            return {}
        x, y = torch.cat(states), torch.from_numpy(np.concatenate(wanted)).to(self.learner.device)
        with torch.no_grad():
            apart = y - self._values(x)
        spread = float(y.var(correction=0))
        figures = {
            "critic/loss": float(apart.square().mean()),
            "critic/explained": 1.0 - float(apart.var(correction=0)) / spread if spread else 0.0,
        }
        order = torch.Generator().manual_seed(self.seed)
        for _ in range(self.options.critic_passes):
            for part in torch.split(torch.randperm(len(y), generator=order).to(y.device), SLICE):
                loss = (self._values(x[part]) - y[part]).square().mean()
                torch.autograd.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        return figures

    def state_dict(self) -> dict[str, Any]:
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            self.head.load_state_dict(state["head"])
            self.optimizer.load_state_dict(state["optimizer"])

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.head(hidden).squeeze(-1)
        return values

    def _states(self, groups: Sequence[Group]) -> Iterator[tuple[tuple[int, int, int], torch.Tensor]]:
        """((group, trajectory, turn), hidden states [T, H] before each of the turn's sampled tokens), in fp32."""
        todo = [
            ((g, i), path)
            for g, group in enumerate(groups)
            for i, trajectory in enumerate(group.trajectories)
            if trajectory.reward is not None
            for path in paths(trajectory)
        ]
        rows = [_row(path) for _, path in todo]
        for ((g, i), path), row, found in zip(todo, rows, self.learner.states(rows), strict=True):
            hidden, place = torch.from_numpy(found).to(self.learner.device), np.cumsum(row.mask > 0) - 1
            for turn, span in path.spans:
                before = np.maximum(np.arange(span.start, span.stop), 1)
                yield (g, i, turn), hidden[torch.from_numpy(place[before]).to(hidden.device)]


def _row(path: Path) -> Row:
    """Asks for the states before the path's sampled tokens; nothing comes before the first token of all, whose state is
    the next one's."""
    ids = path.ids if len(path.ids) > 1 else np.repeat(path.ids, 2)
    mask, none = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32)
    for _, span in path.spans:
        mask[np.maximum(np.arange(span.start, span.stop), 1)] = 1.0
    return Row(ids, mask, none, none, np.zeros(len(ids), np.int32))


def _noted(trajectory: Trajectory, found: Mapping[tuple[int, int, int], Floats], group: int, place: int) -> Trajectory:
    if trajectory.reward is None:
        return trajectory
    turns = [replace(turn, values=found[group, place, k]) for k, turn in enumerate(trajectory.turns)]
    return replace(trajectory, turns=tuple(turns))


def _targets(groups: Sequence[Group], told: CreditConfig) -> dict[tuple[int, int, int], Floats]:
    """Advantage + value of each sampled token, by (group, trajectory, turn)."""
    targets = {}
    for g, group in enumerate(groups):
        credit = bilevel_gae(
            group,
            discount=told.discount,
            turn_lambda=told.turn_lambda,
            token_discount=told.token_discount,
            token_lambda=told.token_lambda,
        )
        for i, (trajectory, advantages) in enumerate(zip(group.trajectories, credit, strict=True)):
            for k, (turn, advantage) in enumerate(zip(trajectory.turns, advantages, strict=True)):
                if trajectory.reward is not None and turn.values is not None:
                    targets[g, i, k] = advantage + turn.values
    return targets
