"""The agent: renders the conversation, asks the engine, parses what came back.

One `Agent` serves every episode of a worker; what belongs to one episode is its `Conversation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import thread_time

import numpy as np

from agentgym.protocols import Engine, Parser, Renderer, Start
from agentgym.rollout.routing import experts_known
from agentgym.types import Completion, Message, SamplingParams, Turn


@dataclass(slots=True)
class Seconds:
    """Where a worker's own time goes, outside the model: CPU-seconds of its thread by part, over all its episodes."""

    render: float = 0.0
    parse: float = 0.0
    env: float = 0.0

    def spend_env(self, seconds: float) -> None:
        self.env += seconds


@dataclass(frozen=True, slots=True)
class Agent:
    engine: Engine
    renderer: Renderer
    parser: Parser
    seconds: Seconds = field(default_factory=Seconds)
    routing: bool = False
    """Whether the engine is asked for the experts that tokens were sent to."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.renderer.stop_ids

    def converse(self, start: Start, session: str) -> Conversation:
        return Conversation(self, start, session)


class Conversation:
    """One agent's side of one episode: its messages, the tokens of its current branch, and its turns so far."""

    awaiting = ""

    def __init__(self, agent: Agent, start: Start, session: str):
        self.agent = agent
        self.session = session
        self.prompt = start.messages
        self.tools = start.tools
        self.start_score = start.score
        self.messages: list[Message] = list(start.messages)
        self.turns: list[Turn] = []
        self.rewrites = 0
        self._branch: list[int] = []
        self._added: tuple[Message, ...] = ()

    async def act(self, params: SamplingParams) -> tuple[Message, Completion]:
        """Sample the next assistant message. A completion without ids means that the context has no room left."""
        context, parent = self._render()
        if self.agent.routing:
            params = replace(params, experts_from=experts_known(self.turns, parent, len(self._branch)))
        self._branch += context.tolist()
        completion = await self.agent.engine.generate(self._branch, params, session=self.session)
        ids = completion.ids.tolist()
        began = thread_time()
        parsed = self.agent.parser.parse(self.agent.renderer.decode(ids), self.tools)
        message = parsed.message()
        self.agent.seconds.parse += thread_time() - began
        self._branch += ids
        self.messages.append(message)
        self._added = ()
        self.turns.append(Turn(len(self.turns), parent, context, completion, message))
        return message, completion

    def observe(self, messages: Sequence[Message], reward: float, score: float | None = None) -> None:
        """What the env answered to the last message, what it paid for it, and the score of the state now."""
        self._added = tuple(messages)
        self.turns[-1] = replace(self.turns[-1], observations=self._added, reward=reward, score=score)

    def pay(self, reward: float, score: float | None = None) -> None:
        """A reward that came after the last answer (a limit ended the episode), and the state's last score."""
        if self.turns and (reward or score is not None):
            last = self.turns[-1]
            self.turns[-1] = replace(last, reward=last.reward + reward, score=last.score if score is None else score)

    def _render(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], int | None]:
        began = thread_time()
        renderer = self.agent.renderer
        if not self.turns:
            rendered, parent = renderer.start(self.messages, self.tools), None
        else:
            last = self.turns[-1]
            rendered = renderer.extend(self.messages, last.completion.ids.tolist(), self._added, self.tools)
            parent = last.id
            self.messages += self._added
            if rendered.rewritten:  # the template changed its past: a new branch, never a silent re-tokenisation
                self._branch, parent = [], None
                self.rewrites += 1
        self.agent.seconds.render += thread_time() - began
        return rendered.ids, parent
