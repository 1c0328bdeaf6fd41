"""Is a program right? Its tests run in a sandbox of their own and never share a process with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from agentgym.envs.verifiers.code.function import grade_functions, grade_pytest
from agentgym.envs.verifiers.code.report import CodeReport
from agentgym.envs.verifiers.code.stdio import grade_stdio
from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.protocols import SandboxBackend
from agentgym.sandboxes import make_backend, shared_backend
from agentgym.tools.driving import checkpoint, drive
from agentgym.types import Outcome

Kind = Literal["function", "stdio", "pytest"]
Tests = str | Sequence[str] | Sequence[Mapping[str, str]]

__all__ = ["CodeReport", "averify_code", "check_code", "verify_code"]

LIMITS = SandboxLimits(output=16 << 20)
_pytest_backend: list[SandboxBackend] = []


def verify_code(
    program: str,
    tests: Tests,
    *,
    kind: Kind = "function",
    timeout: float = 10.0,
    entry_point: str = "",
    backend: str | SandboxBackend = "local",
    limits: SandboxLimits = LIMITS,
    image: str = "",
) -> Outcome:
    """Whether `program` (Python source) passes all of `tests`; true when `Outcome.correct`.

    Args:
        program: what the agent wrote. It runs in a sandbox of its own; the tests and what they expect never go there.
        tests: kind "function": code, or pieces of code each with asserts, that names what the program defines; a
            `check(candidate)` is called with `entry_point` (HumanEval, MBPP). "stdio": {"input", "output"} mappings,
            the program run anew on each. "pytest": a test file that imports from `solution` (pytest is needed here).
        timeout: seconds, for all of function or pytest, for each test of stdio.
        entry_point: what `check` is given; empty: the program's last function.
        backend: a sandbox backend or its name.
        limits: of either sandbox.
        image: of either sandbox, for backends that have images; it needs python3 (and pytest for that kind).

    Returns `Outcome.unscored` where the sandbox failed. Raises `SandboxUnavailable` where there is none, and
    `ValueError` for tests that are none.
    """
    work = check_code(
        program,
        tests,
        kind=kind,
        timeout=timeout,
        entry_point=entry_point,
        backend=backend,
        limits=limits,
        image=image,
    )
    return drive(work).outcome


async def averify_code(program: str, tests: Tests, **options: Any) -> Outcome:
    """`verify_code` for async code."""
    return (await check_code(program, tests, **options)).outcome


async def check_code(
    program: str,
    tests: Tests,
    *,
    kind: Kind = "function",
    timeout: float = 10.0,
    entry_point: str = "",
    backend: str | SandboxBackend = "local",
    limits: SandboxLimits = LIMITS,
    image: str = "",
) -> CodeReport:
    """`verify_code` with what was said of each test."""
    _check(tests, kind, timeout)
    await checkpoint()
    spec = SandboxSpec(limits, image=image)
    source = shared_backend(backend) if isinstance(backend, str) else backend
    try:
        if kind == "stdio":
            async with await source.create(spec) as agent:
                return await grade_stdio(program, _mappings(tests), agent=agent, timeout=timeout)
        pieces = [tests] if isinstance(tests, str) else [str(test) for test in tests]
        tester = _with_pytest(backend) if kind == "pytest" or any("pytest" in piece for piece in pieces) else source
        async with await source.create(spec) as agent, await tester.create(spec) as grader:
            if kind == "pytest":
                return await grade_pytest(program, str(tests), agent=agent, grader=grader, timeout=timeout)
            return await grade_functions(program, pieces, entry_point, agent=agent, grader=grader, timeout=timeout)
    except SandboxUnavailable:
        raise
    except SandboxFault as e:
        return CodeReport(Outcome.unscored, told=(str(e),))


def _with_pytest(backend: str | SandboxBackend) -> SandboxBackend:
    """The local backend keeps a second zygote, in which pytest is imported; others have it in their image."""
    if backend != "local":
        return shared_backend(backend) if isinstance(backend, str) else backend
    if not _pytest_backend:
        _pytest_backend.append(make_backend("local", preload=("pytest",), warm=1))
    return _pytest_backend[0]


def _check(tests: Tests, kind: str, timeout: float) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"verify_code: kind = {kind!r}: must be one of {', '.join(get_args(Kind))}")
    if not 0 < timeout < float("inf"):
        raise ValueError(f"verify_code: timeout = {timeout!r}: must be above 0 seconds")
    if not tests:
        raise ValueError("verify_code: there are no tests")
    if kind == "pytest" and not isinstance(tests, str):
        raise ValueError("verify_code: tests of kind pytest are the text of one file")
    if kind == "stdio":
        _mappings(tests)


def _mappings(tests: Tests) -> list[Mapping[str, str]]:
    found: list[Mapping[str, str]] = []
    for test in [] if isinstance(tests, str) else tests:
        if not isinstance(test, Mapping) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
            break
        found.append(test)
    else:
        if found:
            return found
    raise ValueError('verify_code: tests of kind stdio are mappings {"input": text, "output": text}')
