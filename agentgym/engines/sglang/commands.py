"""The command lines that start servers."""

from __future__ import annotations

from pathlib import Path

from agentgym.engines.sglang.process import ServerCommand

LAUNCHER = str(Path(__file__).with_name("launcher.py"))
GPUs = tuple[int | str, ...]
CPU_ARGUMENTS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"),
    # an idle scheduler would else turn round and round, and take a core
    *("--mem-fraction-static", "0.8", "--enable-deterministic-inference", "--sleep-on-idle"),
)
"""With the seeds of requests: see `launcher.let_seeds_count`. The cache is bounded by --max-total-tokens, which
must be said."""


def cpu_command(python: str, threads: int, arguments: tuple[str, ...] = (), *, dtype: str = "float32") -> ServerCommand:
    """A server on any x86 CPU, with `threads` of torch's."""
    environment = {"OMP_NUM_THREADS": str(threads)}
    return ServerCommand(python, LAUNCHER, (*CPU_ARGUMENTS, "--dtype", dtype, *arguments), environment)


def gpu_command(python: str, gpus: GPUs, arguments: tuple[str, ...] = (), *, dtype: str) -> ServerCommand:
    """A server over these GPUs of the machine, its weights sharded over them."""
    environment = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
    return ServerCommand(python, LAUNCHER, ("--tp-size", str(len(gpus)), "--dtype", dtype, *arguments), environment)
