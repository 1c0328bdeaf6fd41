"""The loop: one episode, from reset to trajectory. Failures of the machinery are data, not crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

from agentgym import activity as doing
from agentgym.activity import Activity
from agentgym.errors import (
    AgentGymError,
    EngineFault,
    EnvFault,
    EpisodeFault,
    ProgramFault,
    TimeoutFault,
    VerifierFault,
    boundary,
)
from agentgym.overrun import Overrun
from agentgym.protocols import Env, Step
from agentgym.rollout.agent import Agent, Conversation
from agentgym.rollout.chat_agent import ChatAgent, ChatConversation
from agentgym.rollout.limits import Limits as Limits
from agentgym.rollout.limits import held_up_by
from agentgym.rollout.metered import metered
from agentgym.rollout.program.agent import ProgramAgent
from agentgym.rollout.program.conversation import ProgramConversation
from agentgym.types import Completion, Outcome, SamplingParams, StopReason, Task, Trajectory

AnyAgent: TypeAlias = Agent | ChatAgent | ProgramAgent
Dialogue: TypeAlias = Conversation | ChatConversation
"""Agent and env speak in turns."""
Talk: TypeAlias = Dialogue | ProgramConversation
VERDICT_SECONDS = 30.0
"""After an episode's time is over, an env has so long for its verdict on what is there."""


@dataclass(frozen=True, slots=True)
class Play:
    """Which episode to play: the env's own reset options, and what the trajectory is filed under."""

    id: str
    env_id: str
    options: Mapping[str, Any]
    seed: int
    temperature: float = 1.0
    episode: int = 0


async def run_episode(
    env: Env, agent: AnyAgent, play: Play, limits: Limits, activity: Activity | None = None
) -> tuple[Trajectory, ...]:
    """Play one episode. A fault of env, tool, verifier or engine yields an unscored trajectory that says why.

    activity: where it is told what the episode is doing, for others to see.
    """
    began = perf_counter()
    activity = activity or Activity(play.id, limits.seconds, tool_seconds=limits.tool_seconds)
    before = doing.make_current(activity)
    talk: Talk | None = None
    task, error, end = Task("", ""), None, Step(stop_reason=StopReason.fault)
    try:
        async with asyncio.timeout_at(activity.ends) as deadline:
            with boundary(EnvFault, "reset"):
                reset = env.areset(seed=play.seed, options=play.options)
                start = await metered(reset, agent.seconds.spend_env, activity)
            task, talk = start.task, agent.converse(start, play.id)
            if isinstance(talk, ProgramConversation):
                end = await talk.run(env, play, limits)
            else:
                end = await _converse(env, talk, play, limits, deadline)
    except TimeoutError:
        if deadline.expired():
            end, error = await _time_out(env, talk, activity, limits)
        else:
            error = "timeout: the env or engine gave up waiting"
    except Overrun:
        end, error = await _time_out(env, talk, activity, limits)
    except EpisodeFault as fault:
        error = f"{fault.kind}: {fault}"
    except asyncio.CancelledError:
        activity.cancelled_in = activity.waiting_on()[0]
        raise
    finally:
        activity.enter(doing.OVER)
        doing.restore(before)
        if talk is not None:
            await agent.engine.release(talk.session)
    return (_trajectory(play, task, talk, end, error, perf_counter() - began),)


async def _converse(env: Env, talk: Dialogue, play: Play, limits: Limits, deadline: asyncio.Timeout) -> Step:
    """The loop itself: the agent speaks, the env answers, until one of them or a limit ends it."""
    sampled = 0
    activity = doing.current()
    assert activity is not None
    while True:
        if deadline.expired():
            raise TimeoutError  # a tool that was told to end did not, and has now
        if limits.turn_seconds:
            activity.turn(limits.turn_seconds)
            deadline.reschedule(activity.until)
        params = _params(play, talk, limits, sampled)
        activity.enter(doing.ENGINE)
        with boundary(EngineFault, passes=AgentGymError):  # a model that cannot be spoken to ends the run
            message, completion = await talk.act(params)
        activity.enter(doing.ENV)
        sampled += completion.tokens
        if reason := _cut(completion, params):
            return await _finish(env, talk, reason, activity)
        with boundary(EnvFault, "step"):
            step = await metered(env.astep(message), talk.agent.seconds.spend_env, activity)
        talk.observe(step.messages, step.reward, step.score)
        if step.done:
            return step
        if reason := _spent(talk, limits, sampled):
            return await _finish(env, talk, reason, activity)


def _params(play: Play, talk: Dialogue, limits: Limits, sampled: int) -> SamplingParams:
    room = limits.message_tokens
    if limits.episode_tokens:
        room = min(room, limits.episode_tokens - sampled)
    # one seed a turn: the same tokens whatever else is in the batch
    seed = (play.seed * 1_000_003 + len(talk.turns)) & 0x7FFFFFFF
    return SamplingParams(room, play.temperature, talk.agent.stop_ids, seed)


def _cut(completion: Completion, params: SamplingParams) -> StopReason | None:
    """A message that the model did not end itself is no answer."""
    if completion.finish_reason != "length":
        return None
    return StopReason.max_tokens if completion.tokens >= params.max_tokens else StopReason.context_overflow


def _spent(talk: Dialogue, limits: Limits, sampled: int) -> StopReason | None:
    if limits.turns and len(talk.turns) >= limits.turns:
        return StopReason.max_turns
    if limits.episode_tokens and sampled >= limits.episode_tokens:
        return StopReason.max_tokens
    return None


async def _finish(env: Env, talk: Talk, reason: StopReason, activity: Activity) -> Step:
    if isinstance(talk, ProgramConversation):
        return await talk.stop(reason)
    with boundary(EnvFault, "finish"):
        end = await metered(env.finish(reason), talk.agent.seconds.spend_env, activity)
    talk.pay(end.reward, end.score)
    return end


async def _time_out(env: Env, talk: Talk | None, activity: Activity, limits: Limits) -> tuple[Step, str | None]:
    """How an episode ends whose time is over: by the env's verdict on what is there, or by who let it wait."""
    nothing = Step(stop_reason=StopReason.fault)
    if talk is None:
        return nothing, f"{TimeoutFault.kind}: the env did not reset in time"
    if talk.awaiting:  # somebody else's machine did not answer: that is no failure of the model
        blamed = ProgramFault if isinstance(talk, ProgramConversation) else EngineFault
        return nothing, f"{blamed.kind}: {talk.awaiting}"
    if (held := held_up_by(activity, limits)) is not None:
        return nothing, f"{held.kind}: {held}"
    grace = min(VERDICT_SECONDS, limits.seconds)
    activity.extend(grace)
    try:
        async with asyncio.timeout(grace):
            return await _finish(env, talk, StopReason.timeout, activity), None
    except (TimeoutError, Overrun):
        return nothing, f"{VerifierFault.kind}: no verdict within {grace:g} s after the episode's time was over"
    except EpisodeFault as fault:
        return nothing, f"{fault.kind}: {fault}"


def unplayed(play: Play, error: str) -> Trajectory:
    """What is recorded of an episode that could not even begin."""
    return _trajectory(play, Task("", ""), None, Step(stop_reason=StopReason.fault), error, 0.0)


def _trajectory(play: Play, task: Task, talk: Talk | None, end: Step, error: str | None, wall: float) -> Trajectory:
    turns = tuple(talk.turns) if talk else ()
    scored = error is None and end.outcome is not Outcome.unscored
    own = talk.metrics if isinstance(talk, ProgramConversation) else {}
    return Trajectory(
        id=play.id,
        task_id=task.id,
        env_id=play.env_id,
        turns=turns,
        prompt=talk.prompt if talk else (),
        reward=float(sum(turn.reward for turn in turns)) if scored else None,
        components=dict(end.components),
        outcome=end.outcome if scored else Outcome.unscored,
        stop_reason=(end.stop_reason or StopReason.completed) if scored else StopReason.fault,
        kind=task.kind,
        episode=play.episode,
        seed=play.seed,
        tags=end.tags,
        metrics={**end.metrics, "turns": len(turns), "rewrites": talk.rewrites if talk else 0, **own},
        seconds={"wall": wall},
        error=error if error or scored else "the env ended the episode without scoring it",
        start_score=talk.start_score if talk else None,
    )
