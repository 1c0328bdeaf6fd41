"""The policy's side of a program's conversation: a request comes, a turn is sampled, an answer goes out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from time import thread_time
from typing import TYPE_CHECKING, Any

from agentgym.errors import AgentGymError, EngineFault, ModelError, boundary
from agentgym.rollout.program.branches import Branches, Place, stopped_at
from agentgym.rollout.program.wire import Ask, Reply, WireError, outward
from agentgym.rollout.routing import experts_known
from agentgym.types import Completion, SamplingParams, StopReason

if TYPE_CHECKING:
    from agentgym.rollout.episode import Limits, Play
    from agentgym.rollout.program.agent import ProgramAgent


class Spent(AgentGymError):
    """A limit of the run is reached: the episode is to end for this reason."""

    def __init__(self, reason: StopReason):
        super().__init__(reason.value)
        self.reason = reason


class Answering:
    """Answers one episode's requests and keeps what was sampled.

    `cut`: what was the matter with the latest answer, if the program cannot be blamed for giving up on it.
    `malformed`: answers with a call that cannot be read.
    """

    def __init__(self, agent: ProgramAgent, session: str):
        self.branches = Branches(agent.renderer, session)
        self.cut: StopReason | None = None
        self.malformed = 0
        self._agent = agent
        self._tag = hashlib.blake2b(session.encode(), digest_size=4).hexdigest()
        self._asked = 0

    def number(self, completion_id: Any) -> int | None:
        """The turn of a completion's id; None for one that was not given out."""
        tag, _, number = str(completion_id).rpartition("-")
        known = tag == f"chatcmpl-{self._tag}" and number.isdecimal() and int(number) < len(self.branches.turns)
        return int(number) if known else None

    async def complete(self, ask: Ask, play: Play, limits: Limits) -> Reply:
        """Raises `WireError`, `Spent`, `EngineFault`."""
        params = self._params(ask, play, limits)
        place = self._place(ask)
        if self._agent.routing:
            before = len(place.prompt) - len(place.context)
            params = replace(params, experts_from=experts_known(self.branches.turns, place.parent, before))
        self._asked += 1
        with boundary(EngineFault, passes=AgentGymError):
            completion = await self._agent.engine.generate(place.prompt, params, session=place.session)
        if not len(completion.ids):
            self.cut = StopReason.context_overflow
            raise WireError(
                400,
                f"this model's maximum context length is reached: the conversation has {len(place.prompt)} tokens",
                param="messages",
                code="context_length_exceeded",
            )
        return self._reply(ask, place, completion)

    def _params(self, ask: Ask, play: Play, limits: Limits) -> SamplingParams:
        turns, room = self.branches.turns, limits.message_tokens
        if limits.turns and len(turns) >= limits.turns:
            raise Spent(StopReason.max_turns)
        if limits.episode_tokens:
            room = min(room, limits.episode_tokens - sum(turn.completion.tokens for turn in turns))
            if room <= 0:
                raise Spent(StopReason.max_tokens)
        if ask.max_tokens is not None:
            room = min(room, ask.max_tokens)
        # one seed a request, as our own agent has one a turn
        seed = (play.seed * 1_000_003 + self._asked) & 0x7FFFFFFF
        return SamplingParams(room, play.temperature, self._agent.stop_ids, seed)

    def _place(self, ask: Ask) -> Place:
        began = thread_time()
        try:
            return self.branches.place(ask)
        except ModelError as e:
            raise WireError(400, str(e), param="messages") from None
        finally:
            self._agent.seconds.render += thread_time() - began

    def _reply(self, ask: Ask, place: Place, completion: Completion) -> Reply:
        began = thread_time()
        renderer = self._agent.renderer
        completion, text = stopped_at(renderer, completion, ask.stop)
        parsed = self._agent.parser.parse(text, ask.tools)
        message = parsed.message()
        if ask.calls == "none" and message.tool_calls:
            message = replace(message, content=text, tool_calls=())
        elif ask.calls == "one":
            message = replace(message, tool_calls=message.tool_calls[:1])
        self._agent.seconds.parse += thread_time() - began
        sent = outward(message, self.branches.call_ids(self._tag, message), text)
        bad = any(call.error is not None for call in message.tool_calls)
        self.malformed += bad
        cut = completion.finish_reason == "length"
        self.cut = StopReason.max_tokens if cut else StopReason.parse_error if bad else None
        turn = self.branches.add(place, completion, message, sent)
        reason = "length" if cut else "tool_calls" if message.tool_calls else "stop"
        return Reply(f"chatcmpl-{self._tag}-{turn.id}", ask.model, sent, reason, len(place.prompt), len(completion.ids))
