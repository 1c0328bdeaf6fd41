"""What is done to a step's rows between credit and learner, with the weights that the step begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from agentgym.config import Config
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner
from agentgym.trainers.losses import choose
from agentgym.trainers.losses.choice import Anchor
from agentgym.trainers.losses.kl import Estimator, kl_estimate
from agentgym.types import Floats


@dataclass(frozen=True, slots=True)
class Preparation:
    """Over whole batches, before they are cut: so what it does depends on no micro-batch.

    `kl` is the weight of the penalty on tokens (0 where the distance is in the loss), `second_moment` the threshold of
    M2PO's selection (0: none).
    """

    anchor: Anchor = "behaviour"
    second_moment: float = 0.0
    kl: float = 0.0
    kl_estimator: Estimator = "k1"
    kl_discount: float = 1.0

    def __call__(
        self, rows: Sequence[Row], learner: Learner, *, skip_idle: bool = False
    ) -> tuple[list[Row], dict[str, float]]:
        """The rows as they are to be trained, and metrics that are means over their trained tokens. `skip_idle` as in
        `Learner.train`."""
        prepared, metrics = list(rows), dict[str, float]()
        tokens = sum(row.trained for row in prepared)
        if not tokens:
            return prepared, metrics
        if self.kl:
            held = learner.logprobs(prepared, reference=True)
            pairs = [self._penalised(row, logprobs) for row, logprobs in zip(prepared, held, strict=True)]
            prepared = [row for row, _ in pairs]
            metrics["kl_ref"] = sum(distance for _, distance in pairs) / tokens
        if self.second_moment or (self.anchor == "recompute" and learner.options.minibatches > 1):
            idle = [skip_idle and not self.second_moment and row.idle for row in prepared]
            found = iter(learner.logprobs([row for row, left in zip(prepared, idle, strict=True) if not left]))
            prepared = [r if left else replace(r, proximal=next(found)) for r, left in zip(prepared, idle, strict=True)]
        if self.second_moment:
            prepared, dropped = second_moment(prepared, self.second_moment)
            metrics["m2_dropped"] = dropped / tokens
        return prepared, metrics

    def _penalised(self, row: Row, held: Floats) -> tuple[Row, float]:
        """The KL as a cost of each token: A_t - kl * sum over s >= t of k(log pi_old(s) - log pi_ref(s)).

        It is the return of rewards -kl * k at each token (InstructGPT, arXiv 2203.02155; REINFORCE++, arXiv
        2501.03262), through the tools' answers, and with k1 and discount 1 its gradient is that of the whole row's
        divergence. It has no baseline and is not scaled by a group's standard deviation. Also returns the sum of k.
        """
        mine = row.mask > 0
        old, reference = torch.from_numpy(row.logprobs[mine]), torch.from_numpy(held[mine])
        distance: Floats = kl_estimate(old, reference, self.kl_estimator).numpy()
        advantages = row.advantages.copy()
        advantages[mine] -= self.kl * penalty_to_go(distance, self.kl_discount)
        return replace(row, advantages=advantages), float(distance.sum())


def make_preparation(config: Config) -> Preparation:
    """What the config's loss and KL ask for."""
    chosen = choose(config)
    kl = config.learner.kl if config.loss.kl_in == "reward" else 0.0
    return Preparation(chosen.anchor, chosen.second_moment, kl, chosen.kl_estimator, config.loss.kl_discount)


def penalty_to_go(penalties: Floats, discount: float) -> Floats:
    """sum over s >= t of discount^(s - t) * penalties[s], for penalties [N] of one row's trained tokens in order."""
    out = np.zeros(len(penalties), np.float64)
    ahead = 0.0
    for t in range(len(penalties) - 1, -1, -1):
        ahead = out[t] = penalties[t] + discount * ahead
    return out.astype(np.float32)


def second_moment(rows: Sequence[Row], threshold: float) -> tuple[list[Row], int]:
    """M2PO's selection (arXiv 2510.01161): the fewest tokens are dropped that bring the batch's mean of
    (log pi_prox - log pi_old)^2 to `threshold`, the largest first. They get no advantage, and stay in the denominator.

    Rows need `proximal`; it stays out of what is returned. Also returns the number of dropped tokens.
    """
    gaps = [np.where(r.mask > 0, r.proximal - r.logprobs, 0.0).astype(np.float64) ** 2 for r in rows]  # type: ignore[operator]
    squares = np.sort(np.concatenate([gap[row.mask > 0] for gap, row in zip(gaps, rows, strict=True)]))
    within = np.cumsum(squares) <= threshold * np.arange(1, len(squares) + 1)
    kept = int(np.flatnonzero(within)[-1]) + 1 if within.any() else 0
    largest = squares[kept - 1] if kept else -1.0
    made = [
        replace(row, advantages=np.where(gap > largest, 0.0, row.advantages).astype(np.float32), proximal=None)
        for gap, row in zip(gaps, rows, strict=True)
    ]
    return made, len(squares) - kept
