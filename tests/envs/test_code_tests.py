"""CodeTests-v0 and PythonMath-v0: what is handed in, what may be seen, what is learnt from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.envs.code_tests import handed_in
from agentgym.envs.script import call
from agentgym.errors import DataError, EpisodeFault
from agentgym.tools.driving import drive
from agentgym.types import Message, Outcome

STDIO = {"id": "s", "question": "Double it.", "tests": [{"input": "2", "output": "4"}, {"input": "5", "output": "10"}]}
MBPP = {"task_id": 7, "text": "Add one.", "test_list": ["assert f(1) == 2", "assert f(2) == 3"]}


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("x = 1", "x = 1"),
        ("Here:\n```python\nx = 1\n```\nor\n```py\nx = 2\n```", "x = 2\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("``` x", "``` x"),
    ],
)
def test_the_last_block_is_handed_in(answer: str, program: str) -> None:
    assert handed_in(answer) == program


def say_all(env: Any, *messages: Message) -> Any:
    for message in messages:
        step = drive(env.astep(message))
    return step


def write(tmp_path: Path, *rows: Any) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_write_try_mend_hand_in(tmp_path: Path) -> None:
    env = agentgym.make_env("agentgym/CodeTests-v0", data=write(tmp_path, MBPP))
    start = drive(env.areset(seed=0))
    assert "assert f(1) == 2" in start.messages[-1].text
    assert "assert f(2)" not in start.messages[-1].text
    tried = say_all(env, call("run_tests", "c", code="def f(x): return x"))
    assert tried.messages[0].text == "failed: AssertionError at: assert f(1) == 2"
    tried = say_all(env, call("run_tests", "d", code="def f(x): return 2"))
    assert tried.messages[0].text == "passed"
    end = say_all(env, Message("assistant", "```python\ndef f(x): return 2\n```"))
    assert (end.reward, end.components["passed"], end.outcome) == (0.0, 0.5, Outcome.incorrect)
    drive(env.areset(seed=0))
    assert say_all(env, Message("assistant", "```python\ndef f(x): return x + 1\n```")).outcome is Outcome.correct
    drive(env.areset(seed=0))
    assert say_all(env, Message("assistant", "")).reward == 0.0


def test_programs_of_stdin_and_stdout(tmp_path: Path) -> None:
    env = agentgym.make_env("agentgym/CodeTests-v0", data=write(tmp_path, STDIO))
    drive(env.areset(seed=0))
    unseen = say_all(env, call("run_tests", code="1"))
    assert "no test to see" in unseen.messages[0].text
    assert say_all(env, Message("assistant", "```python\nprint(int(input()) * 2)\n```")).reward == 1.0


def test_a_row_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:2: .*test_list must be"):
        agentgym.make_env("agentgym/CodeTests-v0", data=write(tmp_path, MBPP, {"text": "a", "test_list": 1})).tasks()


def test_a_sandbox_that_is_down_leaves_the_episode_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    env = agentgym.make_env("agentgym/CodeTests-v0", args={"sandbox": {"backend": "fake"}})
    drive(env.areset(seed=0, options={"index": 0}))
    with pytest.raises(EpisodeFault):
        say_all(env, Message("assistant", "x = 1"))


def test_math_demonstrations_give_up_and_the_gold_ones_do_not(play: Callable[..., Any]) -> None:
    env = agentgym.make_env("agentgym/PythonMath-v0")
    for index in range(12):
        start, step, messages = play(env, "gold", seed=index, index=index)
        assert step.outcome is Outcome.correct
        errors = sum("NameError" in message.text for message in messages)
        assert errors == (start.task.kind != "product")
        assert ("after_error" in step.tags) == bool(errors)
    shown = [play(env, "demo", seed=seed, index=seed)[1].outcome for seed in range(40)]
    assert 0 < sum(map(bool, shown)) < 20
