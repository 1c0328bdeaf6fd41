"""ToolEnv by Gymnasium's face: text in and out, info, a running loop."""

import asyncio
from typing import Any

from agentgym.envs.script import say
from agentgym.envs.tool_env import ToolEnv
from agentgym.protocols import Step
from agentgym.tools import Episode
from agentgym.types import Message
from tests.envs.test_tool_env import Rows, env_of, note

CALL = '<tool_call>{"name": "note", "arguments": {"text": "hi"}}</tool_call>'


def test_text_in_text_out(rows: Rows) -> None:
    env = env_of(rows, system="S", holdout=0, render_mode="ansi")
    text, info = env.reset(seed=0, options={"index": 2})
    assert text == "What is 2+1?"
    assert set(info) == {"messages", "tool_calls", "tool_errors", "stop_reason", "reward_components", "task_id"}
    text, reward, terminated, truncated, info = env.step(f"Let me see.\n{CALL}\n<tool_call>oops</tool_call>")
    assert text.startswith("noted hi\nerror: ")
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["tool_calls"][0]["function"]["name"] == "note"
    assert len(info["tool_errors"]) == 1
    assert [m["role"] for m in info["messages"]] == ["system", "user", "assistant", "tool", "tool"]
    assert info["messages"][-1]["tool_call_id"] == info["tool_calls"][1]["id"]
    text, reward, terminated, truncated, info = env.step("3")
    assert (text, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["stop_reason"] == "completed"
    assert info["reward_components"] == {"reward": 1.0}
    lines = env.render().splitlines()
    assert lines[:2] == ["system: S", "user: What is 2+1?"]
    assert lines[2].startswith("assistant: Let me see. [note(text='hi')]")
    assert lines[-1] == "assistant: 3"


def test_a_message_dict_is_taken_too(rows: Rows) -> None:
    env = env_of(rows)
    env.reset(seed=0)
    function = {"name": "note", "arguments": '{"text": "hi"}'}
    action = {"role": "assistant", "content": None, "tool_calls": [{"id": "z", "function": function}]}
    text, *_, info = env.step(action)
    assert text == "noted hi"
    assert info["messages"][-1] == {"role": "tool", "content": "noted hi", "tool_call_id": "z", "name": "note"}


def test_info_is_the_callers_own(rows: Rows) -> None:
    env = env_of(rows)
    _, first = env.reset(seed=0)
    first["messages"][0]["content"] = "changed"
    *_, second = env.step(CALL)
    assert second["messages"][0]["content"] != "changed"
    second["messages"][1]["tool_calls"].clear()
    *_, third = env.step("x")
    assert len(third["messages"][1]["tool_calls"]) == 1


def test_what_a_caller_does_to_info_reaches_no_later_one(rows: Rows) -> None:
    def spoil(value: Any) -> None:
        """Change everything that can be changed, from the leaves up."""
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            spoil(item)
        if isinstance(value, dict):
            value.update(dict.fromkeys(value, "spoilt"), spoilt=True)
        elif isinstance(value, list):
            value[:] = ["spoilt"]

    picture = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    task = {"prompt": [{"role": "user", "content": picture}], "answer": "4"}
    actions = [CALL, f"{CALL}\n{CALL}", CALL.replace("note", "unknown"), "<tool_call>oops</tool_call>", CALL, "4"]
    spoilt, whole = (ToolEnv([task], tools=[note], holdout=0) for _ in range(2))
    info, wanted = spoilt.reset(seed=0)[1], whole.reset(seed=0)[1]
    for action in actions:
        assert info == wanted
        spoil(info)
        info, wanted = spoilt.step(action)[4], whole.step(action)[4]
    assert info == wanted
    assert [len(row.get("tool_calls", ())) for row in info["messages"] if row["role"] == "assistant"] == [
        1,
        2,
        1,
        1,
        1,
        0,
    ]
    assert info["messages"][0]["content"] == picture


def test_a_chat_that_an_env_rewrote_is_shown_as_it_is(rows: Rows) -> None:
    class Forgetful(ToolEnv):
        def reply(self, episode: Episode, message: Message) -> Message | None:
            episode.messages[1] = say("(left out)")
            return Message("user", "Go on.")

    env = Forgetful(rows, tools=[note])
    env.reset(seed=0)
    env.step(CALL)
    *_, info = env.step("first")
    assert [row["content"] for row in info["messages"][1:]] == ["(left out)", "noted hi", "first", "Go on."]
    *_, info = env.step(CALL)
    assert [i for i, row in enumerate(info["messages"]) if "tool_calls" in row] == [5]
    assert info["messages"][5]["tool_calls"] == info["tool_calls"]


def test_the_sync_face_works_inside_a_running_loop(rows: Rows) -> None:
    waiting = '<tool_call>{"name": "wait", "arguments": {"seconds": 0.001}}</tool_call>'

    async def main() -> list[str]:
        env = env_of(rows)
        env.reset(seed=0)
        texts = [env.step(CALL)[0], env.step(waiting)[0]]
        await asyncio.sleep(0)
        return texts

    assert asyncio.run(main()) == ["noted hi", "agentgym-loop"]


def test_a_class_with_its_own_astep_runs_on_the_loop(rows: Rows) -> None:
    class Own(ToolEnv):
        async def astep(self, message: Message) -> Step:
            await asyncio.sleep(0.001)  # before any checkpoint
            return await super().astep(message)

    env = Own(rows)
    env.reset(seed=0)
    assert env.step("x")[2]
    env.close()
    env.close()
