"""The learner: rows -> new weights. One code path for warm start and RL, for one rank and for many.

`Learner` is the whole of it on one rank, and each rank's part on several (`ranks.learner.RankedLearner` is then what
the run talks to). What every rank does at once goes through `_together`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import torch

from agentgym.errors import RunError
from agentgym.protocols import Loss
from agentgym.trainers.agreement import Agreement
from agentgym.trainers.batch import Row, split_minibatches
from agentgym.trainers.long_rows import within
from agentgym.trainers.lora import ADAPTER, adapters, merged, save_adapters
from agentgym.trainers.losses.aggregate import denominator
from agentgym.trainers.micro import Micro, by_own_routers, lay_out
from agentgym.trainers.objective import Aim, Objective
from agentgym.trainers.optim import make_optimizers, set_lr
from agentgym.trainers.packing import Cost, cost_of, passes
from agentgym.trainers.policy import Build, Policy, prepare, skeleton
from agentgym.trainers.ranks.team import Team
from agentgym.trainers.segments import NAME as SEGMENTS
from agentgym.trainers.skips import Skips
from agentgym.types import Floats


@dataclass(frozen=True, slots=True)
class LearnerOptions(Aim):
    """Everything about a learning phase; rates are peaks, `tokens_per_microbatch` counts padding too."""

    lr: float = 5e-4
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    minibatches: int = 1
    tokens_per_microbatch: int = 16384
    agreement: float = 0.0
    long_rows: str = "alone"
    """What becomes of a row above `tokens_per_microbatch`: alone, drop or refuse."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank does of one optimizer step: its passes. All ranks together train `tokens`, and their sum of losses
    is divided by `denominator`; `done` is the share of the batch's steps before this one."""

    passes: list[list[Row]]
    denominator: float
    tokens: int
    done: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What a rank has to tell of a batch: sums of metrics over the `counted` tokens whose loss was finite; for each
    step the norm of the whole gradient, and the rows whose loss was not finite."""

    metrics: dict[str, float]
    counted: int
    norms: list[float]
    blamed: list[list[Row]]


@dataclass(slots=True)
class Learner:
    """Owns a model and its optimizers, and the reference that `options.kl` asks for."""

    model: Any
    options: LearnerOptions
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    build: Build = field(default_factory=Build)
    team: Team = field(default_factory=Team)
    policy: Any = field(init=False)
    """The model as it is run."""
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    agreement: Agreement = field(init=False)
    reference: Any = None
    """The policy that `options.kl` measures the distance from; it is not trained."""
    cost: Cost = field(init=False)
    skips: Skips = field(default_factory=Skips)
    """Steps left out, as their loss or gradient was not finite."""
    note: Callable[[str], None] = lambda text: None
    pack_s: float = 0.0
    """CPU-seconds of `train` that went into laying out micro-batches."""

    def __post_init__(self) -> None:
        self.cost = cost_of(self.model.config)
        self._place()
        self.policy.train()
        self._restart(self.options)  # each rank does when it is made

    # ---- what a run asks for ----

    def restart(self, options: LearnerOptions) -> None:
        """Begin another phase (warm start -> RL) with fresh optimizers."""
        self._together("_restart", options)

    def hold_here(self) -> None:
        """Set the reference to the model as it is now."""
        self._together("_hold")

    def train(
        self, rows: Sequence[Row], loss: Loss, *, seed: int, lr_scale: float = 1.0, skip_idle: bool = False
    ) -> dict[str, float]:
        """One pass over `rows`, an optimizer step a minibatch. Returns token means of the loss's metrics.

        `skip_idle`: rows without any advantage are counted, and not run: right where they have no gradient.
        """
        lr_scale *= self.agreement.scale
        began = thread_time()
        kept, above = within(rows, self.options.tokens_per_microbatch, self.options.long_rows, self.note)
        parts = split_minibatches([row for row in kept if row.trained], self.options.minibatches, seed)
        shares: list[list[Share]] = [[] for _ in range(self.team.groups)]
        trained = 0
        for i, part in enumerate(parts):
            run = [row for row in part if not (skip_idle and row.idle)]
            total, tokens = denominator(self.options.aggregate, part), sum(row.trained for row in run)
            trained += tokens
            for rank, mine in enumerate(self._passes(run)):
                shares[rank].append(Share(mine, total, tokens, i / len(parts)))
        self.pack_s += thread_time() - began
        answers: list[Learned] = self._deal("_learn", loss, lr_scale, shares=shares)
        norms = answers[0].norms
        if any(str(answer.norms) != str(norms) for answer in answers):  # as text: NaN is like NaN
            raise RunError(f"the ranks of the learner disagree on the gradient's norm: {[a.norms for a in answers]}")
        answers = answers[:: self.team.tp]  # the others of each group have done the same
        for i, (part, norm) in enumerate(zip(parts, norms, strict=True)):
            if math.isfinite(norm):
                self.skips.stepped()
            else:
                self.skips.left_out([row for answer in answers for row in answer.blamed[i]] or part)
        totals: dict[str, float] = {}
        for answer in answers:
            _add(totals, answer.metrics)
        counted = max(1, sum(answer.counted for answer in answers))
        means = {k: v if k.endswith("/max") else v / counted for k, v in totals.items()}
        finite = [norm for norm in norms if math.isfinite(norm)]
        norm = float(np.mean(finite)) if finite else math.nan if norms else 0.0
        found = {**means, "grad_norm": norm, "trained_tokens": max(1.0, float(trained)), "lr_scale": lr_scale}
        return {**found, "rows_above_budget": float(above)} if above else found

    @property
    def skipped(self) -> int:
        """Optimizer steps left out so far."""
        return self.skips.total

    def logprobs(
        self, rows: Sequence[Row], *, reference: bool = False, temperature: float | None = None
    ) -> list[Floats]:
        """The current weights' logprob of every token, or the reference's: [T] per row, 0 where the mask is 0.
        `temperature`: none is that of play."""
        return self._scored(rows, temperature or self.options.temperature, reference, False)

    def states(self, rows: Sequence[Row]) -> list[Floats]:
        """The current weights' last hidden states that predict each row's trained tokens, [n, H]."""
        return self._scored(rows, 1.0, False, True)

    def _scored(self, rows: Sequence[Row], temperature: float, reference: bool, states: bool) -> list[Floats]:
        if not rows:
            return []
        shares = self._passes(rows)
        answers = self._deal("_score", temperature, reference, states, shares=shares)[:: self.team.tp]
        out: dict[int, Floats] = {}
        for share, found in zip(shares, answers, strict=True):
            out.update(zip([id(row) for micro in share for row in micro], found, strict=True))
        return [out[id(row)] for row in rows]

    def follow(self, ids: Sequence[int]) -> tuple[float, ...]:
        """log p(ids[t] | ids[:t]) for t = 1, 2, ..., at temperature 1."""
        given = np.asarray(ids, np.int32)
        mask = np.ones(len(given), np.float32)
        mask[0] = 0.0
        none = np.zeros(len(given), np.float32)
        row = Row(given, mask, none, none, np.zeros(len(given), np.int32))
        (found,) = self._scored([row], 1.0, False, False)
        return tuple(found[1:].tolist())

    def bare(self) -> Any:
        """Another model like it, of this process alone, to load `weights` of any version into."""
        return type(self.model)(copy.deepcopy(self.model.config)).to(self.device)

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights, whole, by the names of the model that engines load."""
        return self._named_like_the_engines(dict(self.model.named_parameters()))

    def _named_like_the_engines(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return merged(tensors, self.build.lora) if self.build.lora.rank else tensors

    def save_pretrained(self, folder: Path) -> None:
        """A Hugging Face folder of the weights."""
        if not self.build.lora.rank:
            self.model.save_pretrained(folder)
            return
        kind, config = type(self.model), self.model.config
        skeleton(kind, config).save_pretrained(folder, state_dict=self.weights())
        save_adapters(adapters(self.model.named_parameters()), self.build.lora, folder / ADAPTER)

    def save_state(self, folder: Path) -> None:
        """All else that is needed to go on, into a folder that is there."""
        self._together("_save_state", folder)

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote, on any number of ranks."""
        self._together("_load_state", folder)

    def offload(self) -> None:
        """Leave the device, between steps: all is kept in the machine's memory."""
        self._together("_move", torch.device("cpu"))

    def onload(self) -> None:
        """Come back to it."""
        self._together("_move", None)

    @property
    def others_cpu_s(self) -> float:
        """CPU-seconds of the ranks that are other processes."""
        return 0.0

    def close(self) -> None:
        """Nothing is held."""

    # ---- what every rank does ----

    def _together(self, name: str, *args: Any, each: Sequence[Any] | None = None) -> list[Any]:
        """Have every rank call its method `name`, with `args` after its own of `each`: the answers by rank."""
        work: Callable[..., Any] = getattr(self, name)
        return [work(*args) if each is None else work(each[0], *args)]

    def _deal(self, name: str, *args: Any, shares: Sequence[Any]) -> list[Any]:
        """The same, of a share to each group of ranks that compute the same rows."""
        return self._together(name, *args, each=[share for share in shares for _ in range(self.team.tp)])

    def _place(self) -> None:
        """Set up the model on its device."""
        self.model.to(self.device)
        self.build = prepare(self.model, self.build)
        self.policy = Policy(self.model)

    def _restart(self, options: LearnerOptions) -> None:
        self.options = options
        self.optimizers = make_optimizers(self.model, options.optimizer, options.lr, options.weight_decay)
        self.agreement = Agreement(options.agreement)

    def _hold(self) -> None:
        self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)

    def _move(self, device: torch.device | None) -> None:
        """None: to its own."""
        from agentgym.trainers.offload import move

        move(self, device or self.device)

    def _save_state(self, folder: Path) -> None:
        from agentgym.trainers.learner_state import save_state

        save_state(self, folder)

    def _load_state(self, folder: Path) -> None:
        from agentgym.trainers.learner_state import load_state

        load_state(self, folder)

    def _learn(self, shares: Sequence[Share], loss: Loss, lr_scale: float) -> Learned:
        """This rank's passes, and every rank's step after each share."""
        set_lr(self.optimizers, lr_scale)
        self.agreement.begin_batch()
        learned = Learned({}, 0, [], [])
        objective = Objective(loss, self.options)
        for share in shares:
            learned.blamed.append([])
            for rows in share.passes:
                learned = self._pass(rows, share, objective, learned)
            self._settle()
            if not self.agreement.reached:
                self.agreement.see(self._gradient(), self.team.sum)
            learned.norms.append(self._update())
        return learned

    def _pass(self, rows: Sequence[Row], share: Share, objective: Objective, learned: Learned) -> Learned:
        """Forward and backward through some rows of a share; what has been learned with them."""
        laid = self._laid_out(rows)
        if not rows:
            torch.autograd.backward(objective.nothing(self.policy, self.reference, laid))
            return learned
        value, metrics, bad = objective(self.policy, self.reference, laid, share.done)
        # a loss that is not finite is made to reach the gradient: its norm then tells every rank alike
        torch.autograd.backward(value * (math.nan if bad else 1.0) / share.denominator)
        if bad:
            learned.blamed[-1].extend(rows[i] for i in bad)
            return learned
        metrics["loss"] = float(value.detach()) / share.denominator * share.tokens
        _add(learned.metrics, metrics)
        return replace(learned, counted=learned.counted + sum(row.trained for row in rows))

    def _score(
        self, micros: Sequence[Sequence[Row]], temperature: float, reference: bool, states: bool
    ) -> list[Floats]:
        """`logprobs` or `states` of this rank's rows, in the order of its passes."""
        found: list[Floats] = []
        policy = self.reference if reference else self.policy
        with torch.no_grad():
            for micro in micros:
                laid = self._laid_out(micro)
                scored, _ = policy(by_own_routers(laid) if reference else laid, temperature, states=states)
                flat = scored.float().cpu().numpy()
                at = 0
                for row in micro:
                    mine = flat[at : at + row.trained]
                    at += row.trained
                    found.append(mine if states else _at(row.mask > 0, mine))
        return found

    def _passes(self, rows: Sequence[Row]) -> list[list[list[Row]]]:
        layout: Any = self.build.layout
        budget = self.options.tokens_per_microbatch
        if not rows:  # a pass for its gradient of zeros, which an optimizer with momentum makes a step of
            return [[[]] for _ in range(self.team.groups)]
        return passes(rows, self.team.groups, layout=layout, budget=budget, cost=self.cost)

    def _laid_out(self, rows: Sequence[Row]) -> Micro:
        began = thread_time()
        layout: Any = self.build.layout
        segments, routing = self.build.attention == SEGMENTS, self.build.routing_replay
        laid = lay_out(rows, self.device, layout, segments=segments, routing=routing)
        self.pack_s += thread_time() - began
        return laid

    def _gradient(self) -> torch.Tensor:
        """This rank's part of it, [parameters]."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        return torch.cat([_own(part).flatten() for part in parts])

    def _settle(self) -> None:
        """After the backward passes: what is left to be done for the gradient to be whole."""

    def _clip(self) -> float:
        """The norm of the whole gradient, before it was clipped."""
        whole: Any = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.grad_clip)
        return float(whole.full_tensor() if hasattr(whole, "full_tensor") else whole)

    def _update(self) -> float:
        norm = self._clip()
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        state = {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "agreement": self.agreement.state(),
            "skipped": self.skips.total,
        }
        if self.build.lora.rank:
            state["adapters"] = adapters(self.model.state_dict().items())
        return state if self.reference is None else {**state, "reference": self.reference.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.model.load_state_dict(state.get("adapters", {}), strict=False)
        self.agreement.restore(state["agreement"])
        self.skips.total = int(state["skipped"])
        if "reference" in state:
            self.hold_here()
            self.reference.model.load_state_dict(state["reference"])


def _at(places: Any, numbers: Floats) -> Floats:
    """`numbers` where `places` [T] is true, else 0."""
    full = np.zeros(len(places), np.float32)
    full[places] = numbers
    return full


def _own(tensor: Any) -> torch.Tensor:
    local: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def _add(totals: dict[str, float], metrics: Mapping[str, float]) -> None:
    for key, value in metrics.items():
        totals[key] = max(totals.get(key, 0.0), value) if key.endswith("/max") else totals.get(key, 0.0) + value
