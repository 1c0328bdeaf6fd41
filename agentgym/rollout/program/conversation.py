"""One program in one episode: what it asks of the policy and of the env, and how the episode ends.

The program may end it (it returns, or raises), the env (a tool that stops, too many turns), a limit, or a fault of the
machinery, whichever comes first.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any

from agentgym import activity as doing
from agentgym.errors import AgentGymError, EngineFault, EnvFault, EpisodeFault, ProgramFault, boundary
from agentgym.overrun import Overrun
from agentgym.protocols import Env, Start, Step
from agentgym.rollout.limits import held_up_by
from agentgym.rollout.metered import metered
from agentgym.rollout.program.answering import Answering, Spent
from agentgym.rollout.program.session import BlockingSession, EpisodeOver, Session
from agentgym.rollout.program.wire import Ask, Reply, WireError
from agentgym.types import Message, Outcome, StopReason, ToolCall, Turn

if TYPE_CHECKING:
    from agentgym.rollout.episode import Limits, Play
    from agentgym.rollout.program.agent import ProgramAgent

SILENT = "it never called the model: its client has to be made with the base_url and api_key that it is given"
LATE = "the program did not get an answer from the model in time"


class ProgramConversation:
    """A program's side of one episode, as `agent.Conversation` is our own agent's. All but `rate` belongs to the
    worker's event loop."""

    def __init__(self, agent: ProgramAgent, start: Start, session: str):
        self.agent = agent
        self.start = start
        self.session = session
        self.seed = 0
        self._answering = Answering(agent, session)
        self._branches = self._answering.branches
        self._rated: dict[int, float] = {}
        self._inside: set[asyncio.Task[Any]] = set()
        """What works for the program in this loop."""
        self._env_free = asyncio.Lock()
        self._activity = doing.current()
        self._over: asyncio.Future[Step | StopReason] = asyncio.get_running_loop().create_future()
        """How somebody other than the program ended the episode; a fault as its exception."""

    @property
    def turns(self) -> list[Turn]:
        return self._branches.turns

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What the program first asked."""
        return self._branches.prompt if self.turns else self.start.messages

    @property
    def rewrites(self) -> int:
        return self._branches.causes.get("template", 0)

    @property
    def awaiting(self) -> str:
        return "" if self.turns else LATE

    @property
    def metrics(self) -> dict[str, float]:
        """Branches by cause, and malformed answers."""
        causes = self._branches.causes
        named = {f"branches_{cause}": float(count) for cause, count in sorted(causes.items())}
        return {"branches": float(sum(causes.values())), **named, "malformed": float(self._answering.malformed)}

    @property
    def start_score(self) -> float | None:
        return self.start.score

    def pay(self, reward: float, score: float | None = None) -> None:
        self._branches.pay(reward, score=score)

    # -- the episode -----------------------------------------------------------------------------------------------

    async def run(self, env: Env, play: Play, limits: Limits) -> Step:
        """Run the program to the end of the episode. Raises `EpisodeFault`."""
        self._env, self._play, self._limits, self.seed = env, play, limits, play.seed
        if self._activity is not None:
            self._activity.enter(doing.PROGRAM)
        base_url = await self.agent.server.start()
        key = self.agent.server.open(self)
        work = asyncio.wrap_future(self.agent.stage.begin(self.agent.program, self._given(base_url, key)))
        try:
            await asyncio.wait({work, self._over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.agent.server.shut(key)
            work.cancel()
            await self._leave()
        if self._over.done():
            end = self._over.result()
            step = await self._finish(end) if isinstance(end, StopReason) else end
        else:
            step = await self._settle(work)
        self._pay_rated()
        return step

    async def _leave(self) -> None:
        """Nothing may work for the program any more when the env is asked for its verdict."""
        if self._over.done():
            self._over.exception()  # it is told by `run`, or by whoever cancelled that
        inside = [task for task in self._inside if task is not asyncio.current_task()]
        for task in inside:
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)
        for name in self._branches.sessions:
            if name != self.session:  # that one is let go with the episode
                await self.agent.engine.release(name)

    def _given(self, base_url: str, key: str) -> dict[str, Any]:
        program = self.agent.program
        session = (Session if program.is_async else BlockingSession)(self, base_url, key)
        known: dict[str, Any] = {
            "session": session,
            "task": session.task,
            "messages": session.messages,
            "tools": session.tools,
            "base_url": base_url,
            "api_key": key,
            "model": session.model,
        }
        if "client" in program.asks:
            known["client"] = self.agent.stage.client(program, base_url, key)
        return {name: known[name] for name in program.asks}

    async def _settle(self, work: asyncio.Future[Any]) -> Step:
        """The end by the program itself: score what it returned."""
        if work.cancelled():
            raise ProgramFault("it was cancelled")
        error = work.exception()
        if error is not None:
            if self._answering.cut is not None and not isinstance(error, EpisodeOver):
                return await self._finish(self._answering.cut)  # what it gave up on is the model's doing
            if isinstance(error, ProgramFault):
                raise error
            raise ProgramFault(self.agent.program.blame(error)) from error
        value = work.result()
        if inspect.iscoroutine(value):
            value.close()
            raise ProgramFault("it returned a coroutine that nobody awaits: what returns one has to be an `async def`")
        if not self.turns:
            raise ProgramFault(SILENT)
        return await self._score(value)

    async def _score(self, value: Any) -> Step:
        if isinstance(value, str):
            return await self._answer(value)
        if value is None and not self._rated:
            last = self.turns[-1].message
            return await self._answer(last.text) if not last.tool_calls else await self._finish(StopReason.completed)
        if isinstance(value, Mapping) and value and all(self._answering.number(name) is not None for name in value):
            try:
                for name, reward in value.items():
                    self.rate(reward, name)
            except (TypeError, ValueError) as e:
                raise ProgramFault(f"it returned {e} as a completion's reward; expected a number") from None
            value = None
        return await self._own_reward(value)

    async def _answer(self, text: str) -> Step:
        """By the env's reward on the program's answer."""
        last = self.turns[-1].message
        message = last if text == last.text and not last.tool_calls else Message("assistant", text)
        with boundary(EnvFault, "step"):
            step = await metered(self._env.astep(message), self.agent.seconds.spend_env, self._activity)
        if not step.done:  # the env's user has more to say, and nobody is there to hear it
            return await self._finish(StopReason.completed)
        self.pay(step.reward, step.score)
        return step

    async def _own_reward(self, value: Any) -> Step:
        """By what the program says itself: a number, named numbers, or what it gave its completions."""
        rated = sum(self._rated.values())
        try:
            if isinstance(value, Mapping):
                components = {str(name): _number(part) for name, part in value.items()}
                total = sum(components.values())
            else:
                total = 0.0 if value is None else _number(value)
                components = {"reward": total + rated}
        except (TypeError, ValueError) as e:
            raise ProgramFault(f"it returned {e}; expected a text, a number, a dict of numbers or None") from None
        if not components:
            raise ProgramFault("it returned an empty dict; expected rewards by completion id or by name")
        with boundary(EnvFault, "aclose"):
            await self._env.aclose()  # its own verdict is not asked for
        self.pay(total)
        good = total + rated >= getattr(self._env, "success", 1.0) - 1e-9
        return Step(
            terminated=True,
            stop_reason=StopReason.completed,
            components=components,
            outcome=Outcome.correct if good else Outcome.incorrect,
        )

    async def _finish(self, reason: StopReason) -> Step:
        with boundary(EnvFault, "finish"):
            step = await self._env.finish(reason)
        self.pay(step.reward, step.score)
        return step

    async def stop(self, reason: StopReason) -> Step:
        """The end from outside, after `run` was cancelled: how it ended, if it had, or the env's verdict now."""
        if self._over.done() and isinstance(end := self._over.result(), Step):
            step = end
        else:
            step = await self._finish(reason)
        self._pay_rated()
        return step

    def _pay_rated(self) -> None:
        for number, reward in self._rated.items():
            self._branches.pay(reward, number)

    # -- what the program does -------------------------------------------------------------------------------------

    def rate(self, value: float, completion_id: str | None = None) -> None:
        """Reward one completion; raises `ValueError` for an id that was not given out, or no finite number."""
        number = len(self.turns) - 1 if completion_id is None else self._answering.number(completion_id)
        if number is None or number < 0:
            raise ValueError(f"no completion {completion_id!r} in this episode" if completion_id else "no completion")
        self._rated[number] = self._rated.get(number, 0.0) + _number(value)

    async def step(self, message: Message) -> list[dict[str, Any]]:
        """The env's answer to an assistant message. Raises `EpisodeOver` where that ends the episode."""
        number = self._branches.find(message)
        told = message if number is None else self.turns[number].message  # as it was parsed: with its errors
        with self._working():
            step = await self._step(told)
            self._branches.pay(step.reward, -1 if number is None else number, step.score)
            if step.done:
                if number is not None:
                    self._branches.observe(number, step.messages)
                self._end(step)
                raise EpisodeOver
        return self._branches.outward(step.messages, number)

    async def call(self, call: ToolCall) -> str:
        """What the env answers to one call."""
        answers = await self.step(Message("assistant", tool_calls=(call,)))
        return "\n".join(str(row["content"]) for row in answers)

    async def _step(self, message: Message) -> Step:
        async with self._env_free:
            if self._over.done():
                raise EpisodeOver
            try:
                with boundary(EnvFault, "step"), self._doing(doing.ENV):
                    return await metered(self._env.astep(message), self.agent.seconds.spend_env, self._activity)
            except EpisodeFault as fault:
                self._fail(fault)
                raise EpisodeOver from fault
            except Overrun:
                assert self._activity is not None
                self._fail(held_up_by(self._activity, self._limits) or EnvFault("it held up the event loop"))
                raise EpisodeOver from None

    async def complete(self, ask: Ask) -> Reply:
        """The policy's answer to one request. Raises `WireError`."""
        if self._over.done():
            raise WireError(400, "this episode is over", code="episode_over")
        with self._working():
            try:
                with boundary(EngineFault, "endpoint", passes=AgentGymError), self._doing(doing.ENGINE):
                    return await self._answering.complete(ask, self._play, self._limits)
            except Spent as spent:
                raise self._spent(spent.reason) from None
            except EpisodeFault as fault:  # nothing that the program could do about
                self._fail(fault)
                raise WireError(500, f"{fault.kind}: {fault}", code=fault.kind) from None

    # -- its end ---------------------------------------------------------------------------------------------------

    def _spent(self, reason: StopReason) -> WireError:
        if not self._over.done():
            self._over.set_result(reason)
        return WireError(400, f"this episode is over: {reason.value}", code="episode_over")

    def _end(self, step: Step) -> None:
        if not self._over.done():
            self._over.set_result(step)

    def _fail(self, fault: EpisodeFault) -> None:
        if not self._over.done():
            self._over.set_exception(fault)

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """What the episode does, then it is the program's turn again. These tasks are not the episode's own."""
        activity = self._activity
        if activity is None:
            yield
            return
        before = doing.make_current(activity)
        activity.enter(what)
        try:
            yield
        except BaseException as e:
            if not doing.broken_off(e):
                activity.enter(doing.PROGRAM)
            raise
        finally:
            doing.restore(before)
        activity.enter(doing.PROGRAM)

    @contextmanager
    def _working(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._inside.add(task)
        try:
            yield
        finally:
            self._inside.discard(task)


def _number(value: Any) -> float:
    """A finite number; raises `TypeError` or `ValueError` with what it is instead."""
    if not isinstance(value, Real) and not hasattr(value, "__float__"):
        raise TypeError(f"{type(value).__name__} ({value!r:.80})")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number}")
    return number
