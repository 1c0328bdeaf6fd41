"""The learner: rows -> new weights. One code path for warm start and RL.

What it leaves out: sharding over ranks, packing and LoRA.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import thread_time
from typing import Any

import numpy as np
import torch

from agentgym.protocols import Loss
from agentgym.trainers.agreement import Agreement
from agentgym.trainers.batch import Row, micro_batches, split_minibatches
from agentgym.trainers.logprobs import token_logprobs
from agentgym.trainers.losses.aggregate import Aggregate, denominator
from agentgym.trainers.losses.choice import Anchor
from agentgym.trainers.losses.kl import Estimator
from agentgym.trainers.micro import Micro, lay_out
from agentgym.trainers.objective import Objective
from agentgym.trainers.optim import make_optimizers, set_lr
from agentgym.trainers.skips import Skips
from agentgym.types import Floats


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """Everything about a learning phase; rates are peaks, `tokens_per_microbatch` counts padded tokens."""

    lr: float = 5e-4
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    minibatches: int = 1
    tokens_per_microbatch: int = 16384
    temperature: float = 1.0
    kl: float = 0.0
    kl_estimator: Estimator = "k2"
    kl_correct: bool = False
    entropy: float = 0.0
    aggregate: Aggregate = "token"
    length: int = 1
    anchor: Anchor = "behaviour"
    agreement: float = 0.0

    def objective(self, loss: Loss) -> Objective:
        """What is minimised with `loss`."""
        return Objective(
            loss,
            self.temperature,
            self.kl,
            self.kl_estimator,
            self.kl_correct,
            self.entropy,
            self.aggregate,
            self.length,
            self.anchor,
        )


@dataclass(slots=True)
class Learner:
    """Owns a model and its optimizers, and the reference that `options.kl` asks for."""

    model: Any
    options: LearnerOptions
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    agreement: Agreement = field(init=False)
    reference: Any = None
    """The model that `options.kl` measures the distance from; it is not trained."""
    skips: Skips = field(default_factory=Skips)
    """Steps left out, as their loss or gradient was not finite."""
    pack_s: float = 0.0
    """CPU-seconds of `train` that went into laying out micro-batches."""

    def __post_init__(self) -> None:
        self.model.to(self.device)
        self.model.train()
        self.restart(self.options)

    def restart(self, options: LearnerOptions) -> None:
        """Begin another phase (warm start -> RL) with fresh optimizers."""
        self.options = options
        self.optimizers = make_optimizers(self.model, options.optimizer, options.lr, options.weight_decay)
        self.agreement = Agreement(options.agreement)

    def hold_here(self) -> None:
        """Set the reference to the model as it is now."""
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)

    def train(self, rows: Sequence[Row], loss: Loss, *, seed: int, lr_scale: float = 1.0) -> dict[str, float]:
        """One pass over `rows`, an optimizer step a minibatch. Returns token means of the loss's metrics."""
        lr_scale *= self.agreement.scale
        set_lr(self.optimizers, lr_scale)
        self.agreement.begin_batch()
        totals: dict[str, float] = {}
        norms: list[float] = []
        objective = self.options.objective(loss)
        parts = split_minibatches([row for row in rows if row.trained], self.options.minibatches, seed)
        counted = 0.0
        for i, part in enumerate(parts):
            total = denominator(objective.aggregate, part)
            tokens = sum(row.trained for row in part)
            blamed: list[Row] = []
            for micro in micro_batches(part, self.options.tokens_per_microbatch):
                value, metrics, bad = objective(self.model, self.reference, self._laid_out(micro), i / len(parts))
                # a loss that is not finite is made to reach the gradient: its norm then tells every rank alike
                torch.autograd.backward(value * (math.nan if bad else 1.0) / total)
                blamed += [micro[row] for row in bad]
                if not bad:
                    metrics["loss"] = float(value.detach()) / total * tokens
                    counted += sum(row.trained for row in micro)
                    _add(totals, metrics)
            if not self.agreement.reached:
                self.agreement.see(self._gradient())
            norms.append(self._update(blamed or part))
        trained = float(sum(row.trained for part in parts for row in part))
        means = {k: v if k.endswith("/max") else v / max(1.0, counted) for k, v in totals.items()}
        finite = [norm for norm in norms if math.isfinite(norm)]
        norm = float(np.mean(finite)) if finite else math.nan if norms else 0.0
        return {**means, "grad_norm": norm, "trained_tokens": max(1.0, trained), "lr_scale": lr_scale}

    @property
    def skipped(self) -> int:
        """Optimizer steps left out so far."""
        return self.skips.total

    def logprobs(self, rows: Sequence[Row], *, reference: bool = False) -> list[Floats]:
        """The current weights' logprob of every token, or the reference's: [T] per row, 0 where the mask is 0."""
        model = self.reference if reference else self.model
        out: dict[int, Floats] = {}
        with torch.no_grad():
            for micro in micro_batches(rows, self.options.tokens_per_microbatch):
                laid = self._laid_out(micro)
                logprobs, _ = token_logprobs(model, laid.ids, laid.mask, self.options.temperature)
                flat = logprobs.float().cpu().numpy()
                at = 0
                for row in micro:
                    full = np.zeros(len(row.ids), np.float32)
                    count = row.trained
                    full[row.mask > 0] = flat[at : at + count]
                    at += count
                    out[id(row)] = full
        return [out[id(row)] for row in rows]

    def _laid_out(self, rows: Sequence[Row]) -> Micro:
        began = thread_time()
        laid = lay_out(rows, self.device)
        self.pack_s += thread_time() - began
        return laid

    def _gradient(self) -> torch.Tensor:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])

    def _update(self, rows: Sequence[Row] = ()) -> float:
        """One optimizer step, or none where the gradient is not finite: then `rows` are to blame. Returns its norm."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.grad_clip))
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self.skips.stepped()
        else:
            self.skips.left_out(rows)
        self.model.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        state = {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "agreement": self.agreement.state(),
            "skipped": self.skips.total,
        }
        return state if self.reference is None else {**state, "reference": self.reference.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.agreement.restore(state["agreement"])
        self.skips.total = int(state["skipped"])
        if "reference" in state:
            self.hold_here()
            self.reference.load_state_dict(state["reference"])


def _add(totals: dict[str, float], metrics: Mapping[str, float]) -> None:
    for key, value in metrics.items():
        totals[key] = max(totals.get(key, 0.0), value) if key.endswith("/max") else totals.get(key, 0.0) + value
