"""The agent for a model behind somebody else's endpoint: messages go out, a message comes back.

Token ids are never known, so that what it plays can be scored and not trained. `Agent` is the one for engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agentgym.engines.endpoint import ChatEndpoint
from agentgym.protocols import Start
from agentgym.rollout.agent import Seconds
from agentgym.rollout.chat_text import ChatText
from agentgym.types import Completion, Message, SamplingParams, Turn

NOTHING = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class ChatAgent:
    engine: ChatEndpoint
    text: ChatText
    """How messages and tools are written for it, and its answers read."""
    seconds: Seconds = field(default_factory=Seconds)
    stop_ids: tuple[int, ...] = ()

    def converse(self, start: Start, session: str) -> ChatConversation:
        return ChatConversation(self, start, session)


class ChatConversation:
    """One agent's side of one episode, as `agent.Conversation`, in messages alone."""

    rewrites = 0

    def __init__(self, agent: ChatAgent, start: Start, session: str):
        self.agent = agent
        self.session = session
        self.prompt = start.messages
        self.tools = start.tools
        self.start_score = start.score
        self.messages: list[Message] = list(start.messages)
        self.turns: list[Turn] = []
        self.awaiting = ""
        """What is being waited for from outside, "" where nothing is."""

    async def act(self, params: SamplingParams) -> tuple[Message, Completion]:
        """The endpoint's next message; cut as `length` where its context has no room. Raises `EngineFault`."""
        text = self.agent.text
        self.awaiting = f"{self.agent.engine.name} did not answer in time"
        body = text.write(self.messages, self.tools)
        answer = await self.agent.engine.chat(body, params, lambda trouble: setattr(self, "awaiting", trouble))
        self.awaiting = ""
        message = text.read(answer.message, self.tools, f"call_{len(self.turns)}_")
        completion = Completion(NOTHING, NOTHING.astype(np.float32), NOTHING, answer.finish_reason, answer.tokens)
        self.messages.append(message)
        parent = len(self.turns) - 1 if self.turns else None
        self.turns.append(Turn(len(self.turns), parent, NOTHING, completion, message))
        return message, completion

    def observe(self, messages: Sequence[Message], reward: float, score: float | None = None) -> None:
        """What the env answered to the last message, what it paid for it, and the score of the state now."""
        self.messages += messages
        self.turns[-1] = replace(self.turns[-1], observations=tuple(messages), reward=reward, score=score)

    def pay(self, reward: float, score: float | None = None) -> None:
        """A reward that came after the last answer (a limit ended the episode), and the state's last score."""
        if self.turns and (reward or score is not None):
            last = self.turns[-1]
            self.turns[-1] = replace(last, reward=last.reward + reward, score=last.score if score is None else score)
