"""The statistics of an evaluation, pure and deterministic. Tasks are what is sampled; episodes of one task are alike.

What is not here: corrections for many comparisons at once. Whoever compares many models expects one in twenty of the
p-values to fall below 0.05 by chance alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

Z = 1.959963984540054
"""Of a 95% interval."""
EXACT_WORK = 50_000_000
"""Largest number of additions that an exact test may take; above it signs are drawn."""
DRAWS = 100_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% confidence interval."""

    mean: float
    low: float
    high: float


def pass_at_k(tries: int, wins: int, k: int) -> float:
    """The chance that at least one of k episodes of a task succeeds, estimated without bias from `tries` episodes.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, "Evaluating large language models trained on code", eq. 1).
    """
    _check(tries, wins, k)
    return 1.0 - math.comb(tries - wins, k) / math.comb(tries, k)


def pass_hat_k(tries: int, wins: int, k: int) -> float:
    """The chance that all of k episodes of a task succeed: C(c, k) / C(n, k) (Yao et al. 2024, "tau-bench")."""
    _check(tries, wins, k)
    return math.comb(wins, k) / math.comb(tries, k)


def _check(tries: int, wins: int, k: int) -> None:
    if not 0 <= wins <= tries:
        raise ValueError(f"{wins} successes of {tries} tries")
    if not 1 <= k <= tries:
        raise ValueError(f"k = {k} of {tries} tries: k must be from 1 to the number of tries")


def success_interval(tasks: Sequence[Sequence[float]]) -> Interval:
    """Mean success over tasks, given what each task's episodes won (0 or 1; at least one task, none empty).

    Wilson's score interval at the effective number of episodes: as many independent ones as would have the variance
    seen between tasks, at least the number of tasks and at most that of episodes (Dean & Pagano 2015). With one episode
    a task it is Wilson's interval itself. It stays within [0, 1] and has a width where all tasks ended alike.
    """
    means = [sum(wins) / len(wins) for wins in tasks]
    count, episodes = len(means), sum(map(len, tasks))
    mean = math.fsum(means) / count
    effective = float(count)
    if 0 < mean < 1 and count > 1:
        variance = math.fsum((x - mean) ** 2 for x in means) / (count * (count - 1))
        effective = mean * (1 - mean) / variance if variance else float(episodes)
        effective = min(max(effective, float(count)), float(episodes))
    return wilson(mean, effective)


def wilson(mean: float, episodes: float) -> Interval:
    """Wilson's score interval of a rate seen in so many independent episodes."""
    scale = 1 + Z * Z / episodes
    centre = (mean + Z * Z / (2 * episodes)) / scale
    half = Z / scale * math.sqrt(mean * (1 - mean) / episodes + Z * Z / (4 * episodes * episodes))
    return Interval(mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)))


def mean_interval(parts: Sequence[Interval]) -> Interval:
    """The mean of independent estimates, with an interval made of theirs (Zou & Donner 2008, "MOVER")."""
    count = len(parts)
    mean = math.fsum(part.mean for part in parts) / count
    below = math.sqrt(math.fsum((part.mean - part.low) ** 2 for part in parts)) / count
    above = math.sqrt(math.fsum((part.high - part.mean) ** 2 for part in parts)) / count
    return Interval(mean, mean - below, mean + above)


def clustered_error(tasks: Sequence[Sequence[float]]) -> float:
    """Standard error of the success rate over episodes, clustered by task: sqrt(sum over tasks of (sum over its
    episodes of (x - mean))^2) / n (Miller 2024, "Adding error bars to evals", eq. 4)."""
    episodes = sum(map(len, tasks))
    mean = sum(map(sum, tasks)) / episodes
    return math.sqrt(sum((sum(wins) - mean * len(wins)) ** 2 for wins in tasks)) / episodes


@dataclass(frozen=True, slots=True)
class Paired:
    """B against A on the same tasks: mean difference, its 95% interval, and the chance of one as large by signs."""

    difference: Interval
    p: float
    test: Literal["exact", "sampled"]
    """Whether all signs were counted, or `DRAWS` of them drawn."""


def paired(groups: Sequence[Sequence[Fraction]], seed: int = 0) -> Paired:
    """Compare two players by what B won more than A on each task; a group is the tasks of one environment (at least
    one group, none empty), and groups weigh alike.

    The p-value is two-sided, of the sign-flip permutation test: were A and B alike, each task's difference could as
    well have the other sign. With one episode a task it is McNemar's exact test. The interval is the adjusted Wald
    interval of Agresti & Min (2005), so that it has a width where no task differs; its centre is a little nearer to 0.
    """
    count = len(groups)
    means = [float(sum(group) / len(group)) for group in groups]
    centres, variances = zip(*[_adjusted(group) for group in groups], strict=True)
    mean, centre = math.fsum(means) / count, math.fsum(centres) / count
    half = Z * math.sqrt(math.fsum(variances)) / count
    interval = Interval(mean, max(-1.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)))
    weighted = [d / (count * len(group)) for group in groups for d in group if d]
    p, test = sign_flip(weighted, seed)
    return Paired(interval, p, test)


def _adjusted(differences: Sequence[Fraction]) -> tuple[float, float]:
    """Mean and its variance with two tasks added: half a task that B won, half one that A won, and one even."""
    count = len(differences) + 2
    mean = float(sum(differences)) / count
    squares = float(sum(d * d for d in differences)) + 1.0
    return mean, max(0.0, squares / count - mean * mean) / count


def sign_flip(differences: Sequence[Fraction], seed: int = 0) -> tuple[float, Literal["exact", "sampled"]]:
    """Two-sided p-value of the sum of differences (zeros left out) under random signs.

    Exact by convolution where the differences, on their common grid, are small enough; else by `DRAWS` draws of signs
    from `seed`, the observed ones among them (Phipson & Smyth 2010), so that it is never 0.
    """
    if not differences:
        return 1.0, "exact"
    grid = math.lcm(*(d.denominator for d in differences))
    steps = [abs(int(d * grid)) for d in differences]
    shrink = math.gcd(*steps)
    steps = [step // shrink for step in steps]
    observed = abs(int(sum(differences) * grid)) // shrink
    if sum(steps) * len(steps) <= EXACT_WORK:
        return _exact(steps, observed), "exact"
    return _sampled(steps, observed, seed), "sampled"


def _exact(steps: Sequence[int], observed: int) -> float:
    """P(|sum of ±steps| >= observed), over all signs."""
    chances = np.ones(1)  # of the sums -reach, -reach + 1, ..., reach
    for step in steps:
        wider = np.zeros(len(chances) + 2 * step)
        wider[: len(chances)] += chances / 2
        wider[2 * step :] += chances / 2
        chances = wider
    reach = (len(chances) - 1) // 2
    if observed == 0:
        return 1.0
    tail = float(chances[: reach - observed + 1].sum() + chances[reach + observed :].sum())
    return min(1.0, tail)


def _sampled(steps: Sequence[int], observed: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    sizes = np.array([float(step) for step in steps])
    hits, block = 1, max(1, 4_000_000 // len(steps))
    for first in range(0, DRAWS, block):
        signs = rng.integers(0, 2, (min(block, DRAWS - first), len(steps))) * 2.0 - 1.0
        # a sum equal to the observed one counts, whatever rounding does to it
        hits += int((np.abs(signs @ sizes) >= observed * (1 - 1e-12)).sum())
    return hits / (DRAWS + 1)
