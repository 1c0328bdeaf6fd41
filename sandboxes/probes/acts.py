"""Acts: code that attempts something, or a function of the host that does; each has a control."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

from agentgym.errors import SandboxFault
from agentgym.execution import ExecStatus, SandboxLimits, SandboxSpec
from agentgym.protocols import Sandbox, SandboxBackend
from agentgym.sandboxes.probes.host import Host
from agentgym.sandboxes.probes.inside import judge, program
from agentgym.sandboxes.probes.rows import Finding, Seen

LIMITS = SandboxLimits(
    memory=128 << 20, processes=32, disk=8 << 20, open_files=128, output=4096, timeout=30.0, cpu_seconds=120
)
BOMB = 384 << 20
"""Bytes that a memory or disk bomb asks for: well above the limits, and harmless to a machine."""


@dataclass(slots=True)
class Stage:
    """What a probe is given: the backend, the host's side, and a name and options by which the backend can be
    made again."""

    backend: SandboxBackend
    host: Host
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shares_machine(self) -> bool:
        """Whether sessions run on this machine's kernel, so that their processes can be looked for."""
        return self.backend.capabilities.isolation != "vm"

    @contextlib.asynccontextmanager
    async def sandbox(self, **limits: Any) -> AsyncIterator[Sandbox]:
        box = await self.backend.create(SandboxSpec(replace(LIMITS, **limits)))
        try:
            yield box
        finally:
            with contextlib.suppress(SandboxFault):
                await box.close()


Side: TypeAlias = Callable[[Stage], Awaitable[Seen]]


class Act(Protocol):
    @property
    def name(self) -> str: ...

    async def run(self, stage: Stage) -> Finding: ...


@dataclass(frozen=True, slots=True)
class Code:
    """Python, or with `how` a command, that says `escaped(...)` where it achieved something.

    kernel: what it reaches is the kernel below; of a machine of its own that is no escape. machine: whether a machine
    or user can do it at all differs, so a control that is refused says only so. heard: the act succeeded if the host
    heard this, whatever the code says. ends: statuses that are an answer where the code gives none.
    """

    name: str
    code: str
    how: Literal["exec", "shell", "terminal"] = "exec"
    kernel: bool = False
    machine: bool = False
    heard: str = ""
    killed: bool = False
    """The act succeeded if the host's victim died."""
    ends: tuple[ExecStatus, ...] = ()
    control: str | None = None
    """Other code for the control; None: the same."""
    no_control: str = ""
    needs: str = ""
    """A fact that must not be empty on this machine, and else the act has nothing to find."""
    network: bool = False
    """Does not apply where sessions have a network of their own."""
    memory: bool = False
    """Does not apply where nobody holds the memory limit."""
    seconds: float = 20.0

    async def run(self, stage: Stage) -> Finding:
        facts = stage.host.facts
        if self.needs and not facts["ids"].get(self.needs, facts.get(self.needs)):
            missing = Seen("na", f"this machine has no {self.needs} to reach")
            return Finding(self.name, missing, missing)
        control = await self._outside(stage)
        return Finding(self.name, await self._inside(stage), control)

    def _skipped(self, stage: Stage) -> str:
        can = stage.backend.capabilities
        if self.kernel and can.isolation == "vm":
            return "sessions have a kernel of their own"
        if self.network and can.network == "own":
            return "sessions have a network of their own"
        if self.memory and can.memory == "none":
            return "the backend holds no memory limit"
        if self.how != "exec" and not can.shell:
            return "the backend has no shell"
        return ""

    async def _inside(self, stage: Stage) -> Seen:
        if why := self._skipped(stage):
            return Seen("na", why)
        facts = await stage.host.facts_now()
        text = program(self.code, facts) if self.how == "exec" else self.code.format(**facts)
        async with stage.sandbox() as box:
            stage.host.heard.clear()
            done = await getattr(box, self.how)(text, timeout=self.seconds)
        seen = judge(done.stdout)
        if seen is None:
            told = f"{done.status.value}: {done.error or done.stderr.strip()[-200:]}"
            seen = Seen("contained" if done.status in self.ends else "broken", told)
        return await self._evidence(stage, seen)

    async def _outside(self, stage: Stage) -> Seen:
        if self.no_control:
            return Seen("na", self.no_control)
        facts = await stage.host.facts_now()
        stage.host.heard.clear()
        if self.how == "exec":
            out, err = await stage.host.unsandboxed(self.control or self.code, facts, self.seconds)
        else:
            out, err = await _command((self.control or self.code).format(**facts), self.seconds)
        seen = judge(out)
        if seen is None:
            seen = Seen("broken", (err.strip().splitlines() or ["no verdict"])[-1][-200:])
        seen = await self._evidence(stage, seen)
        if seen.verdict == "contained" and self.machine:
            return Seen("na", f"this machine refuses it to this user anyway ({seen.detail})")
        return seen

    async def _evidence(self, stage: Stage, seen: Seen) -> Seen:
        """Where the host itself can tell, it does."""
        if seen.verdict == "broken":
            return seen
        if self.heard:
            await asyncio.sleep(0.05)
            return Seen("escaped", "it arrived") if self.heard in stage.host.heard else Seen("contained", seen.detail)
        if self.killed:
            died = await stage.host.victim_died()
            return Seen("escaped", "a process of the host died") if died else Seen("contained", seen.detail)
        return seen


async def _command(command: str, seconds: float) -> tuple[str, str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", command, stdout=pipe, stderr=pipe, close_fds=False)
    out, err = await asyncio.wait_for(process.communicate(), seconds)
    return out.decode(errors="replace"), err.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Driven:
    """An act that the host drives. control: a function, or the reason why there is none."""

    name: str
    inside: Side
    control: Side | str

    async def run(self, stage: Stage) -> Finding:
        control = Seen("na", self.control) if isinstance(self.control, str) else await self.control(stage)
        return Finding(self.name, await self.inside(stage), control)


@dataclass(frozen=True, slots=True)
class Probe:
    """A group of acts under one number."""

    number: int
    name: str
    acts: tuple[Act, ...]
