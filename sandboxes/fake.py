"""A sandbox in memory, for tests of tools and environments: scripted results, recorded calls, files in a dict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Self

from agentgym.errors import SandboxFault, SandboxFileError
from agentgym.execution import Capabilities, ExecResult, ExecStatus, SandboxSpec

Answer = ExecResult | str | Callable[[str], ExecResult | str]


class FakeSandbox:
    """Answers code by what `answers` says of it: a result, the text of stdout, or a function of the code.

    Code that is not in `answers` is answered by "*" where that is there, else it raises `SandboxFault`.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None, files: Mapping[str, bytes] | None = None):
        self.answers = dict(answers or {})
        self.files = dict(files or {})
        self.calls: list[tuple[str, str]] = []
        self.closed = False

    async def exec(self, code: str, *, timeout: float | None = None) -> ExecResult:
        return self._answer("exec", code)

    async def shell(self, command: str, *, timeout: float | None = None) -> ExecResult:
        return self._answer("shell", command)

    async def terminal(self, command: str, *, timeout: float | None = None) -> ExecResult:
        return self._answer("terminal", command)

    def _answer(self, kind: str, text: str) -> ExecResult:
        self._check()
        self.calls.append((kind, text))
        found = self.answers.get(text, self.answers.get("*"))
        if callable(found):
            found = found(text)
        if found is None:
            raise SandboxFault(f"the fake sandbox has no answer to {text!r}")
        return ExecResult(ExecStatus.ok, stdout=found) if isinstance(found, str) else found

    async def write_file(self, path: str, data: bytes) -> None:
        self._check()
        self.files[path] = data

    async def read_file(self, path: str, max_bytes: int = 1 << 20) -> bytes:
        self._check()
        if path not in self.files:
            raise SandboxFileError(f"{path}: no such file")
        if len(self.files[path]) > max_bytes:
            raise SandboxFileError(f"{path}: holds more than {max_bytes} bytes")
        return self.files[path]

    async def snapshot(self) -> bytes:
        self._check()
        return json.dumps({path: data.hex() for path, data in self.files.items()}).encode()

    async def restore(self, snapshot: bytes) -> None:
        self._check()
        self.files = {path: bytes.fromhex(data) for path, data in json.loads(snapshot).items()}

    async def close(self) -> None:
        self.closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check(self) -> None:
        if self.closed:
            raise SandboxFault("the sandbox is closed")


class FakeBackend:
    """Makes fake sandboxes, all with the same `answers`; `made` holds them."""

    capabilities = Capabilities("memory", "none")

    def __init__(self, answers: Mapping[str, Answer] | None = None):
        self._answers = answers
        self.made: list[FakeSandbox] = []

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        self.made.append(FakeSandbox(self._answers, spec.files))
        return self.made[-1]

    async def aclose(self) -> None:
        for sandbox in self.made:
            await sandbox.close()
