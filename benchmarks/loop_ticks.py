"""How long do many code episodes keep the event loop from anything else?

    python benchmarks/loop_ticks.py --json FILE [--episodes 64] [--rounds 5]

`--episodes` of agentgym/CodeTests-v0 are played at once by its scripted expert, in real sandboxes, while a clock in the
same loop ticks every millisecond. The figures are the loop thread's CPU time between two ticks, in milliseconds: what a
single callback, or several without a gap, took. Wall time is not looked at: it is also the sandboxes'.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from pathlib import Path
from typing import Any

from report import machine, write

import agentgym
from agentgym.types import Outcome


async def episode(env: Any, seed: int) -> bool:
    start = await env.areset(seed=seed, options={"index": seed % len(env.tasks())})
    policy, messages = env.expert(start.task, seed), list(start.messages)
    while True:
        message = policy(messages)
        step = await env.astep(message)
        messages += [message, *step.messages]
        if step.done:
            return bool(step.outcome is Outcome.correct)


async def ticks(spent: list[float]) -> None:
    before = time.thread_time()
    while True:
        await asyncio.sleep(0.001)
        now = time.thread_time()
        spent.append((now - before) * 1e3)
        before = now


async def measure(episodes: int, rounds: int) -> dict[str, Any]:
    first = agentgym.make_env("agentgym/CodeTests-v0")
    envs = [first, *(first.fresh() for _ in range(episodes - 1))]
    await episode(first, 0)  # the zygote starts, tasks are made
    gc.collect()
    gc.freeze()  # as the rollout worker does
    worst, every, right = [], [], 0
    for number in range(rounds):
        spent: list[float] = []
        clock = asyncio.create_task(ticks(spent))
        right += sum(await asyncio.gather(*(episode(env, number * episodes + i) for i, env in enumerate(envs))))
        clock.cancel()
        worst.append(max(spent))
        every += spent
    every.sort()
    return {
        "episodes": episodes,
        "rounds": rounds,
        "correct": right,
        "worst_ms": max(worst),
        "worst_ms_by_round": worst,
        "p99_ms": every[int(len(every) * 0.99)],
        "median_ms": statistics.median(every),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.episodes, args.rounds))
    for name, value in found.items():
        print(f"{name:<20} {value}")
    write(args.json, {**found, "machine": machine()})


if __name__ == "__main__":
    main()
