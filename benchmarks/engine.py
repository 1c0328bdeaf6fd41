"""Decode speed of the local engine against transformers' own ways, on the default tiny model.

    python benchmarks/engine.py --json FILE [--batches 16,64,128] [--rounds 5] [--prompt 16] [--new 48]

Each round runs every contender once, in turn, on the same prompts; figures are tokens sampled per CPU-second of the
process (prefill of the prompts included), as median, lowest and highest over the rounds. `ratio` is ours over the best
of the others. Left out: training-like traffic (joins, leaves, turns), where the library has no counterpart to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import machine, spread, versions, write
from transformers import DynamicCache

from agentgym.config import ModelConfig
from agentgym.engines.local import LocalEngine
from agentgym.trainers.tiny_model import build_model
from agentgym.types import SamplingParams

_WARM_UP = 8  # short rounds, enough for our engine to have recorded its steps
Contender = Callable[[list[list[int]], int], int]


def tiny(args: argparse.Namespace) -> Any:
    """The model that `agentgym train` builds by default, with random weights."""
    size = ModelConfig(width=args.width, layers=args.layers)
    return build_model(args.vocab, size, max_context=4096, seed=0).eval()


def ours(model: Any, slots: int, context: int) -> Contender:
    engine = LocalEngine(copy.deepcopy(model), slots=slots, max_context=context, threads=torch.get_num_threads())

    async def play(prompts: list[list[int]], new: int) -> int:
        params = [SamplingParams(max_tokens=new, seed=i) for i in range(len(prompts))]
        done = await asyncio.gather(*(engine.generate(p, s) for p, s in zip(prompts, params, strict=True)))
        return sum(len(c.ids) for c in done)

    return lambda prompts, new: asyncio.run(play(prompts, new))


def dynamic_cache(model: Any) -> Contender:
    """A plain loop over the library's cache, with the sampling kept as cheap as ours."""

    @torch.inference_mode()
    def run(prompts: list[list[int]], new: int) -> int:
        cache, ids, count = DynamicCache(config=model.config), torch.tensor(prompts), 0
        for _ in range(new):
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            logprobs = logits.log_softmax(-1)
            sums = logprobs.exp().cumsum(-1)
            ids = torch.searchsorted(sums, torch.rand(len(prompts), 1) * sums[:, -1:], right=True)
            logprobs.gather(1, ids.clamp_(max=logits.shape[1] - 1))
            count += len(prompts)
        return count

    return run


def generate(model: Any) -> Contender:
    @torch.inference_mode()
    def run(prompts: list[list[int]], new: int) -> int:
        ids = torch.tensor(prompts)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=True,
            top_k=0,
            pad_token_id=0,
        )
        return int(out.numel() - ids.numel())

    return run


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All batches: {batch: {contender: {median, low, high}, ratio}}."""
    model, results = tiny(args), {}
    for batch in args.batches:
        context = args.prompt + args.new + 1
        contenders = {"ours": ours(model, batch, context), "dynamic_cache": dynamic_cache(model)}
        contenders["generate"] = generate(model)
        prompts = torch.randint(0, args.vocab, (batch, args.prompt)).tolist()
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for run in contenders.values():
            for _ in range(_WARM_UP):
                run(prompts, 8)
        for _ in range(args.rounds):
            for name, run in contenders.items():
                began = time.process_time()
                tokens = run(prompts, args.new)
                speeds[name].append(tokens / (time.process_time() - began))
        row: dict[str, Any] = {name: spread(values) for name, values in speeds.items()}
        row["ratio"] = row["ours"]["median"] / max(row[name]["median"] for name in speeds if name != "ours")
        results[str(batch)] = row
        print(f"batch {batch:4d}  " + "  ".join(f"{n} {row[n]['median']:7.0f}" for n in speeds), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batches", type=lambda s: [int(x) for x in s.split(",")], default=[16, 64, 128])
    sizes = {"rounds": 5, "prompt": 16, "new": 48, "vocab": 390, "width": 128, "layers": 3, "threads": 1}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {k: v for k, v in vars(args).items() if k != "json"}
    report = {"unit": "tokens per CPU-second", "settings": settings}
    report |= {"machine": machine(), "versions": versions("torch", "transformers"), "batches": measure(args)}
    write(args.json, report)


if __name__ == "__main__":
    main()
