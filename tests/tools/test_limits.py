"""Limits and retries of single tools."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

import agentgym as ag
from agentgym.errors import SandboxFault, ToolError, ToolFault
from agentgym.protocols import Sandbox
from agentgym.tools import BadArguments, Episode, FunctionTool, ToolFailed, ToolSet, tool
from agentgym.tools.driving import drive
from agentgym.types import Task, ToolCall


def episode() -> Episode:
    return Episode(Task("0", "?"), np.random.default_rng(0))


def run(given: FunctionTool, where: Any = None, /, **arguments: Any) -> str:
    return drive(given.call(arguments, where))


class Flaky:
    """Raises `error` so many times, then answers."""

    def __init__(self, times: int, error: Exception):
        self.left, self.error, self.tries = times, error, 0

    def go(self) -> str:
        """Try."""
        self.tries += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"

    async def later(self) -> str:
        """Try, and wait for it."""
        await asyncio.sleep(0)
        return self.go()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.tools.decorator.BACKOFF_S", 0.0)


@pytest.mark.parametrize("method", ["go", "later"])
@pytest.mark.parametrize("timeout", [None, 5])
def test_a_flaky_function_is_tried_again(method: str, timeout: float | None) -> None:
    flaky = Flaky(2, ConnectionResetError("gone"))
    made = tool(retries=2, timeout=timeout)(getattr(flaky, method))
    assert run(made) == "done"
    assert flaky.tries == 3


def test_spent_retries_leave_the_episode_unscored() -> None:
    flaky = Flaky(9, ConnectionResetError("gone"))
    with pytest.raises(ToolFault, match=r"go: ConnectionResetError: gone \(tried 3 times\)"):
        drive(ToolSet([tool(retries=2)(flaky.go)]).run([ToolCall("0", "go")]))
    assert flaky.tries == 3


@pytest.mark.parametrize(
    "error", [ValueError("no"), ToolFailed("no such train"), ag.StopEpisode("bye"), BadArguments("odd")], ids=repr
)
def test_what_is_not_named_or_is_meant_for_the_model_is_not_retried(error: Exception) -> None:
    flaky = Flaky(9, error)
    kinds = ConnectionError if isinstance(error, ValueError) and type(error) is ValueError else Exception
    [result] = drive(ToolSet([tool(retries=3, retry_on=kinds)(flaky.go)]).run([ToolCall("0", "go")]))
    assert str(error) in result.text
    assert flaky.tries == 1


def test_a_fault_that_is_retried_stays_what_it_is() -> None:
    flaky = Flaky(9, SandboxFault("the sandbox is gone"))
    with pytest.raises(SandboxFault, match="is gone"):
        run(tool(retries=1, retry_on=(SandboxFault,))(flaky.go))
    assert flaky.tries == 2


def test_the_timeout_is_over_all_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.tools.decorator.BACKOFF_S", 60.0)
    monkeypatch.setattr("agentgym.tools.decorator.MAX_BACKOFF_S", 60.0)
    flaky = Flaky(9, ConnectionResetError("gone"))
    [result] = drive(ToolSet([tool(retries=9, timeout=0.5)(flaky.go)]).run([ToolCall("0", "go")]))
    assert result.text == "error: go timed out after 0.5 s"
    assert flaky.tries == 1


def test_calls_beyond_the_limit_are_answered_with_an_error() -> None:
    ran = []

    @tool(max_calls=2)
    def look(at: int) -> str:
        """Look."""
        ran.append(at)
        return "seen"

    tools, here = ToolSet([look]), episode()
    calls = [ToolCall(str(i), "look", {"at": i}) for i in range(2)]
    wrong = ToolCall("w", "look", {"at": "nowhere"})
    texts = [r.text for r in drive(tools.run([wrong, *calls, *calls], here))]
    assert texts[1:3] == ["seen", "seen"]  # wrong arguments cost nothing
    assert texts[3] == texts[4] == "error: look can be called 2 times in an episode, and that is used up"
    assert ran == [0, 1]
    assert drive(tools.run(calls[:1], episode()))[0].text == "seen"  # another episode has its own
    assert run(look, at=1) == "seen"  # and outside of one there is no limit


def test_parallel_calls_share_the_limit() -> None:
    ran = []

    @tool(max_calls=3, parallel=True)
    def look() -> str:
        """Look."""
        ran.append(threading.get_ident())
        return "seen"

    results = drive(ToolSet([look]).run([ToolCall(str(i), "look") for i in range(8)], episode()))
    assert [r.error for r in results] == [False] * 3 + [True] * 5
    assert len(ran) == 3


def test_the_limit_in_an_env_is_of_the_episode() -> None:
    @ag.tool(max_calls=1)
    def hint() -> str:
        """A hint."""
        return "it is 4"

    env = ag.ToolEnv([("2+2?", "4")], tools=[hint])
    for _ in range(2):
        env.reset(seed=0)
        assert env.step(ag.call("hint"))[0] == "it is 4"
        assert "called once in an episode" in env.step(ag.call("hint"))[0]
        assert env.step("4")[1] == 1.0


def test_options_out_of_range_are_refused() -> None:
    def fine() -> str:
        return ""

    for options, text in (
        ({"max_calls": -1}, "max_calls must be a whole number from 0 on, got -1"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"retries": True}, "retries must be a whole number"),
        ({"max_output": 0}, "max_output must be a whole number from 1 on"),
        ({"timeout": float("nan")}, "timeout is in seconds"),
        ({"retry_on": ("ConnectionError",)}, "retry_on must be exception classes"),
        ({"retry_on": KeyboardInterrupt}, "retry_on must be exception classes"),
    ):
        with pytest.raises(ToolError, match=text):
            tool(**options)(fine)  # type: ignore[call-overload]


def test_a_tool_under_other_options() -> None:
    from agentgym.tools.calculator import calculator

    few = calculator.with_options(max_calls=1, name="sum")
    tools, here = ToolSet([few, calculator]), episode()
    assert tools.names == ("sum", "calculator")
    assert few.schema["function"]["description"] == calculator.schema["function"]["description"]
    call = ToolCall("0", "sum", {"expression": "1+1"})
    assert [r.error for r in drive(tools.run([call, call], here))] == [False, True]
    assert calculator.max_calls == 0


def test_the_sandbox_is_injected() -> None:
    @tool
    async def keep(name: str, box: Sandbox, where: Episode | None = None) -> str:
        """Keep a note."""
        assert where is not None
        await box.write_file(name, b"kept")
        return f"{where.task.id}: {(await box.read_file(name)).decode()}"

    assert list(keep.schema["function"]["parameters"]["properties"]) == ["name"]
    here = episode()
    here.sandbox_settings = {"backend": "fake"}
    with pytest.raises(ToolError, match="needs an episode"):
        run(keep, name="a")

    async def play() -> str:
        try:
            return await keep.call({"name": "a"}, here)
        finally:
            await here.release()

    assert drive(play()) == "0: kept"

    def wrong(box: Sandbox) -> str:
        return ""

    with pytest.raises(ToolError, match="write `async def`"):
        tool(wrong)


def test_what_a_tool_opened_is_closed_with_the_episode() -> None:
    closed = []

    async def close() -> None:
        await asyncio.sleep(0)
        closed.append(1)

    @ag.tool
    def opened(where: Episode) -> str:
        """Open."""
        where.at_end(close)
        return "open"

    env = ag.ToolEnv([("?", "4")], tools=[opened])
    env.reset(seed=0)
    env.step(ag.call("opened"))
    assert not closed
    env.step("4")
    assert closed == [1]
    env.reset(seed=0)
    env.step(ag.call("opened"))
    env.close()
    assert closed == [1, 1]


def test_thinking_is_recorded_and_earns_nothing() -> None:
    env = ag.ToolEnv([("2+2?", "4")], tools=["think"])
    env.reset(seed=0)
    text, reward, *_, info = env.step(ag.call("think", thought="4"))
    assert (text, reward) == ("noted", 0.0)
    assert info["tool_calls"][0]["function"]["arguments"] == '{"thought": "4"}'
    assert env.step("5")[1] == 0.0


def test_a_tool_that_exits_does_not_end_the_worker() -> None:
    @tool
    def quits() -> str:
        """Exit."""
        raise SystemExit(3)

    @tool(parallel=True)
    def leaves() -> str:
        """Exit in a thread."""
        raise SystemExit("bye")

    calls = [ToolCall("0", "quits"), ToolCall("1", "leaves"), ToolCall("2", "leaves")]
    texts = [r.text for r in drive(ToolSet([quits, leaves]).run(calls))]
    assert texts == ["error: SystemExit: 3", "error: SystemExit: bye", "error: SystemExit: bye"]
