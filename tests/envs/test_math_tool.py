"""MathTool-v0: answers are compared as mathematics; the usual data files are read; a hopeless one is told at load."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.math_tool import MathToolEnv
from agentgym.envs.script import say
from agentgym.errors import DataError, EpisodeFault
from agentgym.tools.driving import drive
from agentgym.types import Outcome, Task

DATA = Path(os.environ.get("AGENTGYM_DATA") or Path(__file__).parents[3] / "shared" / "data")


def scored(task: Task, answer: str) -> Any:
    env = MathToolEnv(tasks=[task])
    drive(env.areset(seed=0))
    return drive(env.astep(say(answer)))


@pytest.mark.parametrize(
    ("answer", "reward", "answered"),
    [
        ("So it is \\boxed{\\frac{1}{2}}.", 1, 1),
        ("\\boxed{0.5}", 1, 1),
        ("#### 1/2", 1, 1),
        ("\\boxed{2}", 0, 1),
        ("1/2", 0, 0),
        ("\\boxed{1/2} or \\boxed{1/3}", 0, 1),
        ("", 0, 0),
    ],
)
def test_only_the_final_answer_is_scored(answer: str, reward: float, answered: float) -> None:
    step = scored(Task("0", "What is half?", "\\frac{1}{2}"), answer)
    assert step.components == {"reward": reward, "answered": answered}


def test_an_answer_that_cannot_be_compared_leaves_the_episode_unscored() -> None:
    with pytest.raises(EpisodeFault, match="of task '0' could not be compared with"):
        scored(Task("0", "?", ""), "\\boxed{1}")


def test_every_generated_answer_is_its_own_and_no_other() -> None:
    tasks = [*MathToolEnv().tasks("train"), *MathToolEnv().tasks("test")]
    assert len(tasks) == 300
    assert {task.kind for task in tasks} == {"fraction", "surd", "roots", "point", "polynomial"}
    for task in tasks[:: len(tasks) // 8]:
        assert scored(task, f"\\boxed{{{task.answer}}}").outcome is Outcome.correct
        assert scored(task, "\\boxed{17}").outcome is Outcome.incorrect


def test_the_expert_finds_it_with_python() -> None:
    env = MathToolEnv()
    start = drive(env.areset(seed=0, options={"index": 0}))
    policy = env.expert(start.task, 0)
    messages = list(start.messages)
    step = env_step = None
    while step is None or not step.done:
        message = policy(messages)
        step = env_step = env._drive(env.astep(message))
        messages += [message, *step.messages]
    assert env_step is not None
    assert env_step.outcome is Outcome.correct
    env.close()


ROWS = [
    {"problem": "p", "solution": "so \\boxed{\\frac{2}{3}}"},
    {"question": "p", "answer": "2/3 = 2/3\n#### 2/3", "id": "g"},
    {"prompt": "p", "answer": ["$\\frac{2}{3}$"]},
    {"problem": "p", "answer": 7, "subject": "Algebra"},
]


def test_the_usual_rows_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    tasks = [*MathToolEnv(data=str(tmp_path / "t.jsonl"), holdout=0).tasks()]
    assert [task.answer for task in tasks] == ["\\frac{2}{3}", "2/3", "$\\frac{2}{3}$", "7"]
    assert [task.id for task in tasks] == ["0", "g", "2", "3"]
    assert tasks[3].kind == "Algebra"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"answer": "1"}, "no text in 'problem', 'question'"),
        ({"problem": "p"}, "no 'answer', and no 'solution' that ends in"),
        ({"problem": "p", "answer": " "}, "no 'answer'"),
        ({"problem": "p", "answer": "\\frac{1}{"}, "the answer '\\\\frac{1}{' is no number"),
    ],
)
def test_a_hopeless_row_is_told_with_file_and_line(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(row))
    with pytest.raises(DataError) as raised:
        MathToolEnv(data=str(path)).tasks()
    assert f"{path}:2" in str(raised.value)
    assert told in str(raised.value)


@pytest.mark.parametrize("name", ["aime24.jsonl", "aime25.jsonl", "amc23.jsonl"])
def test_real_files_load(name: str) -> None:
    path = DATA / "math" / name
    if not path.exists():
        pytest.skip(f"no benchmark data: {path} (set AGENTGYM_DATA)")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(MathToolEnv(data=str(path), holdout=0).tasks()) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["math500_test.jsonl", "math_test_5000.jsonl.gz"])
def test_real_formulas_load(name: str, tmp_path: Path) -> None:
    path = DATA / "math" / name
    if not path.exists():
        pytest.skip(f"no benchmark data: {path} (set AGENTGYM_DATA)")
    raw = path.read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(gzip.decompress(raw) if name.endswith(".gz") else raw)
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert len(MathToolEnv(data=str(tmp_path / "rows.jsonl"), holdout=0).tasks()) == len(rows)
