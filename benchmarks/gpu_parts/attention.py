"""Which attention kernels torch chooses for the learner's packed rows and the engine's steps, and how fast each is.

The shapes are Qwen3-0.6B's: 16 query heads, 8 key-value heads of 128 numbers, bf16. `chosen` is read off a profile of
the very calls: the names of torch's operators. TFLOP/s count the causal half: 2 x 2 x heads x head size x length^2 / 2
operations forward, and 2.5 times as many backward (five products of that size instead of two).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from agentgym.trainers.segments import segments_attention, stacks_of
from gpu_parts.hardware import seconds_of
from gpu_parts.job import Job, described, status_of

HEADS, KV_HEADS, SIZE = 16, 8, 128
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")


def run(job: Job) -> None:
    unit = 32 if job.quick else 2048
    shapes = {"one_long_row": [8 * unit], "eight_rows": [unit] * 8, "uneven_rows": [4 * unit, 2 * unit, unit, unit]}
    found: dict[str, Any] = {}
    for name, lengths in shapes.items():
        found[name] = {"lengths": lengths, **measured(job, lengths)}
        job.tell(learner=found)
    short = [unit]  # fp32 is what a run computes in unless told otherwise
    found["one_row_in_fp32"] = {"lengths": short, **measured(job, short, torch.float32)}
    job.tell(learner=found, engine=decoding(job))
    alone = {backend: tried(job, backend, shapes["one_long_row"]) for backend in BACKENDS}
    job.tell(backends_alone_on_one_long_row=alone)


def measured(job: Job, lengths: Sequence[int], dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """Of the learner's attention over rows of these lengths, forward and backward."""
    device = torch.device(job.device)
    total, stacks = sum(lengths), stacks_of(lengths, device)
    query, key, value = (
        torch.randn(1, heads, total, SIZE, device=device, dtype=dtype, requires_grad=True)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    module = torch.nn.Identity()

    def forward() -> torch.Tensor:
        return segments_attention(module, query, key, value, None, stacks=stacks)[0]

    gradient = torch.randn_like(forward())

    def both() -> None:
        torch.autograd.backward(forward(), gradient)

    times = 2 if job.quick else 5
    there, whole = seconds_of(torch, forward, times), seconds_of(torch, both, times)
    operations = 2.0 * HEADS * SIZE * float(sum(length**2 for length in lengths))
    return {
        "chosen": kernels(both),
        "stacks": len(stacks),
        "forward_ms": 1e3 * there,
        "both_ms": 1e3 * whole,
        "forward_tflops": operations / there / 1e12,
        "both_tflops": 3.5 * operations / whole / 1e12,
    }


def tried(job: Job, backend: str, lengths: Sequence[int]) -> dict[str, Any]:
    """With one of torch's kernels alone; not every machine and build has each."""
    try:
        with sdpa_kernel([getattr(SDPBackend, backend)]):
            return {"status": "ok", **measured(job, lengths)}
    except (RuntimeError, AttributeError) as e:
        return {"status": "unavailable" if status_of(e) == "failed" else status_of(e), "error": described(e)}


def decoding(job: Job) -> dict[str, Any]:
    """A decoding step's attention as the engine calls it: 256 sequences, one new token each, by mask."""
    rows, keys = (4, 32) if job.quick else (256, 1024)
    like: dict[str, Any] = {"device": job.device, "dtype": torch.bfloat16}
    query = torch.randn(rows, KV_HEADS, HEADS // KV_HEADS, SIZE, **like)
    key, value = (torch.randn(rows, KV_HEADS, keys, SIZE, **like) for _ in range(2))
    mask = torch.zeros(rows, 1, 1, keys, **like)

    @torch.inference_mode()
    def step() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    taken = seconds_of(torch, step, 10)
    read = 2.0 * key.nbytes
    return {"sequences": rows, "past": keys, "chosen": kernels(step), "ms": 1e3 * taken, "gb_s": read / taken / 1e9}


def kernels(work: Any) -> list[str]:
    """Torch's attention operators under a call, the innermost ones' names among them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    names = {event.key for event in seen.key_averages()}
    return sorted(name.removeprefix("aten::") for name in names if "attention" in name and "autograd" not in name)
