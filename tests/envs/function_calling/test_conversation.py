"""BFCL's conversations: turns, held-back functions, and the comparison of states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.function_calling.env import FunctionCallingEnv
from agentgym.envs.script import call, say
from agentgym.errors import DataError
from agentgym.protocols import Step
from agentgym.tools.driving import drive
from agentgym.types import Message

Write = Callable[..., Path]
TEXT: Mapping[str, Any] = {"type": "string"}


def doc(name: str, *required: str, **optional: Any) -> dict[str, Any]:
    properties = {**dict.fromkeys(required, TEXT), **optional}
    parameters = {"type": "dict", "properties": properties, "required": list(required)}
    return {"name": name, "description": name, "parameters": parameters}


DOCS = [
    doc("ls", a={"type": "boolean"}),
    doc("cd", "folder"),
    doc("touch", "file_name"),
    doc("echo", "content", file_name=TEXT),
    doc("cat", "file_name"),
    doc("rm", "file_name"),
]
ROOT = {"root": {"home": {"type": "directory", "contents": {"a.txt": {"type": "file", "content": "one"}}}}}
ROW: Mapping[str, Any] = {
    "id": "multi_turn_base_0",
    "question": [
        [{"role": "user", "content": "Make b.txt."}],
        [{"role": "user", "content": "What does a.txt say?"}],
    ],
    "initial_config": {"GorillaFileSystem": ROOT},
    "involved_classes": ["GorillaFileSystem"],
    "ground_truth": [["touch('b.txt')"], ["cat(file_name='a.txt')"]],
}


def make(write: Write, docs: Any = DOCS, **changed: Any) -> FunctionCallingEnv:
    write("func_doc_gorilla_file_system.jsonl", docs)
    return FunctionCallingEnv(data=str(write("rows.jsonl", [{**ROW, **changed}])), holdout=0)


def run(env: FunctionCallingEnv, *messages: Message) -> list[Step]:
    drive(env.areset(seed=0, options={"index": 0}))
    return [drive(env.astep(message)) for message in messages]


TOUCH, CAT, DONE = call("touch", file_name="b.txt"), call("cat", file_name="a.txt"), say("Done.")


def test_the_user_s_turns_follow_one_another(write: Write, play: Callable[..., Any]) -> None:
    env = make(write)
    steps = run(env, TOUCH, DONE, CAT, DONE)
    assert steps[1].messages == (Message("user", "What does a.txt say?"),)
    assert [step.done for step in steps] == [False, False, False, True]
    assert steps[-1].components == {"reward": 1.0, "turns_right": 1.0}
    assert steps[2].messages[0].text == '{"file_content": "one"}'
    assert play(env, "gold", index=0)[1].reward == 1


@pytest.mark.parametrize(
    ("messages", "right"),
    [
        ((call("ls"), TOUCH, DONE, call("cd", folder="."), CAT, DONE), 2),  # further looks
        ((TOUCH, CAT, DONE, call("ls"), DONE), 2),  # what was seen in an earlier turn is known
        ((call("echo", content="", file_name="b.txt"), DONE, CAT, DONE), 1),  # the state, but never touch's answer
        ((TOUCH, call("cat", file_name="c.txt"), DONE, CAT, DONE), 2),  # an error by the way
        ((TOUCH, DONE, DONE), 1),  # no call in the second turn
        ((TOUCH, DONE, call("ls"), DONE), 1),  # never read it
        ((TOUCH, call("rm", file_name="a.txt"), DONE, CAT, DONE), 0),  # another state
        ((DONE, TOUCH, CAT, DONE), 1),  # too late: the second turn's state is right
        ((DONE, DONE), 0),
    ],
)
def test_what_is_right(write: Write, messages: tuple[Message, ...], right: int) -> None:
    end = run(make(write), *messages)[-1]
    assert end.components == {"reward": float(right == 2), "turns_right": right / 2}


def test_an_episode_that_is_cut_off_is_not_right(write: Write) -> None:
    env = make(write)
    env.max_turns = 3
    end = run(env, TOUCH, DONE, CAT)[-1]
    assert end.truncated
    assert end.reward == 0


def test_wrong_arguments_are_told_and_change_nothing(write: Write) -> None:
    steps = run(make(write), call("touch", name="b"), call("touch", file_name=3), call("fly"), TOUCH, DONE, CAT, DONE)
    told = [step.messages[0].text for step in steps[:3]]
    assert "argument 'file_name' is missing; there is no argument 'name'" in told[0]
    assert "argument 'file_name': expected string, got 3" in told[1]
    assert "unknown tool 'fly'; the tools are: ls, cd" in told[2]
    assert steps[-1].reward == 1


def test_functions_are_held_back_until_their_turn(write: Write, play: Callable[..., Any]) -> None:
    question = [ROW["question"][0], [], ROW["question"][1]]
    env = make(
        write,
        question=question,
        missed_function={"1": ["touch"]},
        ground_truth=[[], ["touch('b.txt')"], ["cat('a.txt')"]],
    )
    start = drive(env.areset(seed=0, options={"index": 0}))
    assert "touch" not in [tool["function"]["name"] for tool in start.tools]
    assert drive(env.astep(TOUCH)).messages[0].text == "error: unknown tool 'touch'"
    (told,) = drive(env.astep(say("I cannot make files."))).messages
    assert told.role == "user"
    assert '"name": "touch"' in told.text
    for message in (TOUCH, DONE, CAT):
        drive(env.astep(message))
    assert drive(env.astep(DONE)).reward == 1
    assert play(env, "gold", index=0)[1].reward == 1


def test_excluded_functions_are_not_there(write: Write) -> None:
    env = make(write, excluded_function=["rm"])
    run(env, call("rm", file_name="a.txt"))
    assert env.episode is not None
    assert "unknown tool 'rm'" in env.episode.messages[-1].text


BAD: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "an API that is not written": (
        {"involved_classes": ["WebSearchAPI"]},
        "the API 'WebSearchAPI' is not written here",
    ),
    "no list of APIs": ({"involved_classes": "GorillaFileSystem"}, "expected 'involved_classes', a list"),
    "a state that cannot be": (
        {"initial_config": {"GorillaFileSystem": {"root": {"home": {"type": "link"}}}}},
        "home: expected a directory or a file",
    ),
    "answers for other turns": ({"ground_truth": [["ls()"]]}, "expected the calls of each of the 2 turns"),
    "a call of nothing": ({"ground_truth": [["fly()"], []]}, "its APIs have no function 'fly'"),
    "no call": ({"ground_truth": [["import os"], []]}, "is no call"),
    "an argument that is code": ({"ground_truth": [["cat(open('x'))"], []]}, "its arguments are no literals"),
    "a silent user": ({"question": [ROW["question"][0], []]}, r"'question'\[1\]: the user says nothing"),
    "an unknown function held back": ({"missed_function": {"1": ["fly"]}}, "there is no function 'fly'"),
}


@pytest.mark.parametrize("what", BAD)
def test_rows_that_cannot_be_used_are_told(what: str, write: Write) -> None:
    changed, message = BAD[what]
    with pytest.raises(DataError, match=rf"rows.jsonl:1: .*{message}"):
        make(write, **changed).tasks()


def test_docs_that_are_missing_or_of_functions_not_written_are_told(write: Write, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="the function 'defragment' of GorillaFileSystem is documented, but not written"
    ):
        make(write, [*DOCS, doc("defragment")]).tasks()
    (tmp_path / "func_doc_gorilla_file_system.jsonl").unlink()
    with pytest.raises(DataError, match=r"no func_doc_gorilla_file_system.jsonl in"):
        FunctionCallingEnv(data=str(tmp_path / "rows.jsonl")).tasks()


NEVER_RIGHT = {"multi_turn_miss_func_49": "its answer calls tail two turns before the row offers it"}


@pytest.mark.parametrize("kind", ["base", "miss_func", "miss_param", "long_context"])
def test_gold_play_of_the_benchmark(kind: str, bfcl: Path, play: Callable[..., Any]) -> None:
    env = FunctionCallingEnv(data=str(bfcl / f"multi_turn_{kind}.jsonl.gz"), holdout=0)
    refused = calls = 0
    for index, task in enumerate(env.tasks()):
        _, end, _ = play(env, "gold", index=index)
        assert end.reward == float(task.id not in NEVER_RIGHT), task.id
        refused += int(end.metrics["tool_errors"])
        calls += int(end.metrics["tool_calls"])
    assert refused / calls < (0.1 if kind == "long_context" else 0.01)  # the bodies serve what the answers call


@pytest.mark.parametrize("kind", ["base", "miss_func"])
def test_silence_earns_nothing_in_the_benchmark(kind: str, bfcl: Path, play: Callable[..., Any]) -> None:
    env = FunctionCallingEnv(data=str(bfcl / f"multi_turn_{kind}.jsonl.gz"), holdout=0)
    for index in range(0, len(env.tasks()), 5):
        assert play(env, lambda _: say("Done."), index=index)[1].reward == 0
