"""Rows of several user turns: the calls are run by the APIs, and after each turn their state is compared.

A turn is right where (a) the state of every API equals that of a second instance on which the right calls were run, and
(b) every answer that those got was also given to the agent, in this turn or before, in any order. So any order of the
calls, other ways to the same state and further looks are right. A turn without right calls is not judged, as in BFCL
(its user asks for what cannot be done yet). An error that a right call met need not be met by the agent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentgym.envs.function_calling.docs import Function
from agentgym.envs.function_calling.world import Call, World
from agentgym.envs.script import say
from agentgym.protocols import Policy
from agentgym.tools.decorator import ToolFailed
from agentgym.tools.episode import Episode, ToolResult
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Task, ToolCall

MORE = "From now on there are more functions:\n{schemas}\nPlease go on with what I asked for."


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a row says, apart from its first user message and its answer."""

    apis: tuple[str, ...]
    config: Mapping[str, Any]
    functions: Mapping[str, Function]
    turns: tuple[tuple[Message, ...], ...]
    """The user's messages of each turn."""
    held: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Turn -> functions that are there only from then on."""

    def world(self) -> World:
        return World(self.apis, self.config, self.functions)

    def opening(self, turn: int) -> tuple[Message, ...]:
        """The user's messages of a turn, the announcement of functions included."""
        messages = self.turns[turn]
        if names := self.held.get(turn):
            schemas = json.dumps([self.functions[name].schema for name in names], ensure_ascii=False)
            messages = (Message("user", MORE.format(schemas=schemas)), *messages)
        return messages


@dataclass(slots=True)
class Session:
    """A conversation under way: the agent's world, that of the right calls, and how the turns went."""

    scenario: Scenario
    answer: Sequence[Sequence[Call]]
    mine: World
    right: World
    turn: int = 0
    called: bool = False
    replies: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """What was wrong with each turn so far; empty: nothing."""

    def is_held(self, name: str) -> bool:
        return any(name in names for turn, names in self.scenario.held.items() if turn > self.turn)

    def close_turn(self) -> None:
        """Run the right calls of this turn, and compare."""
        calls = self.answer[self.turn]
        expected = [self.right.call(call.function, call.arguments) for call in calls]
        self.faults.append(self._fault([reply.text for reply in expected if not reply.error]) if calls else "")
        self.turn += 1
        self.called = False

    def _fault(self, expected: Sequence[str]) -> str:
        if not self.called:
            return "no function was called"
        if attribute := self.mine.difference(self.right):
            return f"the state differs: {attribute}"
        missing = Counter(expected) - self.replies
        return f"never seen: {next(iter(missing))}" if missing else ""


class Conversation:
    """`Task.answer`: of each user turn the right calls; `Task.metadata["scenario"]`: a `Scenario`."""

    def toolset(self, task: Task) -> ToolSet:
        return Desk(task.metadata["scenario"])

    def setup(self, episode: Episode) -> None:
        scenario: Scenario = episode.task.metadata["scenario"]
        episode.state["session"] = Session(scenario, episode.task.answer, scenario.world(), scenario.world())

    def reply(self, episode: Episode, message: Message) -> Message | None:
        session: Session = episode.state["session"]
        if session.turn + 1 >= len(session.answer):
            return None
        session.close_turn()
        return Message("user", "\n\n".join(said.text for said in session.scenario.opening(session.turn)))

    def score(self, task: Task, answer: str, episode: Episode) -> Mapping[str, float]:
        session: Session = episode.state["session"]
        last = episode.messages[-1] if episode.messages else None
        if session.turn + 1 == len(session.answer) and last is not None and last.role == "assistant":
            session.close_turn()  # else the episode was cut off within a turn
        right = sum(not fault for fault in session.faults)
        return {"reward": float(right == len(session.answer)), "turns_right": right / len(session.answer)}

    def expert(self, task: Task, seed: int, habits: Any) -> Policy:
        answer: Sequence[Sequence[Call]] = task.answer

        def policy(conversation: Sequence[Message]) -> Message:
            prompt = sum(message.role == "user" for message in task.prompt) if isinstance(task.prompt, tuple) else 1
            turn = sum(message.role == "user" for message in conversation) - prompt
            calls = answer[turn]
            if not calls:
                return say("I have no function for that yet, or need to know more.")
            if conversation[-1].role == "tool":
                return say("Done.")
            made = [ToolCall(f"call_{turn}_{i}", one.function, one.arguments) for i, one in enumerate(calls)]
            return Message("assistant", "", tool_calls=tuple(made))

        return policy


class Documented:
    """A function of the session's world."""

    def __init__(self, function: Function):
        self.name = function.name
        self.schema = function.schema

    async def call(self, arguments: Mapping[str, Any], episode: Any = None) -> str:
        session: Session = episode.state["session"]
        session.called = True
        reply = session.mine.call(self.name, arguments)
        if reply.error:
            raise ToolFailed(reply.text)
        session.replies[reply.text] += 1
        return reply.text


class Desk(ToolSet):
    """All functions of a scenario; those that are held back are neither shown nor known before their turn."""

    def __init__(self, scenario: Scenario):
        super().__init__(Documented(function) for function in scenario.functions.values())
        later = {name for names in scenario.held.values() for name in names}
        self.schemas = tuple(one.schema for name, one in scenario.functions.items() if name not in later)

    async def run_one(self, call: ToolCall, episode: Any = None, *, threaded: bool = False) -> ToolResult:
        session: Session = episode.state["session"]
        if call.error is None and session.is_held(call.name):
            return ToolResult(call, f"error: unknown tool {call.name!r}", True)
        return await super().run_one(call, episode, threaded=threaded)
