"""A GPU that is pretended: tensors that are on `cuda` by name, and on the CPU in truth.

Code for a GPU goes wrong first in what a machine without one never shows: a tensor that stayed on the CPU beside one
that did not, or an array made of what numpy cannot reach. Here both are seen. Whatever is asked for on `cuda` is
computed on the CPU, and its memory is remembered as the GPU's; an operation on memory of both is refused as CUDA
refuses it. It says nothing of kernels, speed or numerics; it does not reach into other processes, nor into DTensors;
and what a backward pass mixes goes unseen, as gradients take the way of what they are of.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.utils.checkpoint
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAME = "a pretended GPU"
BYTES = 8 << 30
GPU = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_COPIES = {"copy_", "_to_copy"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""What CUDA lets indices on the CPU choose of."""
_TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}
_TO_DEVICE, _TO_DTYPE = ("device", "dtype", "non_blocking", "copy"), ("dtype", "non_blocking", "copy")
_c: Any = torch._C


def _truly(tensor: torch.Tensor) -> torch.device:
    with _c.DisableTorchFunction():
        device: torch.device = _c.TensorBase.device.__get__(tensor)
    return device


class Memory:
    """Which storages are the GPU's. A weak reference to each keeps its address from becoming another's."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}
        self._sweep_at = 4096
        self._lock = threading.RLock()

    def holds(self, tensor: torch.Tensor) -> bool:
        with _c.DisableTorchFunction():
            dense = _truly(tensor).type == "cpu" and tensor.layout == torch.strided
            return dense and tensor.untyped_storage()._cdata in self._held

    def place(self, tensor: torch.Tensor, there: bool) -> None:
        """Say where a tensor's storage is; one on the meta device has none."""
        if _truly(tensor).type != "cpu":
            return
        with _c.DisableTorchFunction(), self._lock:
            storage = tensor.untyped_storage()
            if not there:
                self._held.pop(storage._cdata, None)
            elif storage._cdata not in self._held:
                self._held[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._sweep()

    def _sweep(self) -> None:
        if len(self._held) > self._sweep_at:
            self._held = {at: kept for at, kept in self._held.items() if not kept.expired()}
            self._sweep_at = max(4096, 2 * len(self._held))


def _tensors(of: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(of) if isinstance(leaf, torch.Tensor)]


def _device(asked: Any) -> torch.device:
    return torch.device("cuda", asked) if isinstance(asked, int) else torch.device(asked)


class _Computing(TorchDispatchMode):
    """Results of what is on the GPU are on the GPU; what is on both is refused."""

    def __init__(self, memory: Memory):
        super().__init__()
        self._memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors((args, kwargs or {}))
        there = [tensor for tensor in given if self._memory.holds(tensor)]
        if there and len(there) < len(given) and _c._current_graph_task_id() == -1:
            self._check(func.overloadpacket.__name__, given)
        before = {_storage(tensor) for tensor in given} if there else set()
        result = func(*args, **(kwargs or {}))
        if there:
            for tensor in _tensors(result):
                if _storage(tensor) not in before:
                    self._memory.place(tensor, True)
        return result

    def _check(self, name: str, given: list[torch.Tensor]) -> None:
        if name in _COPIES or (name in _INDEXED and self._memory.holds(given[0])):
            return
        apart = [list(t.shape) for t in given if not self._memory.holds(t) and t.dim()]  # one number may be anywhere
        if apart:
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                f"cpu! (shapes of those on the CPU: {apart})"
            )


def _storage(tensor: torch.Tensor) -> int:
    with _c.DisableTorchFunction():
        return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)


class _Asking(TorchFunctionMode):
    """What names a device: tensors made on one, and moved to one."""

    def __init__(self, memory: Memory):
        super().__init__()
        self._memory = memory
        self._instead: dict[Any, Callable[..., Any]] = {
            torch.Tensor.get_device: lambda t: 0 if memory.holds(t) else -1,
            torch.Tensor.cpu: lambda t, **_: self._moved(t, _CPU),
            torch.Tensor.cuda: lambda t, *_, **__: self._moved(t, GPU),
            torch.Tensor.to: self._to,
            torch.Tensor.pin_memory: lambda t, *_: t.clone(),
            torch.histc: _histc,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if (instead := self._instead.get(func)) is not None:
            return instead(*args, **kwargs)
        if func in _TO_NUMPY and self._memory.holds(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if func is torch.Tensor.share_memory_ and self._memory.holds(args[0]):
            return args[0]
        if kwargs.get("device") is None or (asked := _device(kwargs["device"])).type not in ("cpu", "cuda"):
            return func(*args, **kwargs)
        result = func(*args, **{**kwargs, "device": _CPU})
        for tensor in _tensors(result):
            self._memory.place(tensor, asked.type == "cuda")
        return result

    def _moved(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        if _truly(tensor).type != "cpu":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        if self._memory.holds(tensor) == (device.type == "cuda"):
            return tensor
        moved = tensor.clone()
        self._memory.place(moved, device.type == "cuda")
        return moved

    def _to(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        by_type = bool(args) and isinstance(args[0], torch.dtype)
        named = {**dict(zip(_TO_DTYPE if by_type else _TO_DEVICE, args, strict=False)), **kwargs}
        other, asked = named.pop("other", None), named.pop("device", None)
        if isinstance(asked, torch.Tensor):
            other = asked
        if other is not None:
            asked, named["dtype"] = other.device, other.dtype
        named = {name: value for name, value in named.items() if value is not None}
        cast = tensor.to(**named) if named else tensor
        if asked is None:
            return cast
        device = _device(asked)
        return self._moved(cast, device) if device.type in ("cpu", "cuda") else cast.to(device)


def _histc(counted: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Of whole numbers, too, which a CPU has no kernel for."""
    return torch.histc(counted.float(), *args, **kwargs).to(counted.dtype)


class _Stream:
    """Of a GPU that does everything at once; an event, too."""

    device = GPU

    def __init__(self, *_: Any, **__: Any):
        pass

    def record(self, *_: Any) -> None:
        pass

    def wait_stream(self, _: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, _: Any) -> float:
        return 1.0


_CUDA: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "get_device_name": lambda device=None: NAME,
    "get_device_capability": lambda device=None: (9, 0),
    "get_device_properties": lambda device=None: SimpleNamespace(
        name=NAME, total_memory=BYTES, major=9, minor=0, multi_processor_count=1, L2_cache_size=1 << 20
    ),
    "mem_get_info": lambda device=None: (BYTES, BYTES),
    "memory_allocated": lambda device=None: 0,
    "memory_reserved": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "max_memory_reserved": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "empty_cache": lambda: None,
    "synchronize": lambda device=None: None,
    "is_bf16_supported": lambda *_, **__: True,
    "is_current_stream_capturing": lambda: False,
    "manual_seed_all": lambda seed: None,
    "get_rng_state": lambda device=None: torch.get_rng_state(),
    "set_rng_state": lambda state, device=None: None,
    "current_stream": lambda device=None: _Stream(),
    "default_stream": lambda device=None: _Stream(),
    "stream": contextlib.nullcontext,
    "Stream": _Stream,
    "Event": _Stream,
}


@contextlib.contextmanager
def pretended_gpu() -> Iterator[Memory]:
    """One, as long as it lasts: in this thread, and in those that are begun meanwhile."""
    memory = Memory()
    places: list[tuple[Any, str, Any]] = [(torch.cuda, name, value) for name, value in _CUDA.items()]
    places += [(torch.Tensor, name, value) for name, value in _attributes(memory).items()]
    places += [(torch, name, value) for name, value in _casting().items()]
    places.append((torch.utils.checkpoint._CheckpointFrame, "__init__", _recomputing(memory)))
    places.append((threading.Thread, "run", _running(memory)))
    with contextlib.ExitStack() as stack:
        for owner, name, value in places:
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        stack.enter_context(_Computing(memory))
        stack.enter_context(_Asking(memory))
        yield memory


def _attributes(memory: Memory) -> dict[str, Any]:
    """Of every tensor. Not by the mode: autograd's hooks run without it."""

    def device(tensor: torch.Tensor) -> torch.device:
        return GPU if memory.holds(tensor) else _truly(tensor)

    return {
        "device": property(device),
        "is_cuda": property(memory.holds),
        "is_cpu": property(lambda tensor: device(tensor).type == "cpu"),
    }


def _casting() -> dict[str, Any]:
    """Lower precision is that of the CPU."""
    real: Any = torch.autocast
    enabled = torch.is_autocast_enabled

    class Autocast(real):  # type: ignore[misc]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any):
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return {
        "autocast": Autocast,
        "is_autocast_enabled": lambda kind="cpu": enabled("cpu" if kind == "cuda" else kind),
    }


def _recomputing(memory: Memory) -> Callable[..., None]:
    """What is computed again in a backward pass is so without the mode, if it is not told."""
    made: Any = torch.utils.checkpoint._CheckpointFrame.__init__

    def make(self: Any, function: Callable[..., Any], *args: Any) -> None:
        def again(*given: Any) -> Any:
            with _Asking(memory):
                return function(*given)

        made(self, again, *args)

    return make


def _running(memory: Memory) -> Callable[[threading.Thread], None]:
    """Modes are a thread's own."""
    run = threading.Thread.run

    def there(thread: threading.Thread) -> None:
        with _Computing(memory), _Asking(memory):
            run(thread)

    return there
