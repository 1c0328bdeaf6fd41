"""MCP both ways, with whichever release of the package is installed: real processes, real loopback sockets."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentgym as ag
from agentgym.errors import ToolError, ToolFault
from agentgym.tools import Episode, ToolSet, mcp_connection
from agentgym.tools.driving import drive
from agentgym.tools.mcp import MCPTools
from agentgym.types import Task, ToolCall

pytest.importorskip("mcp", reason="the mcp extra is not installed")
RAW = str(Path(__file__).with_name("mcp_raw_server.py"))


def raw(mode: str = "", **options: Any) -> MCPTools:
    return MCPTools.stdio(sys.executable, ["-S", "-E", RAW, mode], **options)


@pytest.fixture(autouse=True)
def _soon_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", 0.1)


def call(given: MCPTools, name: str, episode: Any = None, **arguments: Any) -> str:
    found = {one.name: one for one in given.tools}
    return drive(found[name].call(arguments, episode))


def episode() -> Episode:
    return Episode(Task("0", "?"), np.random.default_rng(0))


def gone(pid: int) -> bool:
    """The process has ended and is reaped (of a zombie there is still something to signal)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_among_the_tools_of_an_env() -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw(only=["echo", "pid", "fail"]), "calculator"])
    assert env.toolset.names == ("calculator",)  # nothing is started by making the env
    _, info = env.reset(seed=0)
    assert env.toolset.names == ("calculator", "echo", "pid", "fail")
    assert env.episode is not None
    assert env.episode.tools == env.toolset.schemas
    assert env.toolset.schemas[1]["function"] == {
        "name": "echo",
        "description": "Does echo.",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    assert env.step(ag.call("echo", text="hi"))[0] == '{"text": "hi"}'
    text, *_, info = env.step(ag.call("fail"))
    assert (text, info["tool_errors"]) == ("error: no such row", ["error: no such row"])
    pid = int(env.step(ag.call("pid"))[0])
    env.reset(seed=0)
    assert int(env.step(ag.call("pid"))[0]) == pid
    assert env.step("4")[1] == 1.0
    env.close()
    assert gone(pid)
    env.reset(seed=0)  # and it comes back when it is wanted
    assert int(env.step(ag.call("pid"))[0]) != pid
    env.close()


def test_the_same_server_from_any_loop() -> None:
    given = raw()
    env = ag.ToolEnv([("?", "4")], tools=[given])

    async def play() -> str:
        await env.areset(seed=0)
        step = await env.astep(ag.call("pid"))
        return step.messages[0].text

    first = asyncio.run(play())
    second = asyncio.run(play())  # another loop
    env.reset(seed=0)
    third = env.step(ag.call("pid"))[0]  # none

    async def inside() -> str:  # the sync face within a running loop, as in a notebook
        env.reset(seed=0)
        return env.step(ag.call("pid"))[0]

    assert first == second == third == asyncio.run(inside())
    env.close()


def test_many_envs_share_a_server_until_the_last_is_closed() -> None:
    given = raw()
    one, two = (ag.ToolEnv([("?", "4")], tools=[given]) for _ in range(2))
    three = one.fresh()
    pids = set()
    for env in (one, two, three):
        env.reset(seed=0)
        pids.add(int(env.step(ag.call("pid"))[0]))
    [pid] = pids
    one.close()
    two.close()
    assert running(pid)
    assert three.step(ag.call("echo"))[0] == "{}"
    three.close()
    three.close()
    assert gone(pid)


def test_a_context_of_its_own() -> None:
    async def main() -> int:
        async with raw() as given:
            tools = ToolSet(given.tools)
            [result] = await tools.run([ToolCall("0", "pid")])
            return int(result.text)

    assert gone(asyncio.run(main()))
    with pytest.raises(ToolError, match="not known before it is started"):
        _ = raw().tools


def test_an_episode_may_have_a_server_of_its_own() -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw(per_episode=True)])
    pids = []
    for _ in range(2):
        env.reset(seed=0)
        assert [env.step(ag.call("count"))[0] for _ in range(2)] == ["1", "2"]
        pids.append(int(env.step(ag.call("pid"))[0]))
        env.step("4")
        assert gone(pids[-1])
    assert len(set(pids)) == 2
    env.reset(seed=0)
    with pytest.raises(ToolFault, match="gone during die"):
        env.step(ag.call("die"))
    with pytest.raises(ToolFault, match="what it knew of this episode"):
        env.step(ag.call("count"))
    env.close()


def test_what_is_not_text_is_described() -> None:
    given = raw()
    drive(given.open(env := object))
    assert call(given, "odd").splitlines() == [
        "a picture:",
        "[image: image/png, 5 bytes]",
        "[audio: audio/wav, 6 bytes]",
        "inside",
        "[resource file:///b.bin: application/x, 5 bytes]",
        "[link to c: file:///c]",
    ]
    assert call(given, "structured") == '{"a": 1}'
    assert call(given, "nothing") == "(nothing)"
    [refused, long] = drive(ToolSet(given.tools).run([ToolCall("0", "refuse"), ToolCall("1", "long")]))
    assert (refused.text, refused.error) == ("error: refuse: not like that", True)
    assert long.text.endswith("more characters cut]")
    drive(given.close(env))


def test_a_server_that_dies_is_a_fault_and_comes_back_with_the_next_call() -> None:
    given = raw()
    env = ag.ToolEnv([("?", "4")], tools=[given])
    env.reset(seed=0)
    pid = int(env.step(ag.call("pid"))[0])
    with pytest.raises(ToolFault, match=r"gone during die.*it wrote: ready when you are \| out of cheese"):
        env.step(ag.call("die"))
    assert gone(pid)
    env.reset(seed=0)
    other = int(env.step(ag.call("pid"))[0])
    assert other != pid
    os.kill(other, 9)  # between two calls
    assert gone(other)
    assert given._shared is not None
    while given._shared.result().alive:  # the end of its stdout is seen a moment later
        time.sleep(0.01)
    assert env.step(ag.call("echo", text="x"))[0] == '{"text": "x"}'
    env.close()


def test_a_server_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_connection, "PROBE_S", 0.2)
    env = ag.ToolEnv([("?", "4")], tools=[raw(timeout=0.2)])
    env.reset(seed=0)
    pid = int(env.step(ag.call("pid"))[0])
    with pytest.raises(ToolFault, match=r"hangs: no answer to hang in 0\.2 s"):
        env.step(ag.call("hang"))
    assert gone(pid)
    env.reset(seed=0)
    assert env.step(ag.call("echo"))[0] == "{}"
    env.close()


def test_a_call_that_takes_long_on_a_server_that_is_there_is_an_observation() -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw(timeout=0.2)])
    env.reset(seed=0)
    pid = env.step(ag.call("pid"))[0]
    assert env.step(ag.call("slow"))[0] == "error: slow timed out after 0.2 s"
    assert env.step(ag.call("pid"))[0] == pid
    env.close()


def test_the_end_of_an_episode_s_time_ends_the_wait() -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw(timeout=60)], timeout=1.0)
    env.reset(seed=0)
    env.step(ag.call("echo"))
    *_, truncated, info = env.step(ag.call("slow"))
    assert (truncated, info["stop_reason"]) == (True, "timeout")
    env.close()


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        ("dies", "did not start.*it wrote: cannot find my settings"),
        ("silent", "not ready within 0.5 s; it wrote: ready when you are"),
        ("slow-list", "not ready within 0.5 s"),
    ],
)
def test_a_server_that_does_not_start_is_a_fault(mode: str, part: str) -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw(mode, start_timeout=20 if mode == "dies" else 0.5)])
    for _ in range(2):
        with pytest.raises(ToolFault, match=part):
            env.reset(seed=0)
    env.close()


def test_what_the_user_has_to_mend() -> None:
    def reset(given: MCPTools, *others: Any) -> None:
        env = ag.ToolEnv([("?", "4")], tools=[given, *others])
        try:
            env.reset(seed=0)
        finally:
            env.close()

    with pytest.raises(ToolError, match="MCP server no-such-command-here: cannot be started"):
        reset(MCPTools.stdio("no-such-command-here"))
    with pytest.raises(ToolError, match="has no tool 'ekko'; it has: echo, pid"):
        reset(raw(only=["ekko"]))
    with pytest.raises(ToolError, match="two of its tools are called 'a_b'"):
        reset(raw("clash"))
    with pytest.raises(ToolError, match=r"two tools are called 'echo'.*prefix="):
        reset(raw(only=["echo"]), raw(only=["echo"]))
    for made, part in (
        (lambda: MCPTools.stdio("x", "a b"), "give a list, one entry"),
        (lambda: MCPTools.http("localhost:8000"), "is no URL"),
        (lambda: raw(timeout=0), "must be above 0"),
        (lambda: raw(only="echo"), "give a list of names"),
    ):
        with pytest.raises(ToolError, match=part):
            made()


def test_prefixes_and_pages() -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw("many", prefix="a_"), raw("many", prefix="b.")])
    env.reset(seed=0)
    assert env.toolset.names == tuple(f"{p}_t{i}" for p in "ab" for i in range(4))
    env.close()


def test_a_server_that_also_chats_is_understood() -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw("chatty")])
    env.reset(seed=0)
    assert env.step(ag.call("echo", text="ä\u2028"))[0] == json.dumps({"text": "ä\u2028"})
    env.close()


def test_limits_of_an_episode() -> None:
    env = ag.ToolEnv([("?", "4")], tools=[raw(only=["echo"], max_calls=1)])
    for _ in range(2):
        env.reset(seed=0)
        assert env.step(ag.call("echo"))[0] == "{}"
        assert "echo can be called once" in env.step(ag.call("echo"))[0]
    env.close()


def test_it_is_described_by_its_arguments_only() -> None:
    given = raw(prefix="p_")
    drive(given.open(given))
    other = pickle.loads(pickle.dumps(given))
    assert copy.deepcopy(given) is given
    drive(other.open(other))
    assert call(other, "p_pid") != call(given, "p_pid")
    for one in (given, other):
        drive(one.close(one))


def test_the_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ToolError, match=r"pip install 'agentgym-train\[mcp\]'"):
        raw()


@pytest.mark.slow
def test_servers_end_with_the_process() -> None:
    script = f"""
import sys, agentgym as ag, mcp.client.stdio
from agentgym.tools.mcp import MCPTools
mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT = 0.1
env = ag.ToolEnv([("?", "4")], tools=[MCPTools.stdio(sys.executable, [{RAW!r}, "deaf"])])
env.reset()
print(env.step(ag.call("pid"))[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert gone(int(done.stdout))
    assert "Traceback" not in done.stderr


# -- the other way round: our tools served ----------------------------------------------------------------------------
