"""Does one of two SGLang servers serve at every moment of an update of their weights?

    python benchmarks/rolling_updates.py --json FILE [--gb 0.5] [--rounds 5] [--fake]

Two servers on this machine's CPU run a Qwen3 of `--gb` 10^9 bytes; both are asked for one token, over and over, each by
itself. A server serves as long as it answers: `silence_s` is the longest time in which neither has answered, the
largest of the rounds, and stands beside that of the same time without an update (`quiet_s`). Updates are `rolling` and,
for comparison, `together`, by turns; `replica_silence_s` is the longest time without an answer of a single server, the
proof that updates do stop one. `--fake`: the tests' servers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from report import machine, versions, write
from weight_sync import FAKE, build

from agentgym.engines.replicas import ReplicatedEngine
from agentgym.engines.sglang.commands import cpu_command
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.interpreter import find_python
from agentgym.engines.sglang.layout import read_layout
from agentgym.engines.sglang.process import ServerCommand, ServerProcess
from agentgym.trainers.weights.disk import DiskSync
from agentgym.trainers.weights.proof import checksums_only
from agentgym.types import SamplingParams

ORDERS = ("rolling", "together")


class Answers:
    """One-token requests to each server, one after the other, and when each was answered."""

    def __init__(self, engines: Sequence[SGLangEngine]):
        self.times: list[list[float]] = [[] for _ in engines]
        self._tasks = [asyncio.create_task(self._ask(i, engine)) for i, engine in enumerate(engines)]

    async def _ask(self, index: int, engine: SGLangEngine) -> None:
        while True:
            await engine.generate([3, len(self.times[index]) % 500], SamplingParams(1))
            self.times[index].append(time.perf_counter())

    async def one_more(self) -> None:
        """Until each has answered twice from now on: what is under way has ended then."""
        counts = [len(times) + 2 for times in self.times]
        while any(len(times) < count for times, count in zip(self.times, counts, strict=True)):
            await asyncio.sleep(0.01)

    def silences(self, began: float, ended: float) -> list[float]:
        """The longest time without an answer within a span: of both servers together, and of each."""
        together = sorted(time for times in self.times for time in times)
        return [_longest(times, began, ended) for times in (together, *self.times)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _longest(times: Sequence[float], began: float, ended: float) -> float:
    """The span from the last answer before `began` to the first one after `ended` is looked at."""
    first = max((i for i, time in enumerate(times) if time <= began), default=0)
    last = min((i for i, time in enumerate(times) if time >= ended), default=len(times) - 1)
    return max(later - earlier for earlier, later in zip(times[first:last], times[first + 1 : last + 1], strict=True))


async def measure(engines: Sequence[SGLangEngine], sync: DiskSync, model: Any, rounds: int) -> dict[str, Any]:
    tensors = dict(model.named_parameters())
    rows: dict[str, list[dict[str, float]]] = {order: [] for order in ORDERS}
    version = engines[0].version
    answers = Answers(engines)
    await answers.one_more()
    for number in range(rounds + 1):  # the first one loads what is loaded once
        for order in ORDERS:
            version += 1
            with torch.no_grad():
                tensors["model.norm.weight"].add_(0.01)
            update = await asyncio.to_thread(sync.publish, version, tensors)
            began = time.perf_counter()
            await ReplicatedEngine(engines, order=order).update_weights(update)
            ended = time.perf_counter()
            await answers.one_more()
            silence, *each = answers.silences(began, ended)
            rest = time.perf_counter()
            await asyncio.sleep(ended - began)
            quiet_end = time.perf_counter()
            await answers.one_more()
            quiet = answers.silences(rest, quiet_end)[0]
            row = {"update_s": ended - began, "silence_s": silence, "replica_silence_s": min(each), "quiet_s": quiet}
            print(order, {key: round(value, 3) for key, value in row.items()}, flush=True)
            if number:
                rows[order].append(row)
    await answers.stop()
    return {order: summary(found) for order, found in rows.items()}


def summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of the silences the longest, of the rest the median."""
    return {
        "silence_s": max(row["silence_s"] for row in rows),
        "quiet_s": max(row["quiet_s"] for row in rows),
        "replica_silence_s": statistics.median(row["replica_silence_s"] for row in rows),
        "update_s": statistics.median(row["update_s"] for row in rows),
    }


async def run(options: Any, folder: Path) -> dict[str, Any]:
    model = build(options.gb)
    model.save_pretrained(folder / "model")
    size = sum(parameter.nbytes for parameter in model.parameters())
    command = (
        ServerCommand(sys.executable, str(FAKE), ("--fault", "slow-updates"), {"OMP_NUM_THREADS": "1"})
        if options.fake
        else cpu_command(find_python(), 1, ("--max-total-tokens", "4096", "--skip-tokenizer-init"))
    )
    servers = [ServerProcess(command, str(folder / "model"), folder / f"server-{i}.log") for i in range(2)]
    try:
        for server in servers:
            server.wait_ready()
        layout = read_layout(folder / "model")
        engines = [SGLangEngine(server.url, layout=layout, timeout=600) for server in servers]
        with contextlib.closing(DiskSync(folder / "weights", str(folder / "model"), checksums_only)) as sync:
            results = await measure(engines, sync, model, options.rounds)
        release = engines[0].facts.release
        for engine in engines:
            await engine.aclose()
    finally:
        for server in servers:
            server.close()
    return {
        "machine": {**machine(), "load": round(os.getloadavg()[0], 1)},
        "versions": {**versions("torch", "transformers"), "sglang": "fake" if options.fake else release},
        "parameters": {"bytes": size, "rounds": options.rounds},
        **results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--gb", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fake", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentgym-rolling-") as folder:
        report = asyncio.run(run(options, Path(folder)))
    write(options.json, report)


if __name__ == "__main__":
    main()
