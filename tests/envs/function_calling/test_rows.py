"""BFCL's rows of one turn: how they are read, played and refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.function_calling.env import FunctionCallingEnv
from agentgym.envs.script import call, say
from agentgym.errors import DataError
from agentgym.tools.driving import drive
from agentgym.types import Message, StopReason, Task, ToolCall

Write = Callable[..., Path]


def doc(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    parameters = {"type": "dict", "properties": properties, "required": list(required)}
    return {"name": name, "description": f"It does {name}.", "parameters": parameters}


def row(name: str, *functions: Any, text: str = "Please do it.", **more: Any) -> dict[str, Any]:
    return {"id": name, "question": [[{"role": "user", "content": text}]], "function": list(functions), **more}


AREA = doc("shape.area", ("base",), base={"type": "integer"}, unit={"type": "string"})
ANSWER = {"ground_truth": [{"shape.area": {"base": [10], "unit": ["cm", ""]}}]}


def load(path: Path, **options: Any) -> tuple[Task, ...]:
    return tuple(FunctionCallingEnv(data=str(path), holdout=0, **options).tasks())


def played(path: Path, *messages: Message) -> Any:
    env = FunctionCallingEnv(data=str(path), holdout=0)
    drive(env.areset(seed=0, options={"index": 0}))
    for message in messages:
        step = drive(env.astep(message))
    return step


def test_a_message_with_calls_is_matched_and_ends_the_episode(write: Write) -> None:
    path = write("simple.jsonl", [row("simple_0", AREA, **ANSWER)])
    end = played(path, call("shape_area", base=10))
    assert (end.reward, end.stop_reason, end.terminated) == (1.0, StopReason.tool_stopped, True)
    for wrong in (call("shape_area", base=11), call("shape_area", base=10, unit="m"), say("The area is 50."), say("")):
        assert played(path, wrong).reward == 0
    twice = Message("assistant", "", tool_calls=(ToolCall("a", "shape_area", {"base": 10}),) * 2)
    assert played(path, twice).reward == 0


def test_a_malformed_call_may_be_mended(write: Write) -> None:
    path = write("simple.jsonl", [row("simple_0", AREA, **ANSWER)])
    malformed = Message("assistant", "", tool_calls=(ToolCall("a", "", {}, "not JSON"), ToolCall("b", "shape_area")))
    step = played(path, malformed)
    assert [message.text for message in step.messages] == [
        "error: not JSON",
        "error: not taken: another call of this message is malformed",
    ]
    assert not step.done
    assert played(path, malformed, call("shape_area", base=10)).reward == 1
    assert played(path, *[malformed] * 3).stop_reason is StopReason.parse_error


def test_no_call_is_right_where_no_function_serves(write: Write) -> None:
    path = write("irrelevance.jsonl", [row("irrelevance_0", AREA)])
    assert played(path, say("None of these functions helps.")).reward == 1
    assert played(path, say("  ")).reward == 0
    assert played(path, call("shape_area", base=1)).reward == 0


def test_any_valid_call_is_right_where_only_relevance_is_asked(write: Write) -> None:
    path = write("relevance.jsonl", [row("live_relevance_0-0-0", AREA)])
    assert played(path, call("shape_area", base=1)).reward == 1
    for wrong in (say("Yes."), call("shape_area"), call("shape_area", base="1"), call("shape_area", base=1, x=2)):
        assert played(path, wrong).reward == 0


def test_answers_lie_in_the_row_or_beside_the_file_or_where_they_are_said_to(write: Write, tmp_path: Path) -> None:
    answers = [{"id": "simple_0", **ANSWER}]
    for place in ("answers_a.jsonl.gz", "possible_answer/a.jsonl.gz", "elsewhere.jsonl"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        rows, path = write("a.jsonl.gz", [row("simple_0", AREA)]), write(place, answers)
        said = {"answers": str(path)} if place == "elsewhere.jsonl" else {}
        assert load(rows, **said)[0].answer == ANSWER["ground_truth"]
        path.unlink()


def test_the_tools_of_an_episode_are_those_of_its_row(write: Write) -> None:
    path = write("two.jsonl", [row("s_0", AREA, **ANSWER), row("irrelevance_1", doc("b"), doc("c.d"))])
    env = FunctionCallingEnv(data=str(path), holdout=0)
    names = []
    for index in (0, 1, 0):
        start = drive(env.areset(seed=0, options={"index": index}))
        names.append([tool["function"]["name"] for tool in start.tools])
        assert start.messages[0].role == "user"  # the generated set's system message is not theirs
    assert names == [["shape_area"], ["b", "c_d"], ["shape_area"]]


BAD: Mapping[str, tuple[dict[str, Any], str]] = {
    "no answer": (row("s_0", AREA), "no answer to 's_0'"),
    "no id": (row("", AREA, **ANSWER), "'id': expected text"),
    "unknown type": (row("s_0", doc("f", x={"type": "quaternion"}), **ANSWER), r"f.x: unknown type 'quaternion'"),
    "nested type": (
        row("s_0", doc("f", x={"type": "array", "items": {"type": "no"}}), **ANSWER),
        r"f.x\[\]: unknown type 'no'",
    ),
    "no functions": ({"id": "s_0", "question": [[{"role": "user", "content": "?"}]], **ANSWER}, "'function': expected"),
    "no parameters": (row("s_0", {"name": "f"}, **ANSWER), r"'function'\[0\] \(f\): no parameters"),
    "no question": ({"id": "s_0", "function": [AREA], **ANSWER}, "'question': expected a list of turns"),
    "several turns": ({**row("s_0", AREA, **ANSWER), "question": [[], []]}, "rows of several need 'involved_classes'"),
    "a strange role": (
        {**row("s_0", AREA, **ANSWER), "question": [[{"role": "king", "content": "?"}]]},
        "role: expected system",
    ),
    "an answer of another function": (row("s_0", doc("other"), **ANSWER), "there is no function 'shape.area'"),
}


@pytest.mark.parametrize("what", BAD)
def test_rows_that_cannot_be_used_are_told_by_file_and_row(what: str, write: Write) -> None:
    bad, message = BAD[what]
    path = write("rows.jsonl", [row("s_good", AREA, **ANSWER), bad])
    with pytest.raises(DataError, match=message) as told:
        load(path)
    assert str(told.value).startswith(f"{path}:2: ")


def test_ids_that_are_not_unique_are_told(write: Write) -> None:
    path = write("rows.jsonl", [row("s_0", AREA, **ANSWER), row("s_1", AREA, **ANSWER), row("s_0", AREA, **ANSWER)])
    with pytest.raises(DataError, match=r"rows.jsonl:3: the id 's_0' is that of .*rows.jsonl:1 too"):
        load(path)
    write("answers_b.jsonl", [{"id": "s_0", **ANSWER}, {"id": "s_0", **ANSWER}])
    with pytest.raises(DataError, match=r"answers_b.jsonl:2: there is an answer to 's_0' before it"):
        load(write("b.jsonl", [row("s_0", AREA)]))


def test_a_file_that_changes_is_read_again(write: Write) -> None:
    path = write("rows.jsonl", [row("s_0", AREA, **ANSWER)])
    assert len(load(path)) == 1
    assert len(load(write("rows.jsonl", [row("s_0", AREA, **ANSWER), row("s_1", AREA, **ANSWER)]))) == 2


KINDS = ("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance", "simple_java")
MORE_KINDS = ("simple_javascript", "live_simple", "live_parallel", "live_parallel_multiple", "live_relevance")


@pytest.mark.parametrize("kind", KINDS + MORE_KINDS)
def test_gold_play_of_the_benchmark_is_right_and_none_is_wrong(kind: str, bfcl: Path, play: Callable[..., Any]) -> None:
    env = FunctionCallingEnv(data=str(bfcl / f"{kind}.jsonl.gz"), holdout=0)
    tasks = env.tasks()
    for index, task in enumerate(tasks):
        _, step, messages = play(env, "gold", index=index)
        assert step.reward == 1, task.id
        if not task.answer or isinstance(task.answer, str):
            continue
        first, *others = next(message.tool_calls for message in messages if message.tool_calls)
        extra = ToolCall(first.id, first.name, {**first.arguments, "never_heard_of": 1})
        other = ToolCall(first.id, first.name, dict.fromkeys(first.arguments, "never heard of") or {"x": 1})
        wrong = [(extra, *others), (other, *others), (first, first, *others), (*others,)]
        for cheap in (say("I cannot."), *(Message("assistant", "", tool_calls=tuple(calls)) for calls in wrong)):
            assert play(env, lambda _, cheap=cheap: cheap, index=index)[1].reward == 0, task.id
