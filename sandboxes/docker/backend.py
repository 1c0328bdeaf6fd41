"""The docker backend: one container a session, some started ahead, none used twice."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
from concurrent.futures import Future
from dataclasses import replace

from agentgym.errors import SandboxFault
from agentgym.execution import Capabilities, SandboxLimits, SandboxSpec
from agentgym.sandboxes.docker.containers import FOLDERS, NOBODY, Plan, Walls, has_files, start
from agentgym.sandboxes.docker.engine import Engine
from agentgym.sandboxes.docker.images import MAX_BYTES, Images
from agentgym.sandboxes.docker.owners import reap
from agentgym.sandboxes.docker.session import ContainerSession
from agentgym.sandboxes.docker.warm import Warm, drop
from agentgym.sandboxes.sessions import SessionSandbox

IMAGE = "python:3.11-slim"


class DockerSandbox(SessionSandbox):
    """A container of its own; see `SessionSandbox`."""


class DockerBackend:
    """Sandboxes in containers without network, rights or a writable root.

    image: of specs that name none; it needs python3. warm: containers of the same kind that are kept ready. cpus: what
    one may use. pull: fetch images that are missing. host: the engine, as in DOCKER_HOST. read_only: False lets code
    write to the image's own files, on the engine's disk and without a bound but that of a file. runtime: another one
    that the engine knows, as "runsc". max_image_bytes: beyond it the images built here and not used for longest go.
    """

    capabilities = Capabilities("container", "container", images=True, users=True)

    def __init__(
        self,
        image: str = IMAGE,
        *,
        warm: int = 2,
        cpus: float = 1.0,
        pull: bool = True,
        host: str | None = None,
        read_only: bool = True,
        runtime: str | None = None,
        max_image_bytes: int = MAX_BYTES,
    ):
        self._image = image
        self._walls = Walls(cpus, read_only, runtime)
        self._engine = Engine(host)
        self._images = Images(self._engine, pull, max_image_bytes)
        self._warm = Warm(self._begin, warm)
        self._holds: dict[tuple[str, str], bool] = {}
        self._live: set[ContainerSession] = set()
        self._used = False

    async def create(self, spec: SandboxSpec) -> DockerSandbox:
        """A sandbox whose container runs; raises `SandboxUnavailable` where there is no engine or no such image."""
        return await DockerSandbox(self, spec).opened()

    async def session(self, spec: SandboxSpec) -> ContainerSession:
        """A fresh container, a ready one where there is one."""
        self._open()
        plan = await self._engine.run(lambda: self._plan(spec))
        for old in [old for old in list(self._live) if old.gone]:
            self._live.discard(old)
        session = await self._taken(plan)
        session.limits = spec.limits
        self._warm.fill(plan)
        return session

    async def _taken(self, plan: Plan) -> ContainerSession:
        coming = self._warm.take(plan)
        if coming is not None:
            with contextlib.suppress(SandboxFault):  # it was to be ready, and something was wrong then
                return await _awaited(coming)
        return await _awaited(self._begin(plan))

    def _begin(self, plan: Plan) -> Future[ContainerSession]:
        return self._engine.submit(lambda: self._start(plan))

    def _start(self, plan: Plan) -> ContainerSession:
        session = start(self._engine, plan, self._walls)
        self._live.add(session)
        return session

    def _plan(self, spec: SandboxSpec) -> Plan:
        """What the spec needs, its image being there. Blocks."""
        image = self._images.ready(spec.image or ("" if spec.dockerfile else self._image), spec.dockerfile)
        usual = SandboxLimits()
        limits = replace(spec.limits, timeout=usual.timeout, output=usual.output)
        folder = "" if not self._walls.read_only or _within(spec.workdir, FOLDERS) else spec.workdir
        if folder and (image, folder) not in self._holds:
            self._holds[image, folder] = has_files(self._engine, image, folder)
        return Plan(image, limits, spec.user or NOBODY, folder, bool(folder) and self._holds[image, folder])

    async def discard(self, session: ContainerSession) -> None:
        await session.end()

    async def build(self, dockerfile: str, tag: str | None = None) -> str:
        """Build the image of a Dockerfile, or of a folder with one; its tag, `tag` where it is given."""
        return await self._engine.run(lambda: self._images.build(dockerfile, tag))

    async def aclose(self) -> None:
        """End every session and remove all containers, those that dead processes left too."""
        if not self._used:
            return
        self._used = False
        atexit.unregister(self._leave)
        self._warm.empty()
        for session in list(self._live):
            await self.discard(session)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._engine.settle()
        for session in list(self._live):
            if not session.gone:  # the engine could not remove it when it was asked
                session.abandon()
        self._live.clear()
        with contextlib.suppress(SandboxFault):  # an engine that went away has nothing to be tidied
            reap(self._engine)
        self._engine.close()

    def _open(self) -> None:
        if not self._used:
            self._used = True
            atexit.register(self._leave)
            self._engine.submit(lambda: reap(self._engine))

    def _leave(self) -> None:
        """At the process's end, where nobody closed: all streams first, so that the containers end side by side."""
        live = [session for session in list(self._live) if not session.gone]
        for session in live:
            session.hang_up()
        for session in live:
            session.abandon()


async def _awaited(coming: Future[ContainerSession]) -> ContainerSession:
    try:
        return await asyncio.wrap_future(coming)
    except asyncio.CancelledError:
        drop(coming)
        raise


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return not path or any(path == folder or path.startswith(f"{folder}/") for folder in folders)
