"""Tasks from files: what is read, what is refused, what is held out."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.tasks import as_tasks, held_out, load_split, load_tasks, question, split_tasks, task_from_row
from agentgym.errors import DataError
from agentgym.types import Task


def write(path: Path, *lines: Any) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def test_rows(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U?"}]
    path = write(
        tmp_path / "t.jsonl",
        {"question": "Q?", "answer": 3, "level": 2},
        "",
        {"prompt": "P?", "answer": "x", "id": "mine", "kind": "hard"},
        {"messages": chat, "answer": None},
    )
    one, two, three = load_tasks(path)
    assert (one.id, one.prompt, one.answer, one.metadata) == ("0", "Q?", 3, {"level": 2})
    assert (two.id, two.kind) == ("mine", "hard")
    assert question(three) == "U?"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"question": "Q?", ', "not valid JSON"),
        ("[1]", "expected a JSON object, got list"),
        ({"question": "Q?"}, "no 'answer'"),
        ({"answer": 1}, "no 'question', 'prompt' or 'messages'"),
        ({"messages": [], "answer": 1}, "'messages': expected text or a list"),
        ({"messages": [{"role": "robot"}], "answer": 1}, r"messages\[0\]: role: expected"),
        ({"messages": [3], "answer": 1}, r"messages\[0\]: expected an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, text: str) -> None:
    path = write(tmp_path / "bad.jsonl", {"question": "Q?", "answer": 1}, line)
    with pytest.raises(DataError, match=text) as caught:
        load_tasks(path)
    assert str(caught.value).startswith(f"{path}:2: ")


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot read the tasks"):
        load_tasks(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(DataError, match="cannot read the tasks"):
        load_tasks(str(tmp_path))
    with pytest.raises(DataError, match="no tasks in it"):
        load_tasks(write(tmp_path / "empty.jsonl", ""))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"binary.jsonl:1: not valid JSON"):
        load_tasks(str(tmp_path / "binary.jsonl"))
    with pytest.raises(DataError, match="two tasks have the id 'a'"):
        load_tasks(write(tmp_path / "twice.jsonl", *[{"question": "Q?", "answer": 1, "id": "a"}] * 2))


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"question": "Q?", "answer": 1})
    assert load_tasks(path) is load_tasks(path)
    write(tmp_path / "t.jsonl", {"question": "Q?", "answer": 1}, {"question": "R?", "answer": 1})
    assert len(load_tasks(path)) == 2


def test_the_split_follows_the_question_alone(tmp_path: Path) -> None:
    tasks = [Task(str(i), f"question {i}") for i in range(4000)]
    train, test = split_tasks(tasks, "train", 0.125), split_tasks(tasks, "test", 0.125)
    assert len(train) + len(test) == 4000
    assert len(test) / 4000 == pytest.approx(0.125, abs=0.02)
    assert not {t.prompt for t in train} & {t.prompt for t in test}
    assert {t.prompt for t in split_tasks(tasks[1000:], "test", 0.125)} <= {t.prompt for t in test}
    assert len(split_tasks(tasks, "train", 0)) == len(split_tasks(tasks, "test", 0)) == 4000
    assert held_out("a question", 1.0)
    path = write(tmp_path / "t.jsonl", *[{"question": f"question {i}", "answer": 1} for i in range(100)])
    both = [load_split(path, task_from_row, split, 0.125) for split in ("train", "test")]
    assert [t.prompt for t in both[1]] == [t.prompt for t in test if int(t.id) < 100]


def test_a_rows_own_split_wins_and_small_sets_are_both() -> None:
    rows = [{"question": f"q{i}", "answer": 1, "split": "test" if i < 2 else "train"} for i in range(10)]
    assert [t.id for t in split_tasks(as_tasks(rows), "test", 0.125)] == ["0", "1"]
    few = as_tasks([("q1?", 1), ("q2?", 2)])
    assert len(split_tasks(few, "train", 1e-9)) == len(split_tasks(few, "test", 1e-9)) == 2


def test_items_that_are_no_tasks() -> None:
    with pytest.raises(DataError, match=r"tasks\[1\]: expected a Task"):
        as_tasks([("q?", 1), 3])
    with pytest.raises(DataError, match=r"tasks\[0\]: no 'answer'"):
        as_tasks([{"question": "q?"}])
