"""Credit assignment: Group -> one advantage array per turn of each trajectory. One pure function a file.

Most see one group at a time; some take all groups of a step, for statistics over the batch. What else they need, the
scores of states or a critic's values, comes with the trajectories (`trainers.annotate`), so that a run's credit can be
computed again from its files.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.loading import is_reference
from agentgym.protocols import BatchCredit, Credit
from agentgym.trainers.credit.bilevel_gae import bilevel_gae
from agentgym.trainers.credit.gigpo import gigpo
from agentgym.trainers.credit.grpo import grpo, grpo_over_batch
from agentgym.trainers.credit.progress import progress
from agentgym.trainers.credit.reinforce_pp import reinforce_pp
from agentgym.trainers.credit.rloo import rloo
from agentgym.trainers.credit.turn import turn_credit
from agentgym.trainers.credit.users import users_credit
from agentgym.trainers.credit.whiten import whitened
from agentgym.types import Floats, Group

__all__ = ["NAMES", "each", "make_credit"]


def each(credit: Credit) -> BatchCredit:
    """A credit of one group, for all groups of a step."""

    def lifted(groups: Sequence[Group]) -> list[list[list[Floats]]]:
        return [credit(group) for group in groups]

    return lifted


def _grpo(config: Config) -> BatchCredit:
    if config.learner.std and config.credit.scale == "batch":
        return grpo_over_batch
    return each(partial(grpo, std=config.learner.std))


def _rloo(config: Config) -> BatchCredit:
    return each(rloo)


def _reinforce_pp(config: Config) -> BatchCredit:
    return partial(reinforce_pp, baseline=config.credit.baseline, discount=config.credit.discount)


def _turn(config: Config) -> BatchCredit:
    return each(partial(turn_credit, discount=config.credit.discount))


def _gigpo(config: Config) -> BatchCredit:
    told = config.credit
    how = partial(gigpo, discount=told.discount, step_weight=told.step_weight, anchor=told.anchor)
    return each(partial(how, std=config.learner.std))


def _progress(config: Config) -> BatchCredit:
    told = config.credit
    how = partial(progress, discount=told.discount, weight=told.score_weight)
    return each(partial(how, score_discount=told.score_discount, shaping=told.shaping))


def _bilevel_gae(config: Config) -> BatchCredit:
    told = config.credit
    if told.critic == "none":
        raise ConfigError("trainer.credit = 'bilevel_gae': GAE needs a value head: set credit.critic = 'head'")
    how = partial(bilevel_gae, discount=told.discount, turn_lambda=told.turn_lambda)
    return each(partial(how, token_discount=told.token_discount, token_lambda=told.token_lambda))


_MADE: Mapping[str, Callable[[Config], BatchCredit]] = {
    "grpo": _grpo,
    "rloo": _rloo,
    "reinforce_pp": _reinforce_pp,
    "turn": _turn,
    "gigpo": _gigpo,
    "bilevel_gae": _bilevel_gae,
    "progress": _progress,
}
NAMES = tuple(_MADE)


def make_credit(config: Config) -> BatchCredit:
    """The credit that `trainer.credit` names, or the user's own. Raises `ConfigError`."""
    credit = _named(config)
    return whitened(credit) if config.credit.whiten else credit


def _named(config: Config) -> BatchCredit:
    name = config.trainer.credit
    if name in _MADE:
        return _MADE[name](config)
    if is_reference(name):
        return users_credit(name)
    close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
    nearest = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"trainer.credit = {name!r}: unknown{nearest} (known: {', '.join(NAMES)}, and your own as path.py:function)"
    )
