"""The machine by name, and what it reaches: a matrix product and a copy, to hold everything else against."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

from report import machine

from gpu_parts.job import Job, NoDevice


def run(job: Job) -> None:
    import torch

    if job.device == "cuda" and not torch.cuda.is_available():
        raise NoDevice(
            f"torch {torch.__version__} sees no CUDA device (nvidia-smi: {smi() or 'not there'}); the same code runs "
            "at tiny sizes with --quick --device=cpu"
        )
    names = ("torch", "transformers", "peft", "numpy", "safetensors", "triton", "flash-attn", "pydantic", "gymnasium")
    job.tell(
        machine={**machine(), "kernel": platform.release(), "load": round(os.getloadavg()[0], 1)},
        versions={name: version(name) for name in names},
        allocator=os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        flash_attn_package=importlib.util.find_spec("flash_attn") is not None,
        gpu=gpu(torch) if job.device == "cuda" else None,
    )
    job.tell(reached=reached(torch, job))


def gpu(torch: Any) -> dict[str, Any]:
    facts = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        "name": facts.name,
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
        "multiprocessors": facts.multi_processor_count,
        "compute_capability": f"{facts.major}.{facts.minor}",
        "driver": (smi() or "").partition(",")[0],
        "smi": smi(),
        "cuda_of_torch": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None,
        "flash_sdp": torch.backends.cuda.flash_sdp_enabled(),
        "cudnn": torch.backends.cudnn.version(),
        "bf16": torch.cuda.is_bf16_supported(),
    }


def smi() -> str | None:
    """Driver, name, memory, clock and power limit as the driver's own tool says; None where that is not there."""
    asked = "--query-gpu=driver_version,name,memory.total,clocks.max.sm,power.limit"
    try:
        done = subprocess.run(
            ["nvidia-smi", asked, "--format=csv,noheader"], capture_output=True, text=True, timeout=15
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.splitlines() or [""])[0].strip() or None


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def reached(torch: Any, job: Job) -> dict[str, float]:
    """TFLOP/s of a bf16 matrix product of random numbers, and GB/s of a copy, read and written bytes together."""
    size, numbers = (256, 1 << 16) if job.quick else (8192, 1 << 30)
    a, b = (torch.randn(size, size, device=job.device, dtype=torch.bfloat16) for _ in range(2))
    product = seconds_of(torch, lambda: a @ b, 10)
    source = torch.zeros(numbers, device=job.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = seconds_of(torch, lambda: target.copy_(source), 10)
    return {
        "matmul_bf16_tflops": 2 * size**3 / product / 1e12,
        "matmul_size": size,
        "copy_gb_s": 2 * numbers / copy / 1e9,
    }


def seconds_of(torch: Any, work: Callable[[], Any], times: int) -> float:
    """Mean of `times` calls after two others."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for _ in range(2):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - began) / times
