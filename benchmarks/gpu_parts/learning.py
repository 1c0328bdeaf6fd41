"""The learner that trains, on a published architecture with random weights: tokens a second, MFU, memory.

Adam's moments, masters and gradients in fp32, compute in bf16 (`model.dtype`), packed rows of 16,384 tokens, chunked
logprobs, activation checkpointing; every token but a row's first is trained, which is the most that a head may have to
do. A step is two packed rows, forward, backward, clipping and AdamW; its time is all of `Learner.train`.

MFU: 6 operations a weight of the matrices (the head's among them, the embedding's look-up not) and token, and
6 x layers x heads x head size x length for a causal row of that length, by the time and the card's dense bf16 peak;
what is computed again does not count. Of adapters the same number is told, as others do, and `mfu_needed` beside it:
4 operations for frozen weights, which have no gradient.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentgym.config import Config, load_config
from agentgym.trainers.batch import Row
from agentgym.trainers.learner import Learner
from agentgym.trainers.losses import make_loss
from agentgym.trainers.plan.architectures import known
from agentgym.trainers.plan.hardware import CARDS
from agentgym.trainers.plan.model import Model, count
from agentgym.trainers.ranks.make import make_learner
from agentgym.trainers.warm_start import rl_options
from gpu_parts.job import Job, described, status_of

TOKENS, PASSES, RANK = 16384, 2, 16
STEPS = 5
"""Timed at most, after one that is not."""
SPARE, LEAST = 3.0, 15.0
"""Seconds that are left at the end, and without which no other learner is built."""
SHEETS = "the maker's data sheet, dense (without sparsity)"
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12}
"""Cards whose peak is not that of the SXM module of the same name, FLOP/s in bf16."""
PUBLISHED = {
    "Qwen/Qwen3-0.6B": {"tokens_s": 13342, "what": "LoRA"},
    "Qwen/Qwen3-4B": {
        "tokens_s": [5952, 6229],
        "mfu": [0.207, 0.217],
        "peak_gib": [20.6, 23.3],
        "operations_per_token": 0.207 * 989e12 / 5952,
    },
}
"""What prime-rl has published of rows of 16,384 tokens on one H100. It counts operations in a way of its own, which its
own figures give: compare tokens a second."""
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
         "intermediate_size": 128, "vocab_size": 512}  # fmt: skip
VARIANTS = (("one_long_row", True), ("packed_rows", True), ("one_long_row", False))
"""What fills 16,384 tokens, and whether activations are computed again."""


def run(job: Job, model: str, lora: int) -> None:
    if lora:
        import peft  # noqa: F401  # said as what it is
    tokens = 256 if job.quick else TOKENS
    settings = dict(known(model) or {})
    settings |= SMALL if job.quick else {}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    facts = count(config, configured(job, lora, tokens, recompute=True), model, "table")
    peak = peak_of(job)
    told = {"tokens_per_row": tokens, "rows_per_step": PASSES, "lora_rank": lora, "optimizer": "adamw, fp32 states"}
    job.tell(
        model=model, parameters=facts.parameters, trained=facts.trained, settings=told, formula=formula(),
        peak_flops=peak, peak_source=SHEETS if peak else None, published_prime_rl_on_one_h100=PUBLISHED.get(model),
    )  # fmt: skip
    found: dict[str, Any] = {}
    for recompute in (True, False):
        names = [name for name, again in VARIANTS if again == recompute]
        for name, figures in measured(job, config, facts, peak, names, lora, tokens, recompute):
            found[name if recompute else f"{name}_without_recompute"] = figures
            job.tell(variants=found)
    first = found.get("one_long_row", {})
    if "error" in first:
        raise Short(first["error"]["message"]) if first["status"] == "out_of_memory" else Unmeasured(str(first))


class Short(MemoryError):
    """Even the leanest variant did not fit."""


class Unmeasured(Exception):
    """The first variant failed."""


def measured(
    job: Job, config: Any, facts: Model, peak: float | None, names: Sequence[str], lora: int, tokens: int,
    recompute: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:  # fmt: skip
    """Variants by name; one that fails, or has no memory or time, says so and is a result. They share what is left."""
    began = time.perf_counter()
    if job.left() < LEAST:
        yield names[0], {"status": "not_run", "why": "no time was left"}
        return
    try:
        settings = configured(job, lora, tokens, recompute=recompute)
        with made(job, config, settings) as learner:
            built = time.perf_counter() - began
            for i, name in enumerate(names):
                seconds = (job.left() - SPARE) / (len(names) - i + recompute)
                rows = rows_of(name, tokens, facts.vocabulary)
                yield name, {"build_s": built, **timed(job, learner, settings, rows, seconds, facts, peak, lora)}
    except Exception as e:
        torch.cuda.empty_cache()
        yield names[0], {"status": status_of(e), "error": described(e), "memory": memory(job)}


@contextmanager
def made(job: Job, config: Any, settings: Config) -> Iterator[Learner]:
    """A learner of random weights, as a run makes it."""
    torch.manual_seed(0)
    torch.set_num_threads(settings.learner.threads)
    # its one reference to the model: rank 0 gives it up when the shards are filled
    learner = make_learner(settings, built(job, config), rl_options(settings))
    try:
        yield learner
    finally:
        learner.close()
        del learner
        gc.collect()
        if job.device == "cuda":
            torch.cuda.empty_cache()


def built(job: Job, config: Any) -> Any:
    with torch.device(job.device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def configured(job: Job, lora: int, tokens: int, *, recompute: bool) -> Config:
    return load_config(
        None,
        [
            "model.dtype=bfloat16",
            f"model.lora_rank={lora}",
            "learner.layout=packed",
            f"learner.recompute={str(recompute).lower()}",
            f"learner.tokens_per_microbatch={tokens}",
            f"learner.device={job.device}",
            f"engine.device={job.device}",
        ],
    )


def rows_of(kind: str, tokens: int, vocabulary: int) -> list[Row]:
    """`PASSES` times `tokens`: one row each, or several, from a half to a sixteenth of it, that fill bins exactly."""
    rng = np.random.default_rng(0)
    lengths = [tokens] if kind == "one_long_row" else [tokens // n for n in (2, 4, 8, 16, 16)]
    return [_row(rng, length, vocabulary) for _ in range(PASSES) for length in lengths]


def _row(rng: Any, length: int, vocabulary: int) -> Row:
    mask = np.ones(length, np.float32)
    mask[0] = 0.0
    # about what random weights give every token
    logprobs = np.full(length, -math.log(vocabulary), np.float32)
    advantages = np.full(length, rng.normal(), np.float32)
    return Row(
        rng.integers(0, vocabulary, length).astype(np.int32), mask, logprobs, advantages, np.zeros(length, np.int32)
    )


def timed(
    job: Job, learner: Learner, settings: Config, rows: Sequence[Row], limit: float, facts: Model,
    peak: float | None, lora: int,
) -> dict[str, Any]:  # fmt: skip
    """Figures of some steps in about `limit` seconds: one that is not counted, one that is, more while they fit."""
    loss = make_loss(settings)
    tokens = sum(len(row.ids) for row in rows)
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    while len(seconds) < (2 if job.quick else 1 + STEPS):
        if len(seconds) > 1 and sum(seconds) + seconds[-1] > limit:
            break
        _wait(job)
        began = time.perf_counter()
        metrics = learner.train(rows, loss, seed=len(seconds))
        _wait(job)
        seconds.append(time.perf_counter() - began)
    middle = statistics.median(seconds[1:])
    rate = tokens / middle
    whole, needed = operations(facts, rows, frozen=False), operations(facts, rows, frozen=lora > 0)
    return {
        "status": "ok",
        "tokens_s": rate,
        "mfu": whole * rate / peak if peak else None,
        "mfu_needed": needed * rate / peak if peak else None,
        "model_tflops": whole * rate / 1e12,
        "operations_per_token": whole,
        "step_s": {"first": seconds[0], "median": middle, "low": min(seconds[1:]), "high": max(seconds[1:])},
        "timed_steps": len(seconds) - 1,
        "memory": memory(job),
        "tokens_per_step": tokens,
        "rows": len(rows),
        "layout": learner.build.layout,
        "attention": learner.build.attention,
        "recompute": learner.build.recompute,
        "grad_norm": metrics["grad_norm"],
    }


def operations(facts: Model, rows: Sequence[Row], *, frozen: bool) -> float:
    """A token's, forward and backward."""
    lengths = np.array([len(row.ids) for row in rows], float)
    mean = float((lengths**2).sum() / lengths.sum())
    matrices = facts.worked + facts.head
    return (4.0 if frozen else 6.0) * matrices + 6.0 * facts.layers * facts.heads * facts.head_size * mean


def formula() -> str:
    text = (__doc__ or "").partition("MFU: ")[2]
    return " ".join(text.split())


def peak_of(job: Job) -> float | None:
    """FLOP/s in bf16 of this card; None for one that is not known."""
    return peak_by_name(torch.cuda.get_device_name(0)) if job.device == "cuda" else None


def peak_by_name(name: str) -> float | None:
    """As the driver calls it, `NVIDIA H100 80GB HBM3`."""
    if special := next((peak for part, peak in PEAKS.items() if part in name), None):
        return special
    plain = name.replace(" ", "").replace("-", "")
    return next((card.bf16 for card in CARDS if card.name.replace("-", "") in plain), None)


def memory(job: Job) -> dict[str, float]:
    """Peaks, in GiB; nothing on a CPU."""
    if job.device != "cuda":
        return {}
    cuda = torch.cuda
    return {
        "peak_allocated_gib": cuda.max_memory_allocated() / 2**30,
        "peak_reserved_gib": cuda.max_memory_reserved() / 2**30,
    }


def _wait(job: Job) -> None:
    if job.device == "cuda":
        torch.cuda.synchronize()
