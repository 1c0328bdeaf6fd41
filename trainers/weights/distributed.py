"""Weights by broadcast: the learner is rank 0 of a process group with each server, and sends one bucket at a time.

It answers on a control port: whoever updates an engine asks there for the plan, for a group to meet the server in, and
for one bucket after the other (`engines.sglang.broadcast` is the other side). Nothing is copied: what is sent is what
the learner holds at that moment, so that a rejoining server may be served at any time; the proof tells whether it was
the version that was meant. Gloo on a CPU, NCCL on GPUs (not two ranks on one GPU: there `tensor` is the way).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import socketserver
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch

from agentgym.trainers.weights.buckets import Bucket, buckets_of
from agentgym.trainers.weights.proof import Prover, checksums_only
from agentgym.weights import WeightSender, WeightUpdate

BUCKET_BYTES = 256 << 20
"""What a server holds besides its weights while it receives."""
PATIENCE = timedelta(seconds=120)
"""How long a rank waits for the other before it gives up."""


class DistributedSync:
    """Implements `protocols.WeightSync` by a control port and a thread for each engine that asks on it."""

    def __init__(self, *, host: str = "127.0.0.1", bucket_bytes: int = BUCKET_BYTES, prove: Prover = checksums_only):
        self._host, self._limit, self._prove = host, bucket_bytes, prove
        self._version = -1
        self._tensors: dict[str, torch.Tensor] = {}
        self._buckets: list[Bucket] = []
        self._groups: dict[str, Any] = {}
        self._wanted: set[str] = set()
        """Groups that are there or are to be."""
        self._idle: dict[str, int] = {}
        """Those that wait for the next update, and the version that they brought last."""
        self._lock = threading.Lock()
        self.key = secrets.token_hex(16)
        self._server = _ControlServer((host, 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="weight-sender")
        self._thread.start()

    def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> WeightUpdate:
        for name, brought in list(self._idle.items()):
            if brought < self._version:  # its server did not take the last one: it is gone, and will have another
                self.drop(name)
        with self._lock:
            self._version, self._tensors = version, dict(tensors)
            self._buckets = buckets_of(self._tensors, self._limit)
        sender = WeightSender(self._host, self._server.server_address[1], self.key)
        return WeightUpdate(version, "full", sender=sender, proof=self._prove(tensors))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for name in list(self._groups):
            self.drop(name)

    # ---- what engines ask for ----

    def plan(self, version: int, group: str = "") -> dict[str, Any]:
        """What comes, and whether `group` can take it."""
        self._check(version)
        return {"buckets": [self._described(bucket) for bucket in self._buckets], "meets": group in self._groups}

    def open(self, group: str, world_size: int, on_cpu: bool) -> tuple[dict[str, Any], threading.Thread]:
        """Begin to wait, in a thread, for the server to join; what the server needs to find us."""
        backend = "gloo" if on_cpu else "nccl"
        on_gpu = next(iter(self._tensors.values())).is_cuda
        if backend == "nccl" and not on_gpu:
            raise ValueError("the learner's weights are on the CPU and the server's on GPUs: use engine.sync = 'disk'")
        port = _free_port(self._host)
        self._wanted.add(group)
        waiting = threading.Thread(
            target=self._meet, args=(group, world_size, backend, port), daemon=True, name=f"join-{group}"
        )
        waiting.start()
        return {"host": self._host, "port": port, "backend": backend}, waiting

    def joined(self, group: str, waiting: threading.Thread) -> None:
        waiting.join(PATIENCE.total_seconds())
        if group not in self._groups:
            raise ValueError(f"the server did not join the process group within {PATIENCE.total_seconds():g} s")

    @torch.no_grad()
    def send(self, group: str, bucket: int, version: int) -> None:
        """Broadcast one bucket; returns when it has arrived."""
        self._check(version)
        self._idle.pop(group, None)
        for name in self._buckets[bucket].names:
            tensor = self._tensors[name].detach()
            options = torch.distributed.BroadcastOptions()
            options.rootRank = 0
            # `data`: an optimizer's in-place step would else be refused; it may happen where a server rejoins
            self._groups[group].broadcast([tensor.data.contiguous()], options).wait()

    def done(self, group: str, version: int) -> None:
        """The update is over, and the group will meet again."""
        self._idle[group] = version

    def drop(self, group: str) -> None:
        """Forget a group: its engine is done, or broke off."""
        self._wanted.discard(group)
        self._idle.pop(group, None)
        process_group = self._groups.pop(group, None)
        if process_group is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                torch.distributed.destroy_process_group(process_group)

    def _check(self, version: int) -> None:
        if version != self._version:
            raise ValueError(f"version {version} is gone, the learner has come to {self._version}")

    def _described(self, bucket: Bucket) -> dict[str, Any]:
        chosen = [self._tensors[name] for name in bucket.names]
        return {
            "names": list(bucket.names),
            "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in chosen],
            "shapes": [list(tensor.shape) for tensor in chosen],
        }

    def _meet(self, group: str, world_size: int, backend: str, port: int) -> None:
        """Join as rank 0. torch has no public way to make a group beside the default one with foreign processes."""
        from torch.distributed.distributed_c10d import PrefixStore, _new_process_group_helper, _world

        dist: Any = torch.distributed
        name: Any = group
        store = dist.TCPStore(self._host, port, world_size, is_master=True, timeout=PATIENCE, multi_tenant=True)
        made, _ = _new_process_group_helper(
            world_size,
            0,
            [],
            torch.distributed.Backend(backend),
            PrefixStore(group, store),
            group_name=name,
            backend_options=None,
            timeout=PATIENCE,
        )
        _world.pg_group_ranks[made] = {i: i for i in range(world_size)}
        self._groups[group] = made
        if group not in self._wanted:  # it came too late
            self.drop(group)


class _ControlServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], sync: DistributedSync):
        self.sync = sync
        super().__init__(address, _Conversation)


class _Conversation(socketserver.StreamRequestHandler):
    """One engine's update: a line of JSON each way. A group lives on for the next one if the engine says that all went
    well (`done`): after whatever failed, and where it is never said, nobody would come back to it."""

    server: _ControlServer

    def handle(self) -> None:
        self._waiting: dict[str, threading.Thread] = {}
        self._begun: set[str] = set()
        try:
            self._answer_all(self.server.sync)
        except OSError:
            pass  # the engine is gone
        finally:
            self._drop(self.server.sync)

    def _answer_all(self, sync: DistributedSync) -> None:
        trusted = False
        for line in self.rfile:
            try:
                message = json.loads(line)
                if message["op"] == "hello":
                    trusted = secrets.compare_digest(str(message["key"]), sync.key)
                if not trusted:
                    raise ValueError("not with this key")
                answer = self._answer(sync, message)
            except Exception as e:
                self._drop(sync)
                answer = {"error": f"{type(e).__name__}: {e}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _drop(self, sync: DistributedSync) -> None:
        for group in self._begun:
            sync.drop(group)
        self._begun.clear()

    def _answer(self, sync: DistributedSync, message: dict[str, Any]) -> dict[str, Any]:
        group = str(message.get("group", ""))
        match message["op"]:
            case "hello":
                return {}
            case "plan":
                return sync.plan(int(message["version"]), group)
            case "open":
                self._begun.add(group)
                answer, self._waiting[group] = sync.open(group, int(message["world_size"]), bool(message["on_cpu"]))
                return answer
            case "joined":
                sync.joined(group, self._waiting[group])
                return {}
            case "send":
                self._begun.add(group)
                sync.send(group, int(message["bucket"]), int(message["version"]))
                return {}
            case "done":
                sync.done(group, int(message["version"]))
                self._begun.discard(group)
                return {}
        raise ValueError(f"unknown request {message['op']!r}")


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
