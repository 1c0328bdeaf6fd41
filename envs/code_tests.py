"""`agentgym/CodeTests-v0`: write a program, try it, mend it, hand it in; hidden tests decide."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from agentgym.envs.code_problems import code_problems
from agentgym.envs.script import call, say
from agentgym.envs.tasks import TaskSet, split_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.envs.verifiers.code import CodeReport, check_code
from agentgym.envs.verifiers.code.rows import CodeProblem, read_problem
from agentgym.errors import VerifierFault
from agentgym.protocols import Policy
from agentgym.tools.decorator import ToolFailed, tool
from agentgym.tools.episode import Episode
from agentgym.types import Message, Outcome, Task

SYSTEM = (
    "Write the Python program that is asked for. Try code with python, check it with run_tests where there is a test "
    "to see. Your last message hands it in: the whole program in one ```python block."
)
_BLOCK = re.compile(r"```[a-zA-Z0-9_+-]*[ \t]*\r?\n(.*?)```", re.DOTALL)


def handed_in(answer: str) -> str:
    """The program in a message: its last fenced block, else all of it."""
    blocks = _BLOCK.findall(answer)
    return blocks[-1] if blocks else answer


async def graded(episode: Episode, program: str, tests: Sequence[Any], timeout: float) -> CodeReport:
    """Check a program of the episode's task, in sandboxes of its own."""
    problem: CodeProblem = episode.task.metadata["problem"]
    return await check_code(
        program,
        tests,
        kind=problem.kind,
        entry_point=problem.entry_point,
        timeout=timeout,
        backend=episode.sandbox_settings.get("backend", "local"),
        image=episode.sandbox_settings.get("image", ""),
    )


@tool
async def run_tests(code: str, episode: Episode) -> str:
    """Check a program against the tests that you may see.

    Args:
        code: the whole program
    """
    problem: CodeProblem = episode.task.metadata["problem"]
    if not problem.shown:
        raise ToolFailed("error: there is no test to see here; hand in what you have tried with python")
    report = await graded(episode, code, [problem.shown], episode.state["test_timeout"])
    if report.outcome is Outcome.unscored:
        raise VerifierFault(report.detail)
    if not report.outcome:
        raise ToolFailed(f"failed: {report.detail}")
    return "passed"


class CodeTestsEnv(ToolEnv):
    """Programs that hidden tests decide on.

    ## Description
    A problem in words. The agent may run code in its sandbox, check a program against a test that it may see, and
    hands a program in with its last message. The hidden tests run in a sandbox apart from the program's.

    ## Tools
    `python(code)`: an interpreter whose variables live on. `run_tests(code)`: "passed", or what went wrong.

    ## Starting state
    A system message that says how to hand in, and the problem.

    ## Reward
    `reward`: 1 if the program handed in (the last ``` block of the agent's own last message) passes every hidden
    test. `passed` (a metric): the share of the tests that it passed.

    ## Episode end
    Terminated by a message without calls (or 3 malformed messages in a row), truncated after `max_turns` = 12.

    ## Tasks
    240 generated problems, a quarter of them held out by hash. `data`: a JSONL file with rows of HumanEval, MBPP or
    MBPP+, or of stdin/stdout tests: a prompt and `tests`, a list of {"input", "output"}.

    ## Arguments
    sandbox: settings of the sandbox, such as `{"backend": "docker"}`. test_timeout: seconds of a check.

    ## Versions
    v0: first.
    """

    tools = ("python", run_tests)
    weights = {"passed": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 12
    sandbox = {"timeout": 10.0}  # noqa: RUF012 - read-only

    def __init__(self, *args: Any, test_timeout: float = 10.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.test_timeout = test_timeout

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    @classmethod
    def read_row(cls, row: Mapping[str, Any], default_id: str) -> Task:
        return as_task(read_problem(row, default_id), str(row.get("kind") or ""))

    def setup(self, episode: Episode) -> None:
        episode.state = {"test_timeout": self.test_timeout}

    async def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        if not answer.strip():
            return {"reward": 0.0, "passed": 0.0}
        problem: CodeProblem = task.metadata["problem"]
        report = await graded(episode, handed_in(answer), problem.tests, self.test_timeout)
        if report.outcome is Outcome.unscored:
            raise VerifierFault(report.detail)
        return {"reward": float(bool(report.outcome)), "passed": report.passed / max(1, report.total)}

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy | None:
        """Checks the solution where there is a test to see, then hands it in; None without a solution."""
        problem: CodeProblem = task.metadata["problem"]
        if not problem.solution:
            return None

        def policy(conversation: Sequence[Message]) -> Message:
            if problem.shown and conversation[-1].role != "tool":
                return call("run_tests", code=problem.solution)
            return say(f"```python\n{problem.solution}\n```")

        return policy


def as_task(problem: CodeProblem, kind: str) -> Task:
    return Task(problem.id, problem.prompt, None, kind, {"problem": problem})


@cache
def generate(split: str) -> TaskSet:
    """The generated problems of a split."""
    return split_tasks([as_task(problem, kind) for kind, problem in code_problems(240)], split, 0.25)
