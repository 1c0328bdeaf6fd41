"""A turn's calls: order, ids, errors as observations."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from agentgym.activity import Activity, make_current, restore
from agentgym.errors import SandboxFault, ToolError
from agentgym.tools import Episode, StopEpisode, ToolBusy, ToolResult, ToolSet, tool
from agentgym.tools.decorator import FunctionTool
from agentgym.tools.dice import Dice
from agentgym.tools.driving import drive
from agentgym.types import Task, ToolCall

LOG: list[str] = []


@tool
async def slow(name: str, seconds: float = 0.0) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    LOG.append(name)
    return name


@tool(parallel=True)
async def together(name: str, seconds: float = 0.0) -> str:
    """Wait, with others."""
    await asyncio.sleep(seconds)
    LOG.append(name)
    return name


MEETING = threading.Barrier(4)


@tool(parallel=True)
def threaded() -> str:
    """Wait until four are here."""
    MEETING.wait(timeout=20)
    return "met"


@tool
def fail(how: str) -> str:
    """Fail in some way."""
    if how == "busy":
        raise ToolBusy
    if how == "queue":
        raise ToolBusy("queue is full")
    if how == "fault":
        raise SandboxFault("the sandbox is gone")
    if how == "stop":
        raise StopEpisode("bye")
    raise KeyError(how)


@tool(stops=True)
def submit(value: int) -> str:
    """Hand it in."""
    return f"got {value}"


TOOLS = ToolSet([slow, together, threaded, fail, submit, "calculator"])


def answer(*calls: ToolCall | tuple[str, dict[str, Any]]) -> list[ToolResult]:
    made = [c if isinstance(c, ToolCall) else ToolCall(f"id{i}", c[0], c[1]) for i, c in enumerate(calls)]
    return drive(TOOLS.run(made))


def test_calls_run_in_order_under_their_own_ids() -> None:
    LOG.clear()
    results = answer(("slow", {"name": "a", "seconds": 0.02}), ("slow", {"name": "b"}), ("slow", {"name": "c"}))
    assert [r.text for r in results] == LOG == ["a", "b", "c"]
    assert [r.message().tool_call_id for r in results] == ["id0", "id1", "id2"]
    assert [r.message().name for r in results] == ["slow"] * 3


def test_parallel_calls_overlap_and_answer_in_call_order() -> None:
    LOG.clear()
    results = answer(("together", {"name": "a", "seconds": 0.03}), ("together", {"name": "b"}), ("slow", {"name": "c"}))
    assert LOG == ["b", "a", "c"]
    assert [r.text for r in results] == ["a", "b", "c"]


def test_sync_parallel_calls_overlap_in_threads() -> None:
    assert [r.text for r in answer(*[("threaded", {})] * 4)] == ["met"] * 4


def test_a_malformed_call_is_answered_and_the_others_run() -> None:
    bad = ToolCall("bad", "calculator", {}, "invalid JSON: it was cut off")
    results = answer(("calculator", {"expression": "1+1"}), bad, ("calculator", {"expression": "2+2"}))
    assert [r.text for r in results] == ["2", "error: invalid JSON: it was cut off", "4"]
    assert [r.call.id for r in results] == ["id0", "bad", "id2"]
    assert [r.error for r in results] == [False, True, False]


def test_unknown_tools_are_answered_with_the_valid_names() -> None:
    [result] = answer(("calc", {"expression": "1"}))
    assert result.text.startswith("error: unknown tool 'calc'; the tools are: slow, together")
    assert "calculator" in result.text
    [none] = drive(ToolSet().run([ToolCall("0", "x")]))
    assert none.text == "error: unknown tool 'x': there are no tools here"


def test_what_a_tool_raises_becomes_an_observation() -> None:
    texts = [r.text for r in answer(("fail", {"how": "busy"}), ("fail", {"how": "queue"}), ("fail", {"how": "key"}))]
    assert texts == ["busy", "queue is full", "error: KeyError: 'key'"]
    [wrong] = answer(("fail", {}))
    assert wrong.text == "error: fail: argument 'how' is missing. Arguments: how: string"
    assert wrong.error


def test_a_fault_of_the_machinery_propagates() -> None:
    with pytest.raises(SandboxFault, match="the sandbox is gone"):
        answer(("fail", {"how": "fault"}))


def test_a_tool_may_end_the_episode_and_later_calls_are_not_run() -> None:
    LOG.clear()
    for stop, text in ((("submit", {"value": 3}), "got 3"), (("fail", {"how": "stop"}), "bye")):
        results = answer(("slow", {"name": "a"}), stop, ("slow", {"name": "b"}))
        assert [r.text for r in results] == ["a", text, "error: not run: the episode has ended"]
        assert [r.stop for r in results] == [False, True, False]
    assert LOG == ["a", "a"]
    [refused] = answer(("submit", {"value": "x"}))
    assert not refused.stop


def test_building_a_toolset() -> None:
    def double(x: int) -> int:
        """Twice."""
        return 2 * x

    tools = ToolSet([double])
    assert tools.names == ("double",)
    assert drive(tools.run([ToolCall("0", "double", {"x": 4})]))[0].text == "8"
    with pytest.raises(ToolError, match="two tools are called 'double'"):
        ToolSet([double, double])
    with pytest.raises(ToolError, match="did you mean 'calculator'"):
        ToolSet(["calculater"])
    with pytest.raises(ToolError, match="3 is no tool"):
        ToolSet([3])


def test_a_foreign_tool_needs_only_the_protocol() -> None:
    class Echo:
        name = "echo"
        schema = {"type": "function", "function": {"name": "echo", "description": "", "parameters": {}}}  # noqa: RUF012

        async def call(self, arguments: Any, episode: Any = None) -> str:
            await asyncio.sleep(0.001)
            return str(arguments["text"])

    [good, bad] = drive(ToolSet([Echo()]).run([ToolCall("0", "echo", {"text": "hi"}), ToolCall("1", "echo", {})]))
    assert (good.text, bad.text) == ("hi", "error: KeyError: 'text'")


def test_a_tool_with_its_own_call_is_called_by_it() -> None:
    class Shouting(FunctionTool):
        async def call(self, arguments: Mapping[str, Any], episode: Any = None, *, threaded: bool = False) -> str:
            return (await super().call(arguments, episode, threaded=threaded)).upper()

    def echo(text: str) -> str:
        """Say it again."""
        return text

    [loud, quiet] = [
        drive(ToolSet([made]).run([ToolCall("0", "echo", {"text": "hi"})]))[0].text
        for made in (Shouting(echo), FunctionTool(echo))
    ]
    assert (loud, quiet) == ("HI", "hi")


def test_a_plain_function_may_give_something_to_wait_for() -> None:
    @tool(max_output=4)
    def later(text: str) -> Any:
        """Say it after a while."""
        return slow.fn(text, seconds=0.001)

    async def on_loop(calls: list[ToolCall]) -> list[ToolResult]:
        return await ToolSet([later]).run(calls)

    calls = [ToolCall("0", "later", {"text": "hello"}), ToolCall("1", "later", {"text": 7})]
    for results in (drive(ToolSet([later]).run(calls)), asyncio.run(on_loop(calls))):
        assert [result.text for result in results] == ["hell\n[... 1 more characters cut]", "7"]


@pytest.mark.parametrize("watched", [False, True])
def test_an_answer_is_the_same_with_an_activity_and_without(watched: bool) -> None:
    """Without one, what needs no event loop takes a shorter way."""

    @tool(max_calls=1)
    def once(episode: Episode, count: int = 1) -> str:
        """Count."""
        episode.count("once", count)
        return f"{episode.metrics['once']}"

    tools = ToolSet([once, fail, submit])
    calls = [
        ToolCall("0", "once", {"count": "2"}),
        ToolCall("1", "once", {}),
        ToolCall("2", "once", {"many": 2}),
        ToolCall("3", "fail", {"how": "x"}),
        ToolCall("4", "submit", {"value": 3}),
        ToolCall("5", "submit", {"value": 4}),
    ]
    episode = Episode(Task("t", "?"), Dice(0))
    token = make_current(Activity("e") if watched else None)
    try:
        results = drive(tools.run(calls, episode))
    finally:
        restore(token)
    assert [(result.text.split(". Arg")[0], result.error, result.stop) for result in results] == [
        ("2", False, False),
        ("error: once can be called once in an episode, and that is used up", True, False),
        ("error: once: there is no argument 'many'", True, False),
        ("error: KeyError: 'x'", True, False),
        ("got 3", False, True),
        ("error: not run: the episode has ended", True, False),
    ]
