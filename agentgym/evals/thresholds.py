"""Figures that an evaluation has to reach: `--min success=0.9`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.errors import ConfigError

METRICS = "success, sampled, greedy, scored, pass@K, pass^K"
_KNOWN = re.compile(r"success|sampled|greedy|scored|pass[@^][1-9]\d*")


@dataclass(frozen=True, slots=True)
class Missed:
    """A figure below its bound; `found` None: there is none."""

    env: str
    """Its name; "" for the whole evaluation."""
    metric: str
    bound: float
    found: float | None

    def __str__(self) -> str:
        found = "nothing was scored" if self.found is None else f"{self.found:.4g}"
        return f"{f'{self.env}: ' if self.env else ''}{self.metric} {found}, at least {self.bound:g} was asked for"


def read_minimums(given: Sequence[str]) -> dict[str, float]:
    """`["success=0.9"]` -> {"success": 0.9}; raises `ConfigError` for what is no figure or bound."""
    bounds: dict[str, float] = {}
    for text in given:
        metric, _, value = text.partition("=")
        try:
            bound = float(value)
        except ValueError:
            raise ConfigError(f"--min {text!r}: expected METRIC=NUMBER, as success=0.9") from None
        check_metric(metric.strip(), bound, "--min")
        bounds[metric.strip()] = bound
    return bounds


def check_metric(metric: str, bound: float, where: str) -> None:
    """Raises `ConfigError` for a name that is no rate, and a bound that no rate can be held to."""
    if not _KNOWN.fullmatch(metric):
        raise ConfigError(f"{where}: there is no figure {metric!r}; it can be: {METRICS}")
    if not 0 <= bound <= 1:
        raise ConfigError(f"{where}: {metric} = {bound:g}: a rate is between 0 and 1")


def missed(figures: Mapping[str, Any], minimums: Mapping[str, float], env: str = "") -> list[Missed]:
    """The bounds that the figures do not reach; a figure that is not there reaches none."""
    below: list[Missed] = []
    for metric, bound in minimums.items():
        found: float | None = figures.get(metric)
        if found is None or found < bound - 1e-12:
            below.append(Missed(env, metric, bound, found))
    return below
