"""Which loss a config asks for: by name with its own settings, those overridden, or a user's function."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.loading import is_reference, load_object, users_code
from agentgym.protocols import Loss
from agentgym.trainers.losses.aggregate import Aggregate
from agentgym.trainers.losses.cispo import cispo_loss
from agentgym.trainers.losses.correction import Corrected, Kind, OffPolicyMask
from agentgym.trainers.losses.dppo import dppo_loss
from agentgym.trainers.losses.gmpo import gmpo_loss
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.losses.gspo import gspo_loss
from agentgym.trainers.losses.kl import Estimator
from agentgym.trainers.losses.reinforce import reinforce_loss
from agentgym.trainers.losses.sapo import sapo_loss
from agentgym.trainers.losses.sequence_ppo import sequence_ppo_loss
from agentgym.trainers.losses.vespo import vespo_loss

Anchor: TypeAlias = Literal["behaviour", "recompute", "loglinear", "linear"]


@dataclass(frozen=True, slots=True)
class Named:
    """A published loss: its function and what it was published with. `low` and `high` bound the correction."""

    function: Callable[..., Any]
    clip: bool = False
    """Its range is `learner.clip_low` and `clip_high`; others have a range of another kind, among their arguments."""
    aggregate: Aggregate = "token"
    anchor: Anchor = "behaviour"
    correction: Kind | Literal["auto"] = "auto"
    low: float = 0.0
    high: float = 2.0
    second_moment: float = 0.0
    """Threshold of a selection of tokens before the step (`preparation.second_moment`), its argument `threshold`."""


LOSSES: Mapping[str, Named] = {
    "grpo": Named(grpo_loss, clip=True),
    "decoupled": Named(grpo_loss, clip=True, anchor="recompute", correction="full"),
    "tis": Named(grpo_loss, clip=True, anchor="recompute", correction="truncate"),
    "icepop": Named(grpo_loss, clip=True, anchor="recompute", correction="mask", low=0.5, high=5.0),
    "sequence_ppo": Named(sequence_ppo_loss, clip=True, aggregate="sequence"),
    "gspo": Named(gspo_loss, aggregate="sequence"),
    "gmpo": Named(gmpo_loss, aggregate="sequence"),
    "cispo": Named(cispo_loss),
    "sapo": Named(sapo_loss, aggregate="sequence"),
    "vespo": Named(vespo_loss),
    "dppo": Named(dppo_loss),
    "m2po": Named(reinforce_loss, second_moment=0.04),
    "reinforce": Named(reinforce_loss),
}
NAMES = tuple(LOSSES)


@dataclass(frozen=True, slots=True)
class Choice:
    """The loss, and what else of the objective and of the rows' preparation follows from it."""

    loss: Loss
    aggregate: Aggregate = "token"
    length: int = 1
    anchor: Anchor = "behaviour"
    second_moment: float = 0.0
    kl_estimator: Estimator = "k2"


@dataclass(frozen=True, slots=True)
class UsersLoss:
    """A loss given by `path.py:function`; what it returns is looked at, for its mistakes are not this package's."""

    name: str
    function: Callable[..., Any]
    args: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, tokens: Any) -> tuple[Any, dict[str, float]]:
        """As `Loss`; `ConfigError` where it returns something else."""
        with users_code(f"trainer.loss = {self.name!r}"):
            found = self.function(tokens, **self.args)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
            raise ConfigError(
                f"trainer.loss = {self.name!r}: must return (losses, metrics), got {type(found).__name__}"
            )
        if (shape := getattr(found[0], "shape", None)) != tokens.logprobs.shape:
            wanted = list(tokens.logprobs.shape)
            got = type(found[0]).__name__ if shape is None else f"shape {list(shape)}"
            raise ConfigError(f"trainer.loss = {self.name!r}: must return the loss of each token, {wanted}; got {got}")
        return found


def choose(config: Config) -> Choice:
    """The loss that `trainer.loss` and the section `loss` ask for, or a `ConfigError` that says what is wrong."""
    name, asked = config.trainer.loss, config.loss
    users = is_reference(name)
    named = Named(load_object(name, "trainer.loss")) if users else LOSSES.get(name)
    if users and not callable(named and named.function):
        raise ConfigError(f"trainer.loss = {name!r}: not a function")
    if named is None:
        close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"trainer.loss = {name!r}: unknown{nearest}; known: {', '.join(NAMES)}, or path.py:function")
    args, threshold = _arguments(named, config)
    loss: Loss = UsersLoss(name, named.function, args) if users else partial(named.function, **args)
    anchor: Anchor = named.anchor if asked.anchor == "auto" else asked.anchor
    loss = _corrected(loss, named, anchor, config)
    if asked.off_policy_mask:
        loss = OffPolicyMask(loss, asked.off_policy_mask)
    aggregate: Aggregate = named.aggregate if asked.aggregate == "auto" else asked.aggregate
    length = asked.length or config.rollout.max_episode_tokens or config.rollout.max_tokens
    return Choice(loss, aggregate, length, anchor, threshold, _estimator(config))


def _arguments(named: Named, config: Config) -> tuple[dict[str, Any], float]:
    """The function's arguments, and the threshold of a selection before the step."""
    learner, given = config.learner, dict(config.loss.args)
    parameters = list(inspect.signature(named.function).parameters.values())[1:]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = [parameter.name for parameter in parameters] + ["threshold"] * bool(named.second_moment)
    for key in () if takes_any else given:
        if key not in known:
            raise ConfigError(_no_such_argument(key, config.trainer.loss, known))
    threshold = float(given.pop("threshold", named.second_moment)) if named.second_moment else 0.0
    if named.clip:
        given = {"clip_low": learner.clip_low, "clip_high": learner.clip_high, **given}
    return given, threshold


def _no_such_argument(key: str, name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    nearest = f"; did you mean {close[0]!r}?" if close else ""
    has = f"it has: {', '.join(known)}" if known else "it has none"
    return f"loss.args: {name!r} has no argument {key!r}{nearest}; {has}"


def _corrected(loss: Loss, named: Named, anchor: Anchor, config: Config) -> Loss:
    asked = config.loss
    kind = named.correction if asked.correction == "auto" else asked.correction
    if anchor == "behaviour":
        if kind not in ("auto", "none"):
            raise ConfigError(
                f"loss.correction = {kind!r}: there is nothing to correct where ratios are against the policy that "
                'sampled; set loss.anchor = "recompute", or loss.correction = "none"'
            )
        return loss
    low, high = asked.correction_low or named.low, asked.correction_high or named.high
    if low >= high:
        raise ConfigError(f"loss.correction_low = {low}: must be below loss.correction_high = {high}")
    return Corrected(loss, "full" if kind == "auto" else kind, asked.correction_level, low, high)


def _estimator(config: Config) -> Estimator:
    asked = config.loss
    reward = asked.kl_in == "reward"
    if asked.kl_estimator == "auto":
        return "k1" if reward else "k2"
    if config.learner.kl and asked.kl_estimator == "k1" and not reward and not asked.kl_correct:
        raise ConfigError(
            "loss.kl_estimator = 'k1': as a term of the loss its gradient is 0 on average; take k2 or k3, set "
            'loss.kl_correct, or loss.kl_in = "reward"'
        )
    return asked.kl_estimator
