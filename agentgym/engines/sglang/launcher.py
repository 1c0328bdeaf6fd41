"""Start an SGLang server: the main file of its process, run by the interpreter that has sglang, never imported.

    PYTHON launcher.py --model-path DIR --port P ...        (the arguments of sglang.launch_server)

It adds two things. The server ends, with all of its processes, when whoever holds its standard input goes away: no
server is left behind. And with `--device cpu` it registers what sglang asks of its compiled kernels, which are made for
GPUs and for CPUs with AMX: then any x86 CPU will do. The server's own processes import this file again, and its Python
has no agentgym: nothing here may need it.
"""

from __future__ import annotations

import importlib  # sglang by name: the project's own checks know none
import itertools
import os
import signal
import sys
import threading
import types
from typing import Any, NoReturn

CPU_ENVIRONMENT = {"SGLANG_USE_CPU_ENGINE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
LIBRARIES: list[Any] = []
"""Registered operators live as long as their library objects."""


def end_with_parent() -> None:
    """Kill this process group when the writing end of standard input is closed, by whatever death."""

    def wait() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()


def on_cpu(arguments: list[str]) -> bool:
    """Whether the arguments ask for the CPU."""
    return "--device=cpu" in arguments or ("--device", "cpu") in itertools.pairwise(arguments)


def stand_in_for_kernels() -> None:
    """What sglang looks up when it is imported; its torch_native attention and pytorch sampling call none of it but
    `assign_req_to_token_pool_cpu`."""
    import torch

    library: Any = torch.library.Library
    vision = library("torchvision", "DEF")
    vision.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    vision.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    kernels = library("sgl_kernel", "DEF")
    kernels.define("init_cpu_threads_env(str cpu_ids) -> str")
    kernels.define("initialize(int size, int rank) -> ()")
    kernels.impl("init_cpu_threads_env", lambda cpu_ids: "threads stay where they are", "CompositeExplicitAutograd")
    kernels.impl("initialize", lambda size, rank: None, "CompositeExplicitAutograd")
    kernels.define("murmur_hash32_cpu(Tensor seed, Tensor positions, Tensor columns) -> Tensor")
    kernels.impl("murmur_hash32_cpu", murmur, "CompositeExplicitAutograd")
    LIBRARIES.extend((vision, kernels))
    sys.modules["sgl_kernel"] = _kernel_module()


def _kernel_module() -> types.ModuleType:
    module: Any = types.ModuleType("sgl_kernel")
    module.__path__ = []
    module.assign_req_to_token_pool_cpu = _assign_req_to_token_pool

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def kernel(*_args: Any, **_options: Any) -> NoReturn:
            raise NotImplementedError(f"sgl_kernel.{name} is compiled for GPUs and AMX only")

        return kernel

    module.__getattr__ = missing
    stand_in: types.ModuleType = module
    return stand_in


def _assign_req_to_token_pool(
    req_pool_indices: Any, req_to_token: Any, start_offset: Any, end_offset: Any, out_cache_loc: Any, pool_len: int = 0
) -> None:
    """Write each request's new cache places into its row of the table: row[start:end] = the next end - start places."""
    at = 0
    rows = zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=False)
    for row, start, end in rows:
        req_to_token[row, start:end] = out_cache_loc[at : at + end - start].to(req_to_token.dtype)
        at += end - start


WORD = 0xFFFFFFFF


def murmur(seed: Any, positions: Any, columns: Any) -> Any:
    """MurmurHash3 (x86, 32 bits) of (64-bit seed [n], position [n], column [m]): [n, m], as non-negative int64."""
    import torch

    def rotated(x: Any, by: int) -> Any:
        return ((x << by) | (x >> (32 - by))) & WORD

    def mixed(h: Any, k: Any) -> Any:
        k = rotated((k * 0xCC9E2D51) & WORD, 15)
        k = (k * 0x1B873593) & WORD
        return (rotated(h ^ k, 13) * 5 + 0xE6546B64) & WORD

    seed = seed.view(torch.int64)
    h = mixed(torch.zeros_like(seed), seed & WORD)
    h = mixed(h, (seed >> 32) & WORD)
    h = mixed(h, positions.to(torch.int64) & WORD)
    h = mixed(h[:, None], columns.to(torch.int64)[None, :] & WORD) ^ 16  # bytes hashed
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & WORD
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & WORD
    return h ^ (h >> 16)


def let_seeds_count() -> None:
    """Take `--enable-deterministic-inference` with torch_native too: only with it does a request's seed decide what is
    sampled. It would also exchange CUDA kernels, of which there are none here."""
    choices = importlib.import_module("sglang.srt.arg_groups.choices")
    batch_invariant_ops: Any = importlib.import_module("sglang.srt.batch_invariant_ops")
    choices.DETERMINISTIC_ATTENTION_BACKEND_CHOICES.append("torch_native")
    batch_invariant_ops.enable_batch_invariant_mode = lambda *_args, **_options: None


def let_experts_be_told() -> None:
    """Take `--enable-return-routed-experts` without CUDA: the table that it keeps would be page-locked by CUDA's own
    call, and here is nothing to copy it from."""
    import torch

    common: Any = importlib.import_module("sglang.srt.mem_cache.pool_host.common")

    def unpinned(dims: tuple[int, ...], *, dtype: Any, **_options: Any) -> Any:
        return torch.empty(dims, dtype=dtype)

    common.ALLOC_MEMORY_FUNCS["cpu"] = unpinned


def main(arguments: list[str]) -> None:
    server_args = importlib.import_module("sglang.srt.server_args").prepare_server_args(arguments)
    importlib.import_module("sglang.launch_server").run_server(server_args)


if on_cpu(sys.argv[1:]):  # also where a process of the server imports this file again
    os.environ.update(CPU_ENVIRONMENT)
    stand_in_for_kernels()
    if "--enable-deterministic-inference" in sys.argv:
        let_seeds_count()
    if "--enable-return-routed-experts" in sys.argv:
        let_experts_be_told()

if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1:])
