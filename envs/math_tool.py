"""`agentgym/MathTool-v0`: mathematics whose answers are formulas, with Python, and a verifier that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from agentgym.envs.math_problems import math_problems
from agentgym.envs.script import call, say
from agentgym.envs.tasks import TaskSet, split_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.envs.verifiers.math import averify_math, check_gold
from agentgym.envs.verifiers.math.extract import extract
from agentgym.errors import VerifierFault
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.types import Message, Outcome, Task

SYSTEM = "Solve the problem; Python may help. End with the answer in \\boxed{}."
QUESTIONS = ("problem", "question", "prompt", "input")
ANSWERS = ("answer", "final_answer", "target")
SOLUTIONS = ("solution", "output")


class MathToolEnv(ToolEnv):
    """Problems of mathematics, answered by a number, a formula, a set or a point, with the help of Python.

    ## Description
    The answer is compared as mathematics: `\\frac{1}{2}`, `0.5` and `1/2` are one. The `python` tool runs code in a
    sandbox of the episode's own, where variables live on between calls.

    ## Kinds
    `fraction`, `surd`, `roots`, `point`, `polynomial`. With `data=`: as the file says (`kind`, `subject` or `type`).

    ## Tools
    `python(code)`: what the code printed, and the value of its last expression.

    ## Starting state
    A system message that says how to answer, and the problem.

    ## Reward
    `reward`: 1 if the last complete `\\boxed{}` of the agent's own last message (else what follows its last `####`)
    equals the answer: `verify_math(..., extract="strict")`. `answered` (a metric): whether there was a value.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 12 messages.

    ## Tasks
    300 generated problems, a quarter of them held out by hash. `data`: rows of MATH, AIME, AMC, GSM8K and their like:
    the text in `problem` or `question`; the answer in `answer`, or at the end of a `solution` (in its last box, or
    after `####`). An answer that the verifier cannot read is told at load, with its file and row.

    ## Arguments
    sandbox: settings of the sandbox, such as `{"backend": "docker", "timeout": 5}`.

    ## Versions
    v0: first.
    """

    tools = ("python",)
    weights = {"answered": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 12
    sandbox = {"timeout": 10.0}  # noqa: RUF012 - read-only

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    @classmethod
    def read_row(cls, row: Mapping[str, Any], default_id: str) -> Task:
        question = next((row[name] for name in QUESTIONS if isinstance(row.get(name), str)), None)
        if question is None:
            raise ValueError(f"no text in {', '.join(map(repr, QUESTIONS))}")
        gold = _gold(row)
        if wrong := check_gold(gold):
            raise ValueError(wrong)
        task_id = str(row["id"]) if row.get("id") is not None else default_id
        kind = row.get("kind") or row.get("subject") or row.get("type") or ""
        return Task(task_id, question, gold, str(kind), {"solution": row.get("solution")})

    async def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        outcome = await averify_math(task.answer, answer, extract="strict")
        if outcome is Outcome.error:
            raise VerifierFault(f"the answer {task.answer!r} of task {task.id!r} could not be compared with")
        return {"reward": float(bool(outcome)), "answered": float(outcome is not Outcome.unparsable)}

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """Runs the task's code where it has some, then gives the answer."""
        code = str(task.metadata.get("code") or "")

        def policy(conversation: Sequence[Message]) -> Message:
            if code and conversation[-1].role != "tool":
                return call("python", code=code)
            return say(f"The answer is \\boxed{{{task.answer}}}.")

        return policy


def _gold(row: Mapping[str, Any]) -> str:
    """The answer of a row: what is given as one, or what its solution ends in."""
    for name in (*ANSWERS, *SOLUTIONS):
        value = row.get(name)
        if isinstance(value, list):  # several values are one answer
            value = ", ".join(map(str, value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and (found := extract(value, "strict")) is not None:
            return found.text
        if isinstance(value, str) and value.strip() and name in ANSWERS:
            return value.strip()
    raise ValueError("no 'answer', and no 'solution' that ends in \\boxed{} or after '####'")


@cache
def generate(split: str) -> TaskSet:
    """The generated problems of a split."""
    tasks = [
        Task(str(i), text, gold, kind, {"code": code}) for i, (kind, text, gold, code) in enumerate(math_problems())
    ]
    return split_tasks(tasks, split, 0.25)
