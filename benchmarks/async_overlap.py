"""How much of two busy sides does the pipeline keep busy, under a hard bound on staleness?

    python benchmarks/async_overlap.py --json FILE [--staleness 0,1,2,4] [--episode 0.25] [--rounds 3]

The trainer's own loop, pipeline, frontier, batches and ledger; engine and learner only take time, on a clock of their
own, so nothing here depends on the machine. Episode lengths are lognormal (sigma 1.0), groups of 8, 32 groups a step,
64 slots; a learner step takes as long as its episodes take to generate with all slots in use. 60 steps are looked at,
after ten others and before ten more, so that neither the first batch nor the last stragglers count; `whole` is a run of
60 steps from its start to its end.

efficiency: tokens that were trained, in the time it took, against what the slower side alone could do in that time.
masked: share of the sampled tokens that were too old to be trained. longest_decile_trained: share of the tokens of the
longest tenth of the episodes that was trained.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from report import machine, spread, versions, write

from agentgym.trainers.batch import Row
from agentgym.trainers.credit import each
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.frontier import Frontier, TaskSource
from agentgym.trainers.loop import Loop
from agentgym.trainers.pipeline import Pipeline
from agentgym.trainers.timed import TimedRollouts
from agentgym.types import GroupRequest
from agentgym.weights import WeightUpdate

GROUPS, SIZE, SLOTS, SIGMA, STEPS, EDGE = 32, 8, 64, 1.0, 60, 10
TOKENS = 100.0
"""Mean of an episode."""
LEARNER = GROUPS * SIZE * TOKENS / SLOTS
"""Seconds of a learner step: a token takes one."""


class Lengths:
    """Tokens of each episode; `share` is the mean of an episode in learner steps, which sets how fast a token is."""

    def __init__(self, seed: int):
        self._seed = seed
        self._mu = math.log(TOKENS) - SIGMA**2 / 2

    def __call__(self, request: GroupRequest, episode: int) -> int:
        rng = np.random.default_rng([self._seed, episode, *request.id.encode()])
        return max(1, round(rng.lognormal(self._mu, SIGMA)))


class TimedLearner:
    """Takes `seconds` a step, and keeps what it was given."""

    def __init__(self, rollouts: TimedRollouts, seconds: float):
        self._rollouts, self._seconds = rollouts, seconds
        self.model = SimpleNamespace(named_parameters=lambda: ())
        self.pack_s, self.skipped = 0.0, 0
        self.steps: list[Step] = []

    def train(self, rows: Sequence[Row], *_: Any, **__: Any) -> dict[str, float]:
        self.steps.append(Step(self._rollouts.now, [len(row.ids) - 1 for row in rows], [row.trained for row in rows]))
        self._rollouts.wait(self._seconds)
        return {}


class Step(SimpleNamespace):
    def __init__(self, began: float, sampled: list[int], trained: list[int]):
        super().__init__(began=began, sampled=sampled, trained=trained)


class NoSync:
    def publish(self, version: int, tensors: Any) -> WeightUpdate:
        return WeightUpdate(version)

    def close(self) -> None: ...


def play(staleness: int, share: float, seed: int, edge: int) -> list[Step]:
    """All learner steps of a run. `share`: mean episode in learner steps; slots grow with it, so that sides balance."""
    slots = max(1, round(SLOTS * share / (SLOTS / (GROUPS * SIZE))))
    rollouts = TimedRollouts(Lengths(seed), slots=slots, token_seconds=1.0)
    learner: Any = TimedLearner(rollouts, GROUPS * SIZE * TOKENS / slots)
    steps = STEPS + 2 * edge
    frontier = Frontier([TaskSource("timed", [str(i) for i in range(GROUPS * (steps + 8))])], SIZE, seed)
    pipeline = Pipeline(rollouts, frontier, groups=GROUPS, max_staleness=staleness, steps=steps)
    loop = Loop(pipeline, rollouts, learner, each(grpo), None, NoSync(), staleness, seed)  # type: ignore[arg-type]
    loop.publish()
    for _ in range(steps):
        loop.run_step()
    end = Step(rollouts.now, [], [])
    found: list[Step] = [*learner.steps, end]
    for step in found:
        step.slots = slots
    return found


def figures(steps: Sequence[Step], edge: int) -> dict[str, float]:
    """Of the steps between the edges; without edges, from the very beginning to the end of the last step."""
    seen, after = steps[edge : edge + STEPS], steps[edge + STEPS]
    slots = after.slots
    seconds = after.began - (seen[0].began if edge else 0.0)
    sampled, trained = sum(sum(s.sampled) for s in seen), sum(sum(s.trained) for s in seen)
    ideal = max(sampled / slots, STEPS * GROUPS * SIZE * TOKENS / slots)
    lengths, kept = (np.concatenate([getattr(s, name) for s in seen]) for name in ("sampled", "trained"))
    longest = lengths >= np.quantile(lengths, 0.9)
    return {
        "efficiency": trained / sampled * ideal / seconds,
        "masked": 1 - trained / sampled,
        "longest_decile_trained": float(kept[longest].sum() / lengths[longest].sum()),
        "longest_decile_share": float(kept[longest].sum() / lengths[longest].sum() * sampled / trained),
        "step_seconds": seconds / STEPS / (GROUPS * SIZE * TOKENS / slots),
    }


def study(staleness: int, share: float, seeds: Sequence[int]) -> dict[str, Any]:
    runs = [figures(play(staleness, share, seed, EDGE), EDGE) for seed in seeds]
    whole = [figures(play(staleness, share, seed, 0), 0)["efficiency"] for seed in seeds]
    return {name: spread([run[name] for run in runs]) for name in runs[0]} | {"whole": spread(whole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--staleness", default="0,1,2,4")
    parser.add_argument("--episode", default="0.25,0.1,0.5,1", help="mean episodes, in learner steps")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    bounds = [int(k) for k in args.staleness.split(",")]
    shares = [float(share) for share in args.episode.split(",")]
    found = {share: {str(k): study(k, share, range(args.rounds)) for k in bounds} for share in shares}
    for share, by_bound in found.items():
        print(f"mean episode {share} learner steps")
        for k, told in by_bound.items():
            mid = {name: value["median"] for name, value in told.items()}
            print(
                f"  staleness {k}: efficiency {mid['efficiency']:.3f}  masked {mid['masked']:.3f}  "
                f"longest decile trained {mid['longest_decile_trained']:.3f}  whole run {mid['whole']:.3f}"
            )
    first = found[shares[0]]
    report = {
        **{
            key: {k: statistics.median([told[key]["median"]]) for k, told in first.items()}
            for key in ("efficiency", "masked", "longest_decile_trained", "longest_decile_share", "whole")
        },
        "by_episode": {str(share): by_bound for share, by_bound in found.items()},
        "parameters": {
            "sigma": SIGMA, "group_size": SIZE, "groups": GROUPS, "slots": SLOTS, "steps": STEPS, "edge_steps": EDGE,
            "mean_tokens": TOKENS, "mean_episode_in_learner_steps": shares[0], "rounds": args.rounds,
        },
        "machine": machine(),
        "versions": versions("agentgym-train", "numpy"),
    }  # fmt: skip
    write(args.json, report)


if __name__ == "__main__":
    main()
