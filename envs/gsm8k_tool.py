"""`agentgym/GSM8KTool-v0`: grade-school word problems with a calculator."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from agentgym.envs.script import call, say
from agentgym.envs.tasks import TaskSet, split_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.envs.verifiers.number import final_number, read_number
from agentgym.envs.word_problems import word_problems
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

SYSTEM = (
    "Solve the problem. Use the calculator for arithmetic. End your last message with a line '#### ' and the number."
)
_STEP = re.compile(r"<<([^<>=]+)=[^<>]*>>")


class GSM8KToolEnv(ToolEnv):
    """Word problems of a few steps, with a calculator.

    ## Description
    The question is a word problem; the answer is one number. The file format is GSM8K's: a solution text with steps
    such as `<<48/2=24>>` that ends in `#### 72`.

    ## Tools
    `calculator(expression)`: exact arithmetic.

    ## Starting state
    A system message that says how to answer, and the question.

    ## Reward
    `reward`: 1 if the agent's own last message commits to exactly the answer: the number after its last `####`, else
    in its last `\\boxed{}`, else its whole last line. `answered` (a metric): whether there was such a number.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 20 messages.

    ## Tasks
    240 generated problems, a quarter of them held out by hash. `data`: a JSONL file with `question` and `answer`.

    ## Arguments
    demo_mistakes: probability that the `demo` expert answers with a number of the question, without the calculator.

    ## Versions
    v0: first.
    """

    tools = ("calculator",)
    weights = {"answered": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 20

    def __init__(self, *args: Any, demo_mistakes: float = 0.3, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.demo_mistakes = demo_mistakes

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    @classmethod
    def read_row(cls, row: Mapping[str, Any], default_id: str) -> Task:
        """GSM8K's own format: `question`, and `answer` with `#### number` at its end."""
        question, solution = row.get("question"), row.get("answer")
        if not isinstance(question, str):
            raise ValueError("no 'question'")
        if not isinstance(solution, str):
            raise ValueError("no 'answer', a text that ends in '#### number'")
        number = solution.rpartition("####")[2].strip() if "####" in solution else ""
        if read_number(number) is None:
            raise ValueError("the 'answer' does not end in '#### number'")
        task_id = str(row["id"]) if row.get("id") is not None else default_id
        return Task(task_id, question, number, str(row.get("kind") or ""), {"solution": solution})

    def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        number = final_number(answer)
        right = number is not None and number == read_number(str(task.answer))
        return {"reward": float(right), "answered": float(number is not None)}

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """Calculates each `<<step>>` of the solution, then answers; `demo` sometimes jumps to a wrong answer."""
        steps = _STEP.findall(str(task.metadata.get("solution", "")))
        jumps = style == "demo" and random.Random(seed).random() < self.demo_mistakes

        def policy(conversation: Sequence[Message]) -> Message:
            spoken = sum(message.role == "assistant" for message in conversation)
            if jumps:
                return say(f"#### {_first_number(task)}")
            if spoken < min(len(steps), self.max_turns - 1):
                return call("calculator", f"call_{spoken}", expression=steps[spoken].strip())
            return say(f"#### {task.answer}")

        return policy


def _first_number(task: Task) -> str:
    """A number of the question that is not its answer."""
    found = re.findall(r"[0-9]+", str(task.prompt))
    return next((number for number in found if read_number(number) != read_number(str(task.answer))), "0")


@cache
def generate(split: str) -> TaskSet:
    """The generated problems of a split."""
    rows = [GSM8KToolEnv.read_row(row, str(i)) for i, row in enumerate(word_problems(240))]
    return split_tasks(rows, split, 0.25)
