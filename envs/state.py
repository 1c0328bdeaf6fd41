"""Saves an episode in the middle, and goes on from there: in the same env or in others, as often as one likes.

The property: the same messages from a restored state are answered and paid alike. An episode without a sandbox is
copied, its generator with it. One whose sandbox is open cannot be: files can be copied, an interpreter's variables and
running processes cannot. So where only file tools were used, the files are (a snapshot of the sandbox); else the
episode is begun again with its seed and its messages are said again, and the tools have to answer as they did.

What this does not see: state that an env keeps elsewhere than in its episode (`episode.state` is the place), and what
tools did to the world outside of it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from agentgym.errors import AgentGymError, EnvFault, SandboxFault, SandboxFileError, boundary
from agentgym.quick import quick
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode
from agentgym.types import Message

if TYPE_CHECKING:
    from agentgym.envs.tool_env import ToolEnv

FILE_TOOLS = frozenset(("read_file", "write_file", "edit_file", "list_files"))
"""Built-in tools after which a sandbox is its files and nothing more."""


@quick
@dataclass(frozen=True, slots=True)
class Beginning:
    """How an episode was begun, so that it can be again."""

    seed: int | None
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EnvState:
    """An episode in the middle. It can be pickled where the episode's own state can, and used any number of times.

    `seconds` are left of the env's timeout. `how` says what becomes of the sandbox: there is none, its files are in
    `files`, or all is to be played again from `beginning`.
    """

    episode: Episode
    paid: Mapping[str, float]
    seconds: float
    beginning: Beginning
    how: Literal["copy", "files", "replay"] = "copy"
    files: bytes = b""


async def save(env: ToolEnv) -> EnvState:
    """The state of the episode under way; raises `EnvFault` where there is none, or where it cannot be copied."""
    episode = env._under_way()
    state = EnvState(
        _copied(episode), dict(env._paid), env._deadline - perf_counter(), env._beginning or Beginning(None, {})
    )
    box = episode._sandbox
    if box is None:
        return state
    if _is_furnished(env) or not all(_is_file_tool(env, result.call.name) for result in episode.calls):
        if state.beginning.seed is None:
            raise EnvFault("this episode has a sandbox and was begun without a seed, so it cannot be played again")
        return replace(state, how="replay")
    await checkpoint()
    try:
        return replace(state, how="files", files=await box.snapshot())
    except (SandboxFault, SandboxFileError) as e:
        raise EnvFault(f"the sandbox's files cannot be saved: {e}") from e


async def restore(env: ToolEnv, state: EnvState) -> None:
    """Leave what is under way, and go on from `state`; raises `EnvFault` where that cannot be."""
    if state.how == "replay":
        await _replay(env, state)
    else:
        await env.aclose()
        _adopt(env, state, _copied(state.episode))
    if state.how == "files":
        assert env.episode is not None
        await checkpoint()
        try:
            await (await env.episode.sandbox()).restore(state.files)
        except (SandboxFault, SandboxFileError) as e:
            await env.aclose()
            raise EnvFault(f"the sandbox's files cannot be restored: {e}") from e


def _adopt(env: ToolEnv, state: EnvState, episode: Episode) -> None:
    env.episode = episode
    env._np_random = episode.rng  # one generator, as in every episode
    env._np_random_seed = state.beginning.seed
    env._paid = dict(state.paid)
    env._deadline = perf_counter() + state.seconds
    env._beginning = state.beginning
    env._ended = False
    env.timing = {"setup": 0.0, "tools": 0.0, "reward": 0.0}


async def _replay(env: ToolEnv, state: EnvState) -> None:
    """Begin again and say everything again."""
    await env.areset(seed=state.beginning.seed, options=state.beginning.options)
    want = state.episode.messages
    try:
        spoken = [message for message in want if message.role == "assistant"]
        for message in spoken[: state.episode.turns]:
            step = await env.astep(message)
            if step.done:
                raise EnvFault("played again, the episode ends before the place where it was saved")
        assert env.episode is not None
        if difference := _difference(want, env.episode.messages):
            raise EnvFault(f"played again, the episode is another: {difference}")
    except BaseException:
        await env.aclose()
        raise
    env._deadline = perf_counter() + state.seconds


def _difference(want: list[Message], got: list[Message]) -> str:
    for one, two in zip(want, got, strict=False):
        if one != two:
            return f"a {one.role} says {two.text[:80]!r} and not {one.text[:80]!r}"
    return "" if len(want) == len(got) else f"it has {len(got)} messages and not {len(want)}"


def _is_furnished(env: ToolEnv) -> bool:
    """Whether the env's own setup may have left more in the sandbox than files."""
    from agentgym.envs.tool_env import ToolEnv

    return type(env).setup is not ToolEnv.setup


def _is_file_tool(env: ToolEnv, name: str) -> bool:
    if name not in env.toolset:
        return True  # it ran nothing
    from agentgym.tools.toolset import resolve_tool

    return name in FILE_TOOLS and env.toolset[name] is resolve_tool(name)


def _copied(episode: Episode) -> Episode:
    """A deep copy without the sandbox; task and tools, which nobody changes, are shared."""
    bare = replace(episode, _sandbox=None, _opening=None)
    shared = {id(part): part for part in (episode.task, episode.tools, *episode.messages)}
    try:
        with boundary(EnvFault, "the episode's state cannot be copied"):
            return copy.deepcopy(bare, dict(shared))
    except EnvFault as e:
        raise EnvFault(f"{e}{_culprit(episode)}") from e


def _culprit(episode: Episode) -> str:
    for key, value in episode.state.items():
        try:
            copy.deepcopy(value)
        except AgentGymError:
            raise
        except Exception:
            return f" (episode.state[{key!r}], a {type(value).__name__})"
    return f" (one of {', '.join(field.name for field in fields(episode))})"
