"""The rollout worker: envs, tools, agent and engine of one process, fed with requests and weights.

The same class runs inside the caller's process (notebooks, debugging) and in a process of its own.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.activity import Activity
from agentgym.config import Config, EnvConfig
from agentgym.engines.endpoint import ChatEndpoint, is_endpoint
from agentgym.engines.load import load_of
from agentgym.errors import ConfigError, EngineFault, RunError
from agentgym.protocols import Engine
from agentgym.rollout.adaptive import LOOK_SECONDS, Adaptive
from agentgym.rollout.agent import Agent
from agentgym.rollout.chat_agent import ChatAgent
from agentgym.rollout.collector import Collector
from agentgym.rollout.episode import AnyAgent, Limits
from agentgym.rollout.program.agent import ProgramAgent
from agentgym.rollout.program.function import load_program
from agentgym.rollout.situation import Situation, phases_of
from agentgym.types import Group, GroupRequest
from agentgym.weights import WeightUpdate


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker needs to build everything itself: it travels to other processes."""

    config: Config
    model_path: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """Sent up instead of a group when the worker itself broke; `traceback` says where."""

    traceback: str


Emit = Callable[[Group | WorkerFailed], None]


class Worker:
    """Plays requests as they come; finished groups go to `emit`. All methods belong to one event loop.

    given: the engine, where it is not to be made as the spec says.
    """

    closing = False
    """Whether what is under way is to be cancelled and forgotten."""

    def __init__(self, spec: WorkerSpec, emit: Emit, given: Engine | None = None):
        self._emit = emit
        self._tasks: set[asyncio.Task[None]] = set()
        engine, agent = build_agent(spec, given)
        self.engine: Engine | ChatEndpoint = engine
        self.agent: AnyAgent = agent
        rollout = spec.config.rollout
        slots = int(getattr(self.engine, "slots", 0))
        # an episode without a slot of its own loses its cache to others, where it takes long between two turns
        room = min(rollout.concurrency, slots) if slots else rollout.concurrency
        self._collector = Collector(
            self.agent,
            env_factory(spec.config),
            limits_of(spec.config),
            concurrency=room,
            # an endpoint repeats requests itself, and what it then refuses it refuses again
            retries=0 if is_endpoint(spec.model_path) else rollout.retries,
        )
        self._adaptive: Adaptive | None = None
        if rollout.adaptive and not is_endpoint(spec.model_path):
            self._adaptive = Adaptive(self._collector.room, rollout.concurrency, slots=slots)
        self._looking: asyncio.Task[None] | None = None

    def submit(self, request: GroupRequest) -> None:
        task = asyncio.get_running_loop().create_task(self._play(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def play(self, request: GroupRequest) -> Group:
        """One group, at once with whatever else is played."""
        if self._adaptive is not None and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look(self._adaptive), name="adaptive")
        return await self._collector.play_group(request)

    async def answer(self, request: GroupRequest) -> Group | WorkerFailed:
        """`play`, whatever happens: whoever waits for the group must hear of it."""
        try:
            return await self.play(request)
        except asyncio.CancelledError:
            if self.closing:
                raise
            return WorkerFailed(traceback.format_exc())
        except BaseException:  # a defect of ours, not of an episode: the driver is to stop
            return WorkerFailed(traceback.format_exc())

    async def _play(self, request: GroupRequest) -> None:
        self._emit(await self.answer(request))

    async def _look(self, adaptive: Adaptive) -> None:
        """While anything is played, now and then at the engine."""
        room = self._collector.room
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not room.taken and not room.waiting:
                return
            adaptive.look(await load_of(self.engine))

    async def update_weights(self, update: WeightUpdate) -> None:
        """Raises `RunError` where the engine does not run what it was sent: a run on other weights is no run."""
        try:
            await self.engine.update_weights(update)
        except EngineFault as e:
            raise RunError(f"version {update.version} of the weights did not arrive: {e}") from None

    def situation(self) -> Situation:
        """What the episodes are at. From any thread: it may be that the event loop does not turn."""
        collector, engine = self._collector, getattr(self.engine, "stats", {})
        counts = {name: float(engine[name]) for name in ("running", "waiting") if name in engine}
        if slots := getattr(self.engine, "slots", None):
            counts["slots"] = float(slots)
        return Situation(
            phases_of(_copy(collector.activities)),
            collector.room.waiting,
            collector.room.limit,
            counts,
            collector.held_up(),
        )

    def stats(self) -> dict[str, float]:
        """Cumulative: CPU-seconds and peak memory of this process, its parts in seconds, and the engine's counters."""
        parts = self.agent.seconds
        engine: dict[str, Any] = getattr(self.engine, "stats", {})
        return {
            "cpu_s": time.process_time(),
            "peak_mem": peak_mem(),
            "render_s": parts.render,
            "parse_s": parts.parse,
            "env_s": parts.env,
            "episodes": float(self._collector.room.taken),
            "concurrency": float(self._collector.room.limit),
            "backed_off": float(self._adaptive.backed_off if self._adaptive else 0),
            **{f"engine/{key}": float(value) for key, value in engine.items()},
        }

    async def aclose(self) -> None:
        self.closing = True
        under_way = [*self._tasks, *([self._looking] if self._looking is not None else [])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._collector.aclose()
        if isinstance(self.agent, ProgramAgent):
            await self.agent.aclose()
        await self.engine.aclose()


def build_agent(
    spec: WorkerSpec, given: Engine | None = None
) -> tuple[Engine, Agent | ProgramAgent] | tuple[ChatEndpoint, ChatAgent]:
    """The engine on the spec's model folder (or the one given), or the endpoint at its URL, and the agent that talks to
    it."""
    program = load_program(spec.config.rollout.agent) if spec.config.rollout.agent else None
    if is_endpoint(spec.model_path):
        if program is not None:
            raise ConfigError("rollout.agent needs the model itself, a folder or a run: an endpoint has no token ids")
        return _chat_agent(spec)
    from agentgym.engines.make import make_engine
    from agentgym.rollout.make import make_parser, make_renderer
    from agentgym.rollout.thinking import ThinkingEngine

    engine = given or make_engine(spec.config, spec.model_path, version=spec.version)
    renderer = make_renderer(spec.model_path, spec.config)
    parser = make_parser(renderer)
    budget, routing = spec.config.rollout.max_reasoning_tokens, spec.config.learner.routing_replay
    asked = ThinkingEngine(engine, renderer, parser, budget) if budget else engine
    if program is not None:
        return engine, ProgramAgent(asked, renderer, parser, program, routing=routing)
    return engine, Agent(asked, renderer, parser, routing=routing)


def _chat_agent(spec: WorkerSpec) -> tuple[ChatEndpoint, ChatAgent]:
    from agentgym.engines.make import make_endpoint
    from agentgym.rollout.chat_text import ChatText
    from agentgym.rollout.parsers import get_parser

    config = spec.config
    name = "hermes" if config.model.tool_format == "auto" else config.model.tool_format
    try:
        parser = get_parser(name)
    except ValueError as e:
        raise ConfigError(f"model.tool_format: {e}") from None
    endpoint = make_endpoint(spec.model_path, config)
    return endpoint, ChatAgent(endpoint, ChatText(parser, config.endpoint.tools == "native"))


def _copy(activities: set[Activity]) -> list[Activity]:
    while True:
        try:
            return list(activities)
        except RuntimeError:  # it has changed under our hands
            continue


def limits_of(config: Config) -> Limits:
    rollout = config.rollout
    return Limits(
        rollout.max_turns,
        rollout.max_tokens,
        rollout.max_episode_tokens,
        rollout.max_seconds,
        rollout.turn_seconds,
        rollout.tool_seconds,
    )


def env_factory(config: Config, *, demonstrations: bool = False) -> Callable[[str], Any]:
    """Builds the config's envs by the id that requests carry; for `demonstrations` with their `demo_args`."""
    from agentgym.registry import make_env

    known = {env.id: env for env in config.all_envs} | {env.label: env for env in config.all_envs}

    def make(env_id: str) -> Any:
        env = known[env_id]
        args = {**env.args, **env.demo_args} if demonstrations else dict(env.args)
        made = make_env(env.id, data=env.data, reward=env.reward, tools=env.tools, args=args)
        return _with_score(_with_sandbox(_with_rewards(made, env), config), config)

    return make


def _with_rewards(env: Any, told: EnvConfig) -> Any:
    """The env with the graders that the configuration adds to its reward."""
    if told.rewards:
        if not hasattr(env, "use_rewards"):
            raise ConfigError(f"env.rewards: {type(env).__name__} takes no graders by name (a ToolEnv has use_rewards)")
        env.use_rewards(**told.rewards)
    return env


def _with_score(env: Any, config: Config) -> Any:
    """The env, reporting the score of its states where the configuration's credit needs it from there."""
    if config.trainer.credit == "progress" and config.credit.score != "gold":
        if hasattr(env, "use_score"):
            env.use_score(config.credit.score)
        elif config.credit.score != "env":  # it may report scores of its own accord, in its steps
            raise ConfigError(f"credit.score: {type(env).__name__} cannot be scored by name (a ToolEnv has use_score)")
    return env


def _with_sandbox(env: Any, config: Config) -> Any:
    """The env, running code where the configuration's `sandbox` says."""
    told = {name: value for name, value in config.sandbox.model_dump().items() if value}
    if told:
        if not hasattr(env, "use_sandbox"):
            raise ConfigError(
                f"sandbox.{next(iter(told))}: {type(env).__name__} has no sandbox to change (a ToolEnv has use_sandbox)"
            )
        env.use_sandbox(**told)
    return env


def peak_mem() -> float:
    """The most memory this process has held, in MiB."""
    try:
        # getrusage would count, in a spawned process, what its parent held when it started it
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / (1 << 10)
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
