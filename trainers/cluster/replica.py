"""An engine replica as a Ray actor: it holds one SGLang server of its machine. No token passes through it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentgym.config import Config
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.host import ANSWER_SECONDS, Place, ServerHost, Startable
from agentgym.engines.sglang.layout import read_layout
from agentgym.engines.sglang.make import check_told, server_command
from agentgym.engines.sglang.startable import GivenServer, OwnServer
from agentgym.trainers.cluster.baggage import Baggage
from agentgym.trainers.cluster.ray_cluster import load_ray, own_host
from agentgym.weights import WeightUpdate

LOG_BYTES = 1 << 20
"""Of a server's log that go up at once."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a replica tells of itself, and what its server wrote since it was last asked."""

    place: Place | None
    """None where it does not serve."""
    version: int
    reason: str
    deaths: dict[str, int]
    log: bytes


class ReplicaActor:
    """Made by Ray wherever there is room, and made again where its process or machine is lost; its server goes with it.

    index: which of the replicas it is; mark: of the run's weights (`Labels`).
    """

    def __init__(self, index: int, mark: str):
        self._index, self._mark = index, mark
        self._folder = tempfile.TemporaryDirectory(prefix="agentgym-replica-")
        self._log = Path(self._folder.name) / "server.log"
        self._host: ServerHost | None = None
        self._rests = False

    async def start(self, baggage: Baggage, update: WeightUpdate | None, tensors: Sequence[Any]) -> tuple[str, Place]:
        """Start the server, with the weights of now where there are any; where it is. Then it serves."""
        whole = await _with_tensors(update, tensors)
        if self._host is None:
            folder = Path(self._folder.name)
            spec = baggage.unpack(folder)
            self._host = ServerHost(
                self._server(spec.config, spec.model_path, folder),
                lambda url: self._connect(spec.config, spec.model_path, url),
                version=spec.version,
                patience=min(ANSWER_SECONDS, spec.config.engine.timeout),
            )
            if self._rests:
                self._host.rest()
            try:
                place = await self._host.start(whole)
            except BaseException:
                self._host = None
                raise
        else:
            if whole is not None:
                await self._host.update(whole)
            place = await self._host.place()
        return f"{socket.gethostname()}, process {os.getpid()}", place

    async def update(self, update: WeightUpdate, tensors: Sequence[Any]) -> bool:
        """Bring the server new weights and have it prove them; False where it is away: it gets them when it is back."""
        whole = await _with_tensors(update, tensors)
        return self._host is not None and whole is not None and await self._host.update(whole)

    async def release_memory(self) -> None:
        """Of its GPU; see `ServerHost.release_memory`."""
        self._rests = True
        if self._host is not None:
            await self._host.release_memory()

    async def resume_memory(self) -> None:
        self._rests = False
        if self._host is not None:
            await self._host.resume_memory()

    async def place(self, seen: str) -> Place:
        """See `ServerHost.place`."""
        assert self._host is not None, "the fleet starts it first"
        return await self._host.place(seen)

    async def sign(self, at: int) -> Sign:
        """`at`: bytes of the log that are known already."""
        host = self._host
        written = _read(self._log, at)
        if host is None:
            return Sign(None, 0, "it is being started", {}, written)
        return Sign(host.serving_at, host.version, host.reason, dict(host.deaths), written)

    async def close(self) -> None:
        if self._host is not None:
            await self._host.aclose()
        self._folder.cleanup()

    # ---- parts ----

    def _server(self, config: Config, model: str, folder: Path) -> Startable:
        engine = config.engine
        if engine.urls:
            return GivenServer(engine.urls[self._index])
        command = server_command(config, load_ray().get_gpu_ids(), host=own_host(config))
        os.chdir(folder)
        return OwnServer(command, model, self._log, port=engine.port + self._index if engine.port else 0)

    def _connect(self, config: Config, model: str, url: str) -> SGLangEngine:
        engine = config.engine
        made = SGLangEngine(
            url,
            layout=read_layout(model),
            timeout=engine.timeout,
            max_context=engine.max_context,
            pause=engine.pause,
            mark=self._mark,
        )
        if config.learner.routing_replay:
            check_told(made)
        return made


async def _with_tensors(update: WeightUpdate | None, tensors: Sequence[Any]) -> WeightUpdate | None:
    """The update as an engine takes it: tensors came by the object store, and lie in this machine's memory."""
    if update is None or not tensors:
        return update
    from agentgym.trainers.cluster.tensors import decode

    return replace(update, tensors=decode(await tensors[0]))


def _read(log: Path, at: int) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(at)
            return file.read(LOG_BYTES)
    except OSError:
        return b""
