"""Weights on their way from a learner's device to another process on the same device, by each of the package's ways.

The senders are those of a run: `SharedMemorySync` (to the local engine), `DiskSync`, `DistributedSync` over gloo, and
`TensorSync` (handles to a GPU's memory, to a server on the same one; on a CPU to shared memory). The other side is a
process with the same model, which does what an engine does with what it gets. After every transfer it says what it
holds, and that has to be what was sent. GB/s are the model's bytes by the time from `publish` until the other side has
loaded them, proofs apart; the first round, which sets things up, is told apart. NCCL is not among them: it refuses two
ranks on one GPU.
"""

from __future__ import annotations

import asyncio
import base64
import multiprocessing as mp
import pickle
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from weight_sync import build, later

from agentgym.engines.sglang.broadcast import Broadcast
from agentgym.engines.weights import load_tensors
from agentgym.protocols import WeightSync
from agentgym.trainers.weights.disk import DiskSync
from agentgym.trainers.weights.distributed import PATIENCE, DistributedSync
from agentgym.trainers.weights.shared import SharedMemorySync
from agentgym.trainers.weights.tensor import TensorSync
from agentgym.weights import WeightUpdate
from gpu_parts.job import Job, described, status_of

GB, ROUNDS, BUCKET_MIB = 2.0, 3, 256


class WrongWeights(Exception):
    """The other side does not hold what was sent."""


class OtherSide(Exception):
    """What went wrong in the other process."""


def run(job: Job) -> None:
    gb = 0.02 if job.quick else GB
    model = placed(gb, job.device)
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    job.tell(bytes=size, tensors=len(tensors), bucket_mib=BUCKET_MIB, dtype="float32", device=job.device)
    ways: dict[str, Any] = {}
    other = Receiver(gb, job.device)
    try:
        for name, make in senders(job, tensors).items():
            try:
                ways[name] = measured(job, make(), tensors, size, other)
            except Exception as e:
                ways[name] = {"status": status_of(e), "error": described(e)}
                other.close()  # who knows what it is at
                other = Receiver(gb, job.device)
            job.tell(ways=ways)
    finally:
        other.close()
    if not any(way["status"] == "ok" for way in ways.values()):
        raise WrongWeights(f"no way worked: {ways}")


def placed(gb: float, device: str) -> Any:
    with torch.device(device):
        return build(gb)


def senders(job: Job, tensors: Mapping[str, torch.Tensor]) -> dict[str, Callable[[], WeightSync]]:
    bucket = BUCKET_MIB << 20
    return {
        "shared_memory": lambda: SharedMemorySync(tensors),
        "disk": lambda: DiskSync(job.folder / "sync", str(job.folder / "no model"), later),
        "handles": lambda: TensorSync(bucket_bytes=bucket, prove=later),
        "gloo": lambda: DistributedSync(bucket_bytes=bucket, prove=later),
    }


def measured(
    job: Job, sync: WeightSync, tensors: Mapping[str, torch.Tensor], size: int, other: Receiver
) -> dict[str, Any]:
    taken: list[float] = []
    try:
        for version in range(1, 2 + (1 if job.quick else ROUNDS)):
            if taken and job.left() < 5 + 2 * taken[-1]:
                break
            for tensor in tensors.values():
                tensor.add_(1e-3)
            _wait(job)
            began = time.perf_counter()
            asyncio.run(other.take(sync.publish(version, tensors)))
            taken.append(time.perf_counter() - began)
            if (theirs := other.ask("holds")) != (mine := holds(tensors)):
                raise WrongWeights(f"after version {version} the other side holds {theirs}, sent was {mine}")
    finally:
        sync.close()
    after = taken[1:] or taken
    return {
        "status": "ok",
        "gb_s": size / 1e9 / statistics.median(after),
        "seconds": {"first": taken[0], "median": statistics.median(after), "low": min(after), "high": max(after)},
        "rounds": len(after),
    }


def holds(tensors: Mapping[str, torch.Tensor]) -> list[float]:
    """Sums of every tensor: alike bits have alike sums on one device."""
    return [float(tensor.double().sum()) for tensor in tensors.values()]


# ---- the other side ----


class Receiver:
    """A process with a model; also what `Broadcast` takes for a server's client."""

    def __init__(self, gb: float, device: str):
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, gb, device), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()
        self._broadcast = Broadcast(self, SimpleNamespace(on_cpu=True, devices=1))  # type: ignore[arg-type]

    async def take(self, update: WeightUpdate) -> None:
        if update.sender is not None:
            await self._broadcast.receive(update.sender, update.version, {})
        elif update.path is not None:
            self.ask("disk", update.path)
        elif update.tensors is not None:
            self.ask("tensors", update.tensors)
        else:
            self.ask("handles", update.handles)

    async def post(self, path: str, body: Any, **_: Any) -> Any:
        """What is asked of a server by HTTP."""
        return await asyncio.to_thread(self.ask, path, body)

    def ask(self, what: str, body: Any = None) -> Any:
        self._pipe.send((what, body))
        return self._answer()

    def _answer(self) -> Any:
        try:
            good, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise OtherSide(f"the receiving process ended with exit code {self._process.exitcode}") from None
        if not good:
            raise OtherSide(answer)
        return answer

    def close(self) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()


def serve(pipe: Any, gb: float, device: str) -> None:
    """Body of the process: answers (True, value) or (False, what went wrong)."""
    try:
        side = Side(placed(gb, device))
        pipe.send((True, None))
    except Exception as e:
        pipe.send((False, f"{type(e).__name__}: {e}"))
        return
    while True:
        what, body = pipe.recv()
        try:
            answer = getattr(side, what)(body)
            if side.device.type == "cuda":
                torch.cuda.synchronize()
            pipe.send((True, answer))
        except Exception as e:
            pipe.send((False, f"{what}: {type(e).__name__}: {e}"))


class Side:
    """What an engine does with weights, by the way they come."""

    def __init__(self, model: Any):
        self._model = model
        self._tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self.device = next(iter(self._tensors.values())).device
        self._group: Any = None

    def tensors(self, given: Mapping[str, torch.Tensor]) -> None:
        load_tensors(self._model, given)

    def disk(self, path: str) -> None:
        from safetensors.torch import load_file

        load_tensors(self._model, load_file(Path(path) / "model.safetensors", device=str(self.device)))

    def handles(self, given: tuple[str, ...]) -> None:
        for text in given:
            for name, tensor in pickle.loads(base64.b64decode(text)):
                self._tensors[name].copy_(tensor)

    def init_weights_update_group(self, body: Mapping[str, Any]) -> None:
        """As a server joins the learner's group; the learner is rank 0."""
        from torch.distributed.distributed_c10d import PrefixStore, _new_process_group_helper, _world

        dist: Any = torch.distributed
        world, name = int(body["world_size"]), body["group_name"]
        store = dist.TCPStore(body["master_address"], body["master_port"], world, is_master=False, timeout=PATIENCE)
        self._group, _ = _new_process_group_helper(
            world, int(body["rank_offset"]), [], dist.Backend(body["backend"]), PrefixStore(name, store),
            group_name=name, backend_options=None, timeout=PATIENCE,
        )  # fmt: skip
        _world.pg_group_ranks[self._group] = {i: i for i in range(world)}

    def update_weights_from_distributed(self, body: Mapping[str, Any]) -> None:
        options = torch.distributed.BroadcastOptions()
        options.rootRank = 0
        for name in body["names"]:
            self._group.broadcast([self._tensors[name]], options).wait()

    def holds(self, _: Any) -> list[float]:
        return holds(self._tensors)


def _wait(job: Job) -> None:
    if job.device == "cuda":
        torch.cuda.synchronize()
