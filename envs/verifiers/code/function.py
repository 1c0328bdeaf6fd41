"""Function tests and pytest files: the program in one sandbox, its tests in another, calls carried between them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agentgym.envs.verifiers.code.report import CodeReport
from agentgym.errors import SandboxFault
from agentgym.execution import ExecStatus
from agentgym.protocols import Sandbox
from agentgym.types import Outcome

MODULE = "solution"
BOOT_SECONDS = 30.0
LONG = 500_000
"""Characters of a message beyond which it goes by a file: code has a limit."""
OPERATIONS = frozenset(
    ("call", "operation", "equal", "plain", "hash", "repr", "attribute", "set_attribute", "delete_attribute")
)

ANSWERS = ("value", "raised", "error", "made_of", "changed")


class Failed(Exception):
    """The program ended the grading, by a fault of its own."""

    def __init__(self, outcome: Outcome, told: str):
        super().__init__(told)
        self.outcome = outcome


@dataclass(slots=True)
class Half:
    """One sandbox with a peer in it."""

    sandbox: Sandbox
    mark: str
    deadline: float

    async def boot(self, *sources: str, peer: str) -> None:
        done = await self.sandbox.exec(f"{_loading(*sources)}_peer = m.{peer}({self.mark!r})", timeout=BOOT_SECONDS)
        if not done.ok:
            raise SandboxFault(f"grading could not begin: {done.error or done.status}")

    async def send(self, message: dict[str, Any]) -> dict[str, Any]:
        """Hand a message over and wait for the next; raises `Failed` for what the code did instead of answering."""
        text, timeout = json.dumps(message), max(0.01, self.deadline - time.monotonic())
        if len(text) > LONG:
            path = f"/tmp/{self.mark}"
            await self.sandbox.write_file(path, text.encode())
            done = await self.sandbox.exec(f"_peer.handle(open({path!r}).read())", timeout=timeout)
        else:
            done = await self.sandbox.exec(f"_peer.handle({text!r})", timeout=timeout)
        if done.status is ExecStatus.infra_error:
            raise SandboxFault(f"the sandbox failed: {done.error}")
        if done.status is ExecStatus.timeout:
            raise Failed(Outcome.timeout, "timed out")
        _, mark, after = done.stdout.rpartition(self.mark)
        if not mark or done.truncated:
            said = "answered more than can be taken" if done.truncated else done.error or "ended without an answer"
            raise Failed(Outcome.error, f"{done.status}: {said}" if not done.ok else said)
        return _parsed(after)


def _parsed(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise Failed(Outcome.error, "answered what cannot be read") from None
    if not isinstance(event, dict):
        raise Failed(Outcome.error, "answered what cannot be read")
    if "raised" in event:
        match event["raised"]:
            case [str(), str()]:
                pass
            case _:
                raise Failed(Outcome.error, "answered what cannot be read")
    return event


async def grade_functions(
    program: str, tests: Sequence[str], entry_point: str, *, agent: Sandbox, grader: Sandbox, timeout: float
) -> CodeReport:
    """`tests`: pieces of code, each of which passes by not raising; a `check(candidate)` that one defines is called."""
    return await _grade(program, {"do": "run_tests", "args": [list(tests), entry_point]}, agent, grader, timeout)


async def grade_pytest(program: str, test: str, *, agent: Sandbox, grader: Sandbox, timeout: float) -> CodeReport:
    """`test`: a file that imports from `solution`."""
    return await _grade(program, {"do": "run_pytest", "args": [test]}, agent, grader, timeout)


async def _grade(program: str, tests: dict[str, Any], agent: Sandbox, grader: Sandbox, timeout: float) -> CodeReport:
    total = len(tests["args"][0]) if tests["do"] == "run_tests" else 1
    deadline = time.monotonic() + BOOT_SECONDS
    left, right = (Half(box, f"#{secrets.token_hex(12)}#", deadline) for box in (agent, grader))
    await left.boot("remote", "values", "peer", peer="Peer")
    await right.boot("remote", "values", "peer", "grading", peer="Grader")
    left.deadline = right.deadline = time.monotonic() + timeout
    try:
        loaded = await left.send({"do": "load", "args": [program, MODULE]})
        if "raised" in loaded:
            raise Failed(Outcome.error, f"the program does not load: {': '.join(loaded['raised'][:2])}")
        named = await right.send({"do": "take_names", "raw": [loaded.get("names"), MODULE]})
        if "raised" in named:
            raise Failed(Outcome.error, f"the program's names cannot be used: {named['raised'][1]}")
        found = await _drive(right, left, await right.send(tests))
    except Failed as e:
        return CodeReport(e.outcome, 0, total, (str(e),))
    return _report(found, total)


async def _drive(asking: Half, asked: Half, event: dict[str, Any]) -> dict[str, Any]:
    """Carry questions and answers between the halves until the asking one has its own answer."""
    while "ask" in event:
        answer = await _drive(asked, asking, await asked.send(_question(event["ask"])))
        kept: dict[str, Any] = {name: answer[name] for name in ANSWERS if name in answer}
        event = await asking.send({"do": "answer", **kept})
    return event


def _question(given: Any) -> dict[str, Any]:
    """What one half may ask of the other's objects: nothing that runs code of its own there."""
    if not isinstance(given, dict) or given.get("do") not in OPERATIONS or not isinstance(given.get("args"), list):
        raise Failed(Outcome.error, "asked what cannot be asked")
    match given.get("target"):
        case {"r": int(), **rest} if not rest:
            pass
        case _:
            raise Failed(Outcome.error, "asked what cannot be asked")
    return {name: given.get(name) for name in ("do", "target", "args")}


def _report(found: dict[str, Any], total: int) -> CodeReport:
    if "raised" in found:
        return CodeReport(Outcome.error, 0, total, (found["raised"][1],))
    verdicts = [(str(verdict), str(told)) for verdict, told in found["value"]]
    passed = sum(verdict == "correct" for verdict, _ in verdicts)
    failed = [verdict for verdict, _ in verdicts if verdict != "correct"]
    outcome = Outcome.correct if not failed and verdicts else Outcome(failed[0] if failed else "error")
    return CodeReport(outcome, passed, total, tuple(told for _, told in verdicts))


@cache
def _loading(*names: str) -> str:
    """Code that makes modules of files beside this one; the last of them stays at hand as `m`."""
    files = [(name, (Path(__file__).parent / f"{name}.py").read_text()) for name in names]
    return "import sys, types\n" + "".join(
        f"m = types.ModuleType({name!r}); sys.modules[{name!r}] = m; exec({text!r}, m.__dict__)\n"
        for name, text in files
    )
