"""Watching an episode as it happens, or playing it oneself in the agent's place."""

from __future__ import annotations

import ast
import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from agentgym.config import Config
from agentgym.errors import ConfigError, EpisodeFault, UserError
from agentgym.protocols import Env, Policy, Start, Step
from agentgym.report.progress import figure
from agentgym.report.transcript import call_text, print_end, print_message, verdict
from agentgym.rollout.episode import Play, run_episode
from agentgym.rollout.program.agent import ProgramAgent
from agentgym.rollout.worker import WorkerSpec, build_agent, env_factory, limits_of
from agentgym.types import Message, StopReason, Task, ToolCall

Player = Literal["expert", "human", "model"]
Speaker = Callable[[Sequence[Message]], Awaitable[Message]]
HELP = """\
You are the agent. Type an answer, or a call such as {example}
/tools lists the tools, /quit ends."""


def play_episodes(
    config: Config, player: Player, model: str, *, episodes: int, seed: int, task: str | None, temperature: float
) -> int:
    """Play episodes of `config.env` on the terminal; `model` is the folder or id that the player "model" uses.

    Returns how many met a fault and so have no score.
    """
    with _interruptible():
        return asyncio.run(_play_episodes(Console(), config, player, model, episodes, seed, task, temperature))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends even a blocking read: asyncio's own handler would only cancel the task at its next await."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


async def _play_episodes(
    console: Console,
    config: Config,
    player: Player,
    model: str,
    episodes: int,
    seed: int,
    task: str | None,
    temperature: float,
) -> int:
    env = WatchedEnv(env_factory(config)(config.env.id), console, player)
    agent = build_agent(WorkerSpec(config, model))[1] if player == "model" else None
    tasks = env.tasks("test") or env.tasks("train")
    unscored = 0
    try:
        for number in range(seed, seed + episodes):
            options = {"task_id": task} if task is not None else {"task": tasks[number % len(tasks)]}
            console.rule(f"episode {number}")
            if agent is not None:
                play = Play(f"play/{number}", config.env.id, options, number, temperature)
                (played,) = await run_episode(env, agent, play, limits_of(config))
                for turn in played.turns[env.heard :]:  # a limit cut the last message: the env never heard it
                    print_message(console, turn.message)
                print_end(console, verdict(played), good=bool(played.outcome))
                unscored += played.reward is None
                continue
            begin = play_human if player == "human" else play_expert
            end, good = await begin(console, env, number, options)
            print_end(console, end, good=good)
    except EOFError:
        console.print()
    except EpisodeFault as fault:
        print_end(console, f"unscored: {fault.kind}: {fault}", good=False)
        unscored += 1
    finally:
        await env.aclose()
        if isinstance(agent, ProgramAgent):
            await agent.aclose()
        if agent is not None:
            await agent.engine.aclose()
    return unscored


class WatchedEnv:
    """An env whose every word is printed; otherwise the env itself, so it can be played by any loop."""

    def __init__(self, env: Env, console: Console, player: Player):
        self._env, self._console, self._player = env, console, player
        self.heard = 0
        """Messages of the agent in this episode."""

    async def areset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Start:
        start = await self._env.areset(seed=seed, options=options)
        self.heard = 0
        for message in start.messages:
            print_message(self._console, message)
        return start

    async def astep(self, message: Message) -> Step:
        self.heard += 1
        if self._player != "human":
            print_message(self._console, message)
        step = await self._env.astep(message)
        for answer in step.messages:
            print_message(self._console, answer)
        return step

    async def finish(self, reason: StopReason) -> Step:
        return await self._env.finish(reason)

    def tasks(self, split: str = "train") -> Sequence[Task]:
        return self._env.tasks(split)

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy | None:
        return self._env.expert(task, seed, style)

    async def aclose(self) -> None:
        await self._env.aclose()


async def play_expert(console: Console, env: WatchedEnv, seed: int, options: Mapping[str, Any]) -> tuple[str, bool]:
    """An episode by the env's scripted expert; `ConfigError` where it has none."""
    start = await env.areset(seed=seed, options=options)
    policy = env.expert(start.task, seed)
    if policy is None:
        raise ConfigError("this env has no scripted expert and its task no demo: use --human, or --model MODEL|RUN")

    async def speak(messages: Sequence[Message]) -> Message:
        return policy(messages)

    return await _converse(env, start, speak)


async def play_human(console: Console, env: WatchedEnv, seed: int, options: Mapping[str, Any]) -> tuple[str, bool]:
    """An episode in which a person types the agent's messages."""
    start = await env.areset(seed=seed, options=options)
    console.print(Text(HELP.format(example=_example(start.tools)), style="dim"))

    async def speak(messages: Sequence[Message]) -> Message:
        while True:
            line = console.input("[bold green]you    [/]").strip()
            if line == "/quit":
                raise EOFError
            if line == "/tools":
                _print_tools(console, start.tools)
            elif line.startswith("/"):
                console.print(Text(HELP.format(example=_example(start.tools)), style="dim"))
            elif line:
                try:
                    return read_message(line, start.tools, f"call_{len(messages)}")
                except UserError as e:
                    console.print(Text(str(e), style="red"))

    return await _converse(env, start, speak)


async def _converse(env: WatchedEnv, start: Start, speak: Speaker) -> tuple[str, bool]:
    """Play to the end; returns how it ended, and whether well."""
    messages, rewards = list(start.messages), 0.0
    while True:
        message = await speak(messages)
        step = await env.astep(message)
        messages += [message, *step.messages]
        if step.done:
            parts = [step.outcome.value, step.stop_reason.value if step.stop_reason else "ended"]
            if len(step.components) > 1:
                parts += [f"{name} {figure(value)}" for name, value in step.components.items()]
            return " · ".join([f"reward {figure(rewards + step.reward)}", *parts]), bool(step.outcome)
        rewards += step.reward


def read_message(line: str, tools: Sequence[Mapping[str, Any]], call_id: str) -> Message:
    """What a person typed: `name(argument="value")` is a call if there is such a tool, anything else is words.

    Values are Python literals; one without a name goes to the next parameter. Raises `ConfigError`.
    """
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools}
    name = line.partition("(")[0].strip()
    if name not in schemas or "(" not in line:
        return Message("assistant", line)
    try:
        tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f'not a call: {line}; write {name}(argument="text", other=3)') from None
    if not isinstance(tree, ast.Call):
        return Message("assistant", line)
    given = dict(zip(schemas[name].get("properties", {}), tree.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in tree.keywords if keyword.arg}
    return Message("assistant", tool_calls=(ToolCall(call_id, name, {k: _literal(k, v) for k, v in given.items()}),))


def _literal(name: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ConfigError(f"{name}: {ast.unparse(node)} is not a value; texts go into quotes") from None


def _example(tools: Sequence[Mapping[str, Any]]) -> str:
    if not tools:
        return "(this env has no tools)"
    function = tools[0]["function"]
    properties = function.get("parameters", {}).get("properties", {})
    samples = {"string": "...", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
    arguments = {name: samples.get(schema.get("type"), "...") for name, schema in properties.items()}
    return call_text(function["name"], arguments)


def _print_tools(console: Console, tools: Sequence[Mapping[str, Any]]) -> None:
    for tool in tools:
        function = tool["function"]
        console.print(Text.assemble((_example([tool]), "yellow"), f"  {function.get('description', '')}"))
