"""`agentgym/PythonMath-v0`: questions with one number as their answer, and a Python interpreter to find it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import comb, gcd
from typing import Any

from agentgym.envs.gsm8k_tool import GSM8KToolEnv
from agentgym.envs.script import call, say
from agentgym.envs.tasks import TaskSet, held_out
from agentgym.envs.tool_env import ToolEnv
from agentgym.envs.verifiers.number import final_number, read_number
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

SYSTEM = "Use Python. End with a line '#### ' and the number."
SIZES = {"train": 6_000, "test": 1_200}
HOLDOUT = 1 / 6
WRONG = "#### 0"


class PythonMathEnv(ToolEnv):
    """Math questions, answered with the help of a Python sandbox.

    ## Description
    One number answers each question, too large to guess. The `python` tool runs code in a sandbox of the episode's
    own, where variables live on between calls; a wrong call is answered with Python's own error.

    ## Kinds
    `product`: "What is 37*41+12?". `gcd`: "What is the greatest common divisor of 84 and 36?" (`math` has to be
    imported first). `choose`: "In how many ways can 4 of 11 be chosen?". With `data=`: as the file says.

    ## Tools
    `python(code)`: what the code printed, and the value of its last expression.

    ## Starting state
    A system message that says how to answer, and the question.

    ## Reward
    `reward`: 1 if the agent's own last message commits to exactly the answer: the number after its last `####`, else
    in its last `\\boxed{}`, else its whole last line. `answered` (a metric): whether there was such a number. Tag
    `after_error`: a call of this episode failed.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 8 messages.

    ## Tasks
    6,000 generated train tasks and 1,200 test tasks, held out by hash; task i is of kind i % 3. `data`: a JSONL file
    in GSM8K's format, `question` and an `answer` that ends in `#### number`.

    ## Arguments
    sandbox: settings of the sandbox, such as `{"backend": "docker", "timeout": 5}`.
    demo_mistakes: probability that the `demo` expert answers "#### 0" straight away.
    demo_retry: probability that it imports what was missing after an error; else it answers "#### 0".

    ## Versions
    v0: first.
    """

    tools = ("python",)
    weights = {"answered": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 8
    sandbox = {"timeout": 5.0}  # noqa: RUF012 - read-only

    def __init__(self, *args: Any, demo_mistakes: float = 0.5, demo_retry: float = 0.3, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.demo_mistakes = demo_mistakes
        self.demo_retry = demo_retry

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    @classmethod
    def read_row(cls, row: Mapping[str, Any], default_id: str) -> Task:
        return GSM8KToolEnv.read_row(row, default_id)

    def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        if any(result.error for result in episode.calls):
            episode.tag("after_error")
        number = final_number(answer)
        right = number is not None and number == read_number(str(task.answer))
        return {"reward": float(right), "answered": float(number is not None)}

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """Runs the task's code, imports what it lacked, answers; `demo` gives up early and after most errors."""
        code = str(task.metadata.get("code", ""))
        rng = random.Random(seed)
        jumps = style == "demo" and rng.random() < self.demo_mistakes
        tries = style != "demo" or rng.random() < self.demo_retry

        def policy(conversation: Sequence[Message]) -> Message:
            spoken = sum(message.role == "assistant" for message in conversation)
            last = conversation[-1]
            if not code:
                return say(f"#### {task.answer}")
            if not spoken:
                return say(WRONG) if jumps else call("python", "call_0", code=code)
            if "NameError" in last.text:
                return call("python", f"call_{spoken}", code=f"import math\n{code}") if tries else say(WRONG)
            return say(f"#### {last.text}")

        return policy


def _product(rng: random.Random) -> tuple[str, str, int]:
    a, b, c = rng.randrange(11, 100), rng.randrange(11, 100), rng.randrange(11, 100)
    return f"What is {a}*{b}+{c}?", f"{a}*{b}+{c}", a * b + c


def _gcd(rng: random.Random) -> tuple[str, str, int]:
    common = rng.randrange(11, 50)
    a, b = common * rng.randrange(2, 20), common * rng.randrange(2, 20)
    return f"What is the greatest common divisor of {a} and {b}?", f"math.gcd({a}, {b})", gcd(a, b)


def _choose(rng: random.Random) -> tuple[str, str, int]:
    n = rng.randrange(8, 40)
    k = rng.randrange(3, n - 2)
    return f"In how many ways can {k} of {n} be chosen?", f"math.comb({n}, {k})", comb(n, k)


Draw = Callable[[random.Random], tuple[str, str, int]]
KINDS: dict[str, Draw] = {"product": _product, "gcd": _gcd, "choose": _choose}


@lru_cache(maxsize=len(SIZES))
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 3, each split by the question's hash."""
    kinds = {kind: _questions(kind, split) for kind in KINDS}
    names = list(KINDS)
    made = []
    for i in range(SIZES[split]):
        kind = names[i % len(names)]
        question, code, answer = next(kinds[kind])
        made.append(Task(f"{split}-{i}", question, str(answer), kind, {"code": code}))
    return TaskSet(made)


def _questions(kind: str, split: str) -> Iterator[tuple[str, str, int]]:
    rng = random.Random(f"PythonMath-v0 {kind}")
    while True:  # a question may come again within its split: there are fewer of `choose` than tasks
        drawn = KINDS[kind](rng)
        if held_out(drawn[0], HOLDOUT) == (split == "test"):
            yield drawn
