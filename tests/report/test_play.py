"""Transcripts for people, and a person in the agent's place."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from rich.console import Console

from agentgym.config import Config, load_config
from agentgym.errors import ConfigError
from agentgym.registry import make_env
from agentgym.report import play as playing
from agentgym.report.play import WatchedEnv, play_episodes, play_expert, play_human, read_message
from agentgym.report.transcript import conversation_lines, print_message, said
from agentgym.types import Message, ToolCall

TOOLS = [
    {"type": "function", "function": {"name": "lookup", "parameters": {"properties": {"item": {"type": "string"}}}}}
]
CALM = {"busy": 0.0}


class Typing(io.StringIO):
    """A console's output, with a person who types lines."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = iter(lines)


def console_of(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(file=Typing(lines), width=100)

    def typed(*args: Any, **kwargs: Any) -> str:
        line = next(console.file.lines, None)  # type: ignore[attr-defined]
        if line is None:
            raise EOFError
        return str(line)

    monkeypatch.setattr(console, "input", typed)
    return console


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_said_takes_a_message_apart() -> None:
    call = ToolCall("c", "lookup", {"item": "pear"})
    broken = ToolCall("d", "lookup", {}, error="no closing brace")
    message = Message("assistant", "Let me see.", reasoning="hm", tool_calls=(call, broken))
    assert list(said(message)) == [
        ("thinks", "hm"),
        ("agent", "Let me see."),
        ("calls", "lookup(item='pear')"),
        ("calls", "(malformed) no closing brace"),
    ]
    assert list(said(Message("assistant"))) == [("agent", "(nothing)")]


def test_what_a_tool_wrote_does_not_steer_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    print_message(console, Message("tool", "a\x1b[2Jb\x07[bold]c\x9b"))
    assert shown(console) == "tool   a␛[2Jb␇[bold]c�\n"


def test_long_messages_are_cut() -> None:
    lines = conversation_lines([Message("system", "x"), Message("user", "word " * 100), Message("tool", "")], 40)
    assert [line.plain[:7] for line in lines] == ["user   ", "       ", "       ", "tool   "]
    assert lines[2].plain.endswith("…")
    assert all(len(line.plain) <= 40 for line in lines)


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ('lookup(item="pear")', {"item": "pear"}),
        ("lookup('pear')", {"item": "pear"}),
        ("lookup(item=3)", {"item": 3}),
        ("lookup()", {}),
    ],
)
def test_a_typed_call(line: str, call: dict[str, Any]) -> None:
    assert read_message(line, TOOLS, "c1").tool_calls == (ToolCall("c1", "lookup", call),)


@pytest.mark.parametrize("line", ["42", "lookup is a tool", "other(1)", "<tool_call>"])
def test_typed_words(line: str) -> None:
    assert read_message(line, TOOLS, "c1") == Message("assistant", line)


@pytest.mark.parametrize("line", ["lookup(", "lookup(pear)", "lookup(item=[x])", "lookup(item=open('/etc/passwd'))"])
def test_a_call_that_is_none(line: str) -> None:
    with pytest.raises(ConfigError, match=r"not a call|is not a value"):
        read_message(line, TOOLS, "c1")


def test_expert_plays_to_the_end() -> None:
    console = Console(file=io.StringIO(), width=100)
    env = WatchedEnv(make_env("agentgym/Store-v0", args=CALM), console, "expert")
    task = env.tasks("test")[0]
    end, good = asyncio.run(play_expert(console, env, 0, {"task": task}))
    assert good
    assert end == "reward 1.00 · correct · completed"
    assert f"agent  {task.prompt}" not in shown(console)
    assert f"user   {task.prompt}" in shown(console)


def test_a_person_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["", "/help", "/tools", "calculator(", 'calculator(expression="6*7")', "42"]
    console = console_of(lines, monkeypatch)
    env = WatchedEnv(make_env("agentgym/Store-v0", args=CALM), console, "human")
    end, good = asyncio.run(play_human(console, env, 0, {"task": env.tasks("test")[0]}))
    text = shown(console)
    assert "You are the agent" in text
    assert "Compute an arithmetic expression" in text
    assert "not a call: calculator(" in text
    assert "tool   42" in text
    assert not good
    assert end == "reward 0.00 · incorrect · completed"


def test_quitting_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    console = console_of(["/quit"], monkeypatch)
    monkeypatch.setattr(playing, "Console", lambda: console)
    config = load_config(None, ["env.id=agentgym/Store-v0"])
    assert play_episodes(config, "human", "", episodes=3, seed=0, task=None, temperature=1.0) == 0
    assert shown(console).count("episode") == 1


def test_an_episode_that_met_a_fault_is_told_and_counted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"question": "1+1?", "answer": "2", "demo": [{"role": "assistant", "content": "2"}]}\n'
    )
    (tmp_path / "mine.py").write_text("def score(task, answer, episode):\n    raise OSError('no such judge')\n")
    monkeypatch.setattr(playing, "Console", lambda: console)
    console = console_of([], monkeypatch)
    own = {"id": "", "data": str(tmp_path / "t.jsonl"), "reward": f"{tmp_path / 'mine.py'}:score"}
    config = Config.model_validate({"env": own})
    assert play_episodes(config, "expert", "", episodes=1, seed=0, task=None, temperature=1.0) == 1
    assert "unscored: verifier_error" in shown(console)
    assert "no such judge" in shown(console)


def test_an_env_without_an_expert_says_what_to_do(tmp_path: Any) -> None:
    (tmp_path / "t.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    config = Config.model_validate({"env": {"id": "", "data": str(tmp_path / "t.jsonl"), "tools": "calculator"}})
    with pytest.raises(ConfigError, match=r"no scripted expert .* use --human, or --model"):
        play_episodes(config, "expert", "", episodes=1, seed=0, task=None, temperature=1.0)
