"""The E2B backend: asks the cloud for sandboxes, and sees to it that each is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from agentgym.errors import SandboxUnavailable
from agentgym.execution import Capabilities, SandboxSpec

if TYPE_CHECKING:
    from agentgym.sandboxes.e2b.sandbox import E2BSandbox

LABEL = "agentgym"
KEYS = "https://e2b.dev/dashboard?tab=keys"
KILL_SECONDS = 15.0


class E2BBackend:
    """Makes sandboxes of a template: the spec's `image`, else `template`, else E2B's code interpreter.

    The key is `api_key` or the variable E2B_API_KEY. `lifetime`: seconds after its last call that E2B keeps a sandbox
    whose host has vanished; every call renews it. `internet`: whether code may reach the internet. Each sandbox
    carries the metadata {"agentgym": label}, by which `leftovers` and E2B's dashboard find it.

    E2B holds what its template was built with, so of a spec's limits only `timeout` and `output` are held: memory,
    processors and disk are the template's, and processes, CPU seconds and open files are not limited. A spec's `user`
    is refused, as code runs as the template's own.
    """

    def __init__(
        self,
        *,
        template: str = "",
        api_key: str = "",
        lifetime: int = 900,
        internet: bool = False,
        label: str = "sandbox",
    ) -> None:
        if isinstance(lifetime, bool) or not isinstance(lifetime, int) or lifetime < 1:
            raise ValueError(f"e2b lifetime = {lifetime!r}: must be 1 second or more")
        self._template = template
        self._api_key = api_key
        self.lifetime = lifetime
        self._internet = internet
        self._label = label
        self._live: dict[str, Any] = {}
        self._pending: set[asyncio.Task[Any]] = set()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("vm", "none", images=True, network="own" if self._internet else "none")

    async def create(self, spec: SandboxSpec) -> E2BSandbox:
        """A sandbox, ready. `SandboxUnavailable`: no key, no SDK, or refused; `SandboxFault`: E2B failed."""
        _check(spec)
        self._key()
        try:
            from agentgym.sandboxes.e2b.sandbox import E2BSandbox
        except ImportError as e:
            raise SandboxUnavailable(
                f"the e2b sandbox needs its SDK ({e}): pip install 'agentgym-train[e2b]'"
            ) from None
        return await E2BSandbox(self, spec).opened()

    async def machine(self, spec: SandboxSpec, seconds: int) -> Any:
        """A virtual machine of E2B's that lives for `seconds` unless it is renewed; raises as `create`."""
        from agentgym.sandboxes.e2b import faults
        from agentgym.sandboxes.e2b.sandbox import AsyncSandbox

        making = asyncio.create_task(
            AsyncSandbox.create(
                template=spec.image or self._template or None,
                timeout=seconds,
                metadata={LABEL: self._label},
                allow_internet_access=self._internet,
                api_key=self._key(),
            )
        )
        try:
            made = await asyncio.shield(making)
        except asyncio.CancelledError:
            self._later(self._unwanted(making))  # the request is under way, and would leave a sandbox behind
            raise
        except Exception as e:
            raise faults.of_creation(e, spec.image or self._template) from e
        self._live[made.sandbox_id] = made
        return made

    async def _unwanted(self, making: asyncio.Task[Any]) -> None:
        with contextlib.suppress(Exception):
            await self._kill(await making)

    async def kill(self, machine: Any) -> None:
        """End it, also when the caller is cancelled; one that E2B does not answer for dies at its lifetime's end."""
        if self._live.pop(machine.sandbox_id, None) is not None:
            await asyncio.shield(self._later(self._kill(machine)))

    async def _kill(self, machine: Any) -> None:
        with contextlib.suppress(Exception):
            await machine.kill(request_timeout=KILL_SECONDS)

    def _later(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task

    async def leftovers(self) -> list[str]:
        """Ids of running sandboxes with this backend's label that it does not hold itself: those of other runs too."""
        from agentgym.sandboxes.e2b import faults
        from agentgym.sandboxes.e2b.sandbox import AsyncSandbox, SandboxQuery

        found: list[str] = []
        try:
            pages = AsyncSandbox.list(query=SandboxQuery(metadata={LABEL: self._label}), api_key=self._key())
            while pages.has_next:
                found += [item.sandbox_id for item in await pages.next_items()]
        except Exception as e:
            raise faults.of_creation(e, "") from e
        return [known for known in found if known not in self._live]

    async def aclose(self) -> None:
        for machine in list(self._live.values()):
            await self.kill(machine)
        while self._pending:
            await asyncio.gather(*self._pending, return_exceptions=True)

    def _key(self) -> str:
        key = self._api_key or os.environ.get("E2B_API_KEY", "")
        if not key:
            raise SandboxUnavailable(f"the e2b sandbox needs a key: set E2B_API_KEY (get one at {KEYS})")
        return key


def _check(spec: SandboxSpec) -> None:
    if spec.dockerfile:
        raise SandboxUnavailable(
            "the e2b sandbox builds no Dockerfile: build a template of it (`e2b template build`) and name it as image"
        )
    if spec.user:
        raise SandboxUnavailable(f"sandbox user = {spec.user!r}: the e2b sandbox runs code as its template's user")
