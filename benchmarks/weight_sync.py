"""Weights from a learner to a serving SGLang server: by disk and by broadcast (gloo), with requests under way.

    python benchmarks/weight_sync.py --json FILE [--gb 2.0] [--rounds 3] [--bucket-mib 256] [--fake]

A Qwen3 of `--gb` 10^9 bytes (fp32) is served on this machine's CPU; this process is the learner, and asks for tokens
all the while. Figures, medians over `--rounds`: `gb_s` of the transfer (publish until the server goes on), `pause_s`
(without a token), `longest_request_s` beside the same without an update, `proof_s` (checksums on both sides), and the
most anonymous memory that learner and server held beyond what they held before, in buckets. `--fake`: the tests'.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from report import machine, versions, write
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentgym.engines.sglang.commands import cpu_command
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.interpreter import find_python
from agentgym.engines.sglang.layout import read_layout
from agentgym.engines.sglang.process import ServerCommand, ServerProcess
from agentgym.engines.sglang.proof import prove
from agentgym.protocols import WeightSync
from agentgym.trainers.weights.disk import DiskSync
from agentgym.trainers.weights.distributed import DistributedSync
from agentgym.trainers.weights.proof import checksums_only
from agentgym.types import SamplingParams
from agentgym.weights import WeightProof

FAKE = Path(__file__).parent.parent / "tests" / "engines" / "sglang" / "fake_server.py"
WIDTH = 1024


def build(gb: float) -> Any:
    """As many layers as make up the size."""

    def sized(layers: int) -> Qwen3Config:
        return Qwen3Config(
            vocab_size=512, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=layers,
            num_attention_heads=8, num_key_value_heads=8, head_dim=WIDTH // 8, max_position_embeddings=256,
            tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
        )  # fmt: skip

    per_layer = 4 * (4 * WIDTH * WIDTH + 3 * 4 * WIDTH * WIDTH)
    torch.manual_seed(0)
    return Qwen3ForCausalLM(sized(max(1, round(gb * 1e9 / per_layer)))).float().eval()


class Memory:
    """The most anonymous and shared memory of some processes, in bytes, from now on."""

    def __init__(self, pids: list[int]):
        self._pids, self._stop = pids, threading.Event()
        self.before = self.peak = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def extra(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.peak - self.before

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        total = 0
        for pid in self._pids:
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon", "RssShmem")))
        return total


def group(leader: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(") ")[2].split()[2]) == leader:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class Askers:
    """Requests, one after the other in each of some tasks, and how long each took."""

    def __init__(self, engine: SGLangEngine, count: int = 2):
        self.seconds: list[float] = []
        self._tasks = [asyncio.create_task(self._ask(engine, i)) for i in range(count)]

    async def _ask(self, engine: SGLangEngine, number: int) -> None:
        while True:
            began = time.perf_counter()
            await engine.generate([3 + number, len(self.seconds) % 500], SamplingParams(4))
            self.seconds.append(time.perf_counter() - began)

    async def longest(self) -> float:
        """When those under way have ended too."""
        target = len(self.seconds) + len(self._tasks)
        while len(self.seconds) < target:
            await asyncio.sleep(0.01)
        return max(self.seconds)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def measure(engine: SGLangEngine, server: ServerProcess, sync: WeightSync, model: Any, options: Any) -> Any:
    tensors = dict(model.named_parameters())
    size = sum(tensor.nbytes for tensor in tensors.values())
    rows: list[dict[str, float]] = []
    version = engine.version
    for round_number in range(options.rounds + 1):  # the first one loads what is loaded once
        version += 1
        with torch.no_grad():
            tensors["model.norm.weight"].add_(0.01)
        askers = Askers(engine)
        quiet = await askers.longest()
        askers.seconds.clear()
        theirs, mine = Memory(group(server.pid)), Memory([threading.main_thread().native_id or 0])
        began = time.perf_counter()
        update = await asyncio.to_thread(sync.publish, version, tensors)
        await engine.update_weights(replace(update, proof=None))
        took = time.perf_counter() - began
        extra = theirs.extra(), mine.extra()
        longest = await askers.longest()
        await askers.stop()
        began = time.perf_counter()
        proof = await asyncio.to_thread(checksums_only, tensors)
        kind = await prove(engine._client, engine.facts, WeightProof(proof.digests), version)
        assert kind == "checksum"
        row = {
            "gb_s": size / 1e9 / took,
            "pause_s": engine.paused_s,
            "longest_request_s": longest,
            "longest_request_without_update_s": quiet,
            "proof_s": time.perf_counter() - began,
            "server_extra_buckets": extra[0] / (options.bucket_mib << 20),
            "learner_extra_buckets": extra[1] / (options.bucket_mib << 20),
        }
        print({key: round(value, 3) for key, value in row.items()}, flush=True)
        if round_number:
            rows.append(row)
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]} | {
        "server_extra_buckets_max": max(row["server_extra_buckets"] for row in rows),
        "learner_extra_buckets_max": max(row["learner_extra_buckets"] for row in rows),
    }


async def run(options: Any, folder: Path) -> dict[str, Any]:
    model = build(options.gb)
    model.save_pretrained(folder / "model")
    size = sum(parameter.nbytes for parameter in model.parameters())
    print(f"{size / 1e9:.2f} GB in {len(list(model.parameters()))} tensors", flush=True)
    command = (
        ServerCommand(sys.executable, str(FAKE), environment={"OMP_NUM_THREADS": "1"})
        if options.fake
        else cpu_command(find_python(), 1, ("--max-total-tokens", "4096", "--skip-tokenizer-init"))
    )
    server = ServerProcess(command, str(folder / "model"), folder / "server.log")
    results: dict[str, Any] = {}
    try:
        server.wait_ready()
        engine = SGLangEngine(server.url, layout=read_layout(folder / "model"), timeout=600)

        syncs: dict[str, WeightSync] = {
            "disk": DiskSync(folder / "weights", str(folder / "model"), later),
            "gloo": DistributedSync(bucket_bytes=options.bucket_mib << 20, prove=later),
        }
        for name, sync in syncs.items():
            print(f"== {name}", flush=True)
            results[name] = await measure(engine, server, sync, model, options)
            sync.close()
        release = engine.facts.release
        await engine.aclose()
    finally:
        server.close()
    return {
        "machine": {**machine(), "load": round(os.getloadavg()[0], 1)},
        "versions": {**versions("torch", "transformers"), "sglang": "fake" if options.fake else release},
        "parameters": {"bytes": size, "bucket_mib": options.bucket_mib, "rounds": options.rounds},
        **results,
    }


def later(tensors: Any) -> WeightProof:
    """The proof is made when the clock has stopped."""
    return WeightProof({})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bucket-mib", type=int, default=256)
    parser.add_argument("--fake", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentgym-weight-sync-") as folder:
        report = asyncio.run(run(options, Path(folder)))
    write(options.json, report)


if __name__ == "__main__":
    main()
