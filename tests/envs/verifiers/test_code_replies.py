"""What the halves of a function test may say to the host, which carries their messages, and its verdict on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agentgym.envs.verifiers.code import function
from agentgym.envs.verifiers.code.function import Failed, Half, grade_functions
from agentgym.envs.verifiers.code.report import CodeReport
from agentgym.errors import SandboxFault
from agentgym.execution import ExecResult, ExecStatus
from agentgym.sandboxes.fake import FakeSandbox
from agentgym.types import Outcome


def said(result: ExecResult) -> dict[str, Any]:
    half = Half(FakeSandbox({"*": result}), "#m#", 0.0)
    return asyncio.run(half.send({"do": "answer"}))


OK, FAILED = ExecStatus.ok, ExecStatus.error


def test_the_last_thing_said_counts() -> None:
    assert said(ExecResult(OK, stdout='#m#{"value": 1}\n#m#{"value": 2}\n')) == {"value": 2}


@pytest.mark.parametrize(
    ("result", "outcome", "text"),
    [
        (ExecResult(ExecStatus.timeout), "timeout", "timed out"),
        (ExecResult(OK, stdout="nothing marked"), "error", "ended without an answer"),
        (ExecResult(FAILED, error="MemoryError"), "error", "error: MemoryError"),
        (ExecResult(OK, stdout='#m#{"value": 1}', truncated=True), "error", "more than can be taken"),
        *[
            (ExecResult(OK, stdout=f"#m#{forged}"), "error", "cannot be read")
            for forged in ("{", "[1]", '{"raised": 3}', '{"raised": ["a", 0]}', "[" * 100_000)
        ],
    ],
)
def test_what_it_did_instead_of_answering(result: ExecResult, outcome: str, text: str) -> None:
    with pytest.raises(Failed, match=text) as found:
        said(result)
    assert found.value.outcome is Outcome(outcome)


def test_a_sandbox_that_fails() -> None:
    with pytest.raises(SandboxFault, match="gone"):
        said(ExecResult(ExecStatus.infra_error, error="gone"))
    broken = [FakeSandbox({"*": ExecResult(FAILED, error="no python")}) for _ in range(2)]
    with pytest.raises(SandboxFault, match="could not begin: no python"):
        asyncio.run(grade_functions("", ["assert 1"], "", agent=broken[0], grader=broken[1], timeout=1.0))


@pytest.mark.parametrize(
    "asked", [None, [], {}, {"do": "call"}, {"do": "load", "args": []}, {"do": "run_tests", "args": []}]
)
def test_what_cannot_be_asked(asked: Any) -> None:
    with pytest.raises(Failed, match="cannot be asked"):
        function._question(asked)


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [([], "error"), (["correct"], "correct"), (["correct", "incorrect", "error"], "incorrect"), (["error"], "error")],
)
def test_the_first_that_fails_is_the_outcome(verdicts: Sequence[str], outcome: str) -> None:
    report = function._report({"value": [[verdict, f"told {verdict}"] for verdict in verdicts]}, 3)
    assert (report.outcome, report.passed) == (Outcome(outcome), list(verdicts).count("correct"))
    assert function._report({"raised": ["E", "why"]}, 3) == CodeReport(Outcome.error, 0, 3, ("why",))
