"""Plays groups of episodes, many at once, each in an env instance of its own that is reused afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agentgym.activity import Activity
from agentgym.errors import EnvFault, EpisodeFault, ToolFault, boundary
from agentgym.overrun import Guard, guard_here
from agentgym.protocols import Env
from agentgym.rollout.episode import VERDICT_SECONDS, AnyAgent, Limits, Play, run_episode, unplayed
from agentgym.rollout.group_score import score_group
from agentgym.rollout.limits import cancelled_by
from agentgym.rollout.room import Room
from agentgym.types import Group, GroupRequest, Trajectory

EnvFactory = Callable[[str], Env]
"""Builds the env of an id."""
DEAF_SECONDS = 5.0
"""Whoever has not ended so long after it was cancelled is left to itself."""


class Collector:
    """Plays `GroupRequest`s under one bound on concurrent episodes.

    `retries`: an episode whose machinery failed is played again, in a fresh env and with other draws, at most so often.
    """

    def __init__(
        self,
        agent: AnyAgent,
        make_env: EnvFactory,
        limits: Limits,
        *,
        concurrency: int = 64,
        retries: int = 0,
    ):
        self._agent = agent
        self._make_env = make_env
        self._limits = limits
        self._retries = retries
        self.room = Room(concurrency)
        self.activities: set[Activity] = set()
        """Of the episodes under way."""
        self._guard: Guard | None = None
        self._left: set[asyncio.Task[Any]] = set()
        """Episodes that did not end when they were told to."""
        self._idle: dict[str, list[Env]] = {}
        self._played: dict[str, Env] = {}
        """Any one that played, by id: comparing a group's episodes uses nothing of an instance's own."""

    async def play_group(self, request: GroupRequest) -> Group:
        """Play the request's task `size` times, at once as far as there is room."""
        played = await asyncio.gather(*(self._play(request, request.first + i) for i in range(request.size)))
        trajectories = tuple(trajectory for episode in played for trajectory in episode)
        if any(t.reward is not None for t in trajectories):
            env = self._played[request.env_id]
            trajectories = await score_group(env, trajectories, reset_options(request), self._limits.seconds)
        task_id = next((t.task_id for t in trajectories if t.task_id), str(request.task))
        return Group(request.id, task_id, request.env_id, trajectories, request)

    async def _play(self, request: GroupRequest, episode: int) -> tuple[Trajectory, ...]:
        faults: Counter[str] = Counter()
        async with self.room:
            for attempt in range(self._retries + 1):
                played = await self._attempt(request, episode, attempt)
                kinds = [kind for t in played if (kind := fault_kind(t))]
                if not kinds:
                    break
                faults.update(kinds[:1])
        if not faults:
            return played
        counted = {f"fault/{kind}": float(count) for kind, count in faults.items()}
        return tuple(replace(t, metrics={**t.metrics, **counted}) for t in played)

    async def _attempt(self, request: GroupRequest, episode: int, attempt: int) -> tuple[Trajectory, ...]:
        play = Play(
            id=f"{request.id}/{episode}",
            env_id=request.env_id,
            options=reset_options(request),
            seed=episode_seed(request, episode, attempt),
            temperature=request.temperature,
            episode=episode,
        )
        idle = self._idle.setdefault(request.env_id, [])
        try:
            with boundary(EnvFault, "make"):
                env = idle.pop() if idle and not attempt else self._make_env(request.env_id)
        except EpisodeFault as e:  # it could be made when the run began: a failure like any other
            return (unplayed(play, f"{e.kind}: {e}"),)
        trajectories = await self._within_time(env, play)
        if trajectories is None:  # what still runs in it may do anything to it
            return (unplayed(play, f"{ToolFault.kind}: the env or a tool did not end when its time was over"),)
        self._played[request.env_id] = env
        if any(trajectory.error for trajectory in trajectories):
            await _abandon(env)
        else:
            idle.append(env)
        return trajectories

    async def _within_time(self, env: Env, play: Play) -> tuple[Trajectory, ...] | None:
        """Play an episode; None where it goes on after its time is over, whatever it is told."""
        limits = self._limits
        if self._guard is None:
            self._guard = guard_here()
        activity = Activity(play.id, limits.seconds, tool_seconds=limits.tool_seconds, guard=self._guard)
        self.activities.add(activity)
        task = asyncio.get_running_loop().create_task(run_episode(env, self._agent, play, limits, activity))
        try:
            await asyncio.wait((task,), timeout=limits.seconds + VERDICT_SECONDS + DEAF_SECONDS)
            if task.cancelled():  # and not by us: its own code has done that
                fault = cancelled_by(activity.cancelled_in)
                return (unplayed(play, f"{fault.kind}: {fault}"),)
            if task.done():
                return task.result()
            self._leave_behind(task)
            return None
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,), timeout=DEAF_SECONDS)
            if not task.done():
                self._leave_behind(task)
            raise
        finally:
            self.activities.discard(activity)

    def held_up(self) -> tuple[str, str, float] | None:
        """What of which episode has held up the event loop for a second or more, and for how many."""
        stretch = self._guard.held_up() if self._guard is not None else None
        if stretch is None or stretch[1] < 1.0:
            return None
        activity, seconds = stretch
        return activity.waiting_on()[0], activity.episode, seconds

    def _leave_behind(self, task: asyncio.Task[Any]) -> None:
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        task.cancel()

    async def aclose(self) -> None:
        for envs in self._idle.values():
            for env in envs:
                await env.aclose()
        self._idle.clear()
        self._played.clear()
        if self._guard is not None:
            self._guard.leave()
            self._guard = None


async def _abandon(env: Env) -> None:
    """Let go of an env that a fault may have left in any state; what went wrong is recorded."""
    with suppress(EpisodeFault), boundary(EnvFault, "aclose"):
        async with asyncio.timeout(DEAF_SECONDS):
            await env.aclose()


def fault_kind(trajectory: Trajectory) -> str:
    """What of the machinery failed in an unscored episode, by its boundary; empty for a scored one."""
    return (trajectory.error or "").partition(":")[0] if trajectory.reward is None else ""


def reset_options(request: GroupRequest) -> dict[str, Any]:
    """How the request's task is named to an env."""
    key = "index" if isinstance(request.task, int) else "task_id"
    return {key: request.task, "split": request.split}


def episode_seed(request: GroupRequest, episode: int, attempt: int = 0) -> int:
    """A seed that depends on nothing but the run's seed, the request, the episode's place in it and the attempt."""
    text = f"{request.seed}/{request.id}/{episode}{f'/{attempt}' if attempt else ''}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") & 0x7FFFFFFF
