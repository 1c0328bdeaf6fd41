"""Programs that read stdin and write stdout: each test is a process of its own, its output compared on the host."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from agentgym.envs.verifiers.code.report import CodeReport
from agentgym.errors import SandboxFault
from agentgym.execution import ExecResult, ExecStatus
from agentgym.protocols import Sandbox
from agentgym.types import Outcome

SHOWN = 300
TOLERANCE = 1e-6
"""Relative and absolute, of numbers that are written with a decimal point."""


async def grade_stdio(
    program: str, tests: Sequence[Mapping[str, str]], *, agent: Sandbox, timeout: float
) -> CodeReport:
    """`tests`: {"input", "output"} each; `timeout` seconds for each. Stops at the first that fails."""
    await agent.write_file("solution.py", program.encode(errors="replace"))
    told: list[str] = []
    for test in tests:
        await agent.write_file("input.txt", test["input"].encode())
        done = await agent.shell("exec python3 solution.py < input.txt", timeout=timeout)
        outcome, text = _verdict(done, test)
        told.append(text)
        if outcome is not Outcome.correct:
            return CodeReport(outcome, len(told) - 1, len(tests), tuple(told))
    return CodeReport(Outcome.correct if tests else Outcome.error, len(told), len(tests), tuple(told))


def _verdict(done: ExecResult, test: Mapping[str, str]) -> tuple[Outcome, str]:
    if done.status is ExecStatus.infra_error:
        raise SandboxFault(f"the sandbox failed: {done.error}")
    if done.status is ExecStatus.timeout:
        return Outcome.timeout, f"timed out on input {test['input'][:SHOWN]!r}"
    if not done.ok:
        last = done.stderr.strip().splitlines()[-1:] or [done.error or str(done.status)]
        return Outcome.error, f"{last[0][:SHOWN]} on input {test['input'][:SHOWN]!r}"
    if not same_output(done.stdout, test["output"]):
        said = f"wrote {done.stdout[:SHOWN]!r} on input {test['input'][:SHOWN]!r}"
        return Outcome.incorrect, said
    return Outcome.correct, ""


def same_output(got: str, expected: str) -> bool:
    """Line by line without spaces at the ends and empty lines at the end; numbers with a point within a tolerance."""
    ours, gold = ([line.split() for line in text.rstrip().splitlines()] for text in (got, expected))
    return len(ours) == len(gold) and all(
        len(a) == len(b) and all(map(_same_word, a, b)) for a, b in zip(ours, gold, strict=True)
    )


def _same_word(got: str, expected: str) -> bool:
    if got == expected:
        return True
    if "." not in expected:
        return False
    try:
        return math.isclose(float(got), float(expected), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except ValueError:
        return False
