"""`ToolEnv`: a multi-turn environment of tools, tasks and a reward.

`areset` and `astep` are its core: messages in, messages out. Gymnasium's `reset` and `step` are a face over them.
Subclass it, or give tasks, tools and a reward to the constructor.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, Self

from agentgym.activity import REWARD, current
from agentgym.envs.graders import named_components
from agentgym.envs.hooks import Hooks
from agentgym.envs.rubric import Component, Rubric
from agentgym.envs.score import Progress, StateScore, state_score
from agentgym.envs.state import Beginning, EnvState, restore, save
from agentgym.envs.tasks import SPLITS, TaskSet, as_tasks, given_tasks, load_split
from agentgym.errors import ConfigError, EnvFault, boundary
from agentgym.protocols import GroupPay, Start, Step
from agentgym.tools.driving import checkpoint
from agentgym.tools.episode import Episode, ToolResult
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Outcome, StopReason, Task, ToolCall, Trajectory


class ToolEnv(Hooks):
    """An agent talks, calls tools and at last answers; a reward scores its own last message.

    ## Action
    `step(text)`: what the model wrote, its tool calls in `tool_format`; or an assistant message as a dict with
    `tool_calls`. A message without calls is the answer and ends the episode, unless the user has more to say (`reply`).

    ## Observation
    The new text: at reset the prompt, then the tools' answers, at the end nothing. The whole chat is in
    `info["messages"]` in OpenAI's shape; info also has `tool_calls` and `tool_errors` of this turn, `stop_reason`,
    `reward_components` (at the end) and `task_id`. The tools' schemas are `env.unwrapped.toolset.schemas`.

    ## Reward
    `reward(task, answer, episode)` at the end: a number, or a dict of named ones that are weighted by `weights` (1
    where it says nothing; 0 makes a metric). `answer` is the agent's own last message, empty if that called a tool.
    The outcome is correct from a total of `success` on. A reward that raises makes the episode unscored, a fault.
    A list of `Component`s pays per turn and over a group of episodes too (docs/graders.md).

    ## Episode end
    Terminated: an answer; a tool that stops the episode; `max_parse_errors` malformed messages in a row. Truncated:
    `max_turns` assistant messages, a call beyond `max_tool_calls`, `timeout` seconds.

    ## Arguments
    tasks: `Task`s, dicts or (question, answer) pairs; a function of the split; or a dict of splits. data: a JSONL
    file in their place. tools, reward, weights and any of the attributes below: in place of the class's own.

    ## Hooks for subclasses
    `make_tasks(split)`, `read_row(row, id)`, `tools_for(task)`, `setup(episode)`, `reply(episode, message)`,
    `reward(...)`, `progress(episode)`, `expert(...)`, `tools`, `system`.
    """

    def __init__(
        self,
        tasks: Any = None,
        *,
        tools: Iterable[Any] | None = None,
        reward: Any = None,
        weights: Mapping[str, float] | None = None,
        data: str = "",
        render_mode: str | None = None,
        **options: Any,
    ):
        super().__init__(render_mode)
        self._set_options(options)
        self.toolset = ToolSet(self.tools if tools is None else tools)
        self._offered = self.toolset  # what this episode's calls are run by
        self._scoring = (reward, weights)
        self._more_parts: tuple[Component, ...] = ()
        self._state_score: StateScore | None = None
        self.rubric = self._make_rubric()
        self.timing: dict[str, float] = {}
        """Seconds of the last episode by part: setup, tools, reward."""
        self._given = tasks
        self._data = data
        self._splits: dict[str, TaskSet] = {}
        self._ended = True
        self._paid: dict[str, float] = {}
        self._deadline = 0.0
        self._beginning: Beginning | None = None
        own = type(self)
        if tasks is None and not data and own.make_tasks is Hooks.make_tasks:
            raise ConfigError(f"{own.__name__} has no tasks: give tasks=[...], or data= a JSONL file")

    def _make_rubric(self) -> Rubric:
        reward, weights = self._scoring
        rubric = Rubric.of(self.reward if reward is None else reward, self.weights if weights is None else weights)
        return rubric.joined(self._more_parts) if self._more_parts else rubric

    def use_rewards(self, **rewards: Any) -> None:
        """Add graders by their names, with their weights: see `agentgym.envs.graders`. Raises `ConfigError`."""
        self._more_parts = named_components(rewards, self)
        self.rubric = self._make_rubric()

    def use_score(self, name: str) -> None:
        """Report the state's score with every step: "env", by `progress`, or "consistency". Raises `ConfigError`."""
        self._state_score = state_score(name, self)

    @property
    def pays_turns(self) -> bool:
        """Whether messages before the last may be paid."""
        return self.rubric.has_turns or type(self).astep is not ToolEnv.astep

    # -- the core --------------------------------------------------------------------------------------------------

    def tasks(self, split: str = "train") -> TaskSet:
        """The tasks of "train" or "test", made at the first use."""
        if split not in self._splits:
            if split not in SPLITS:
                raise ConfigError(f"unknown split {split!r}; there are: {', '.join(SPLITS)}")
            self._splits[split] = self._make_split(split)
        return self._splits[split]

    def _make_split(self, split: str) -> TaskSet:
        if self._data:
            return load_split(self._data, self.read_row, split, self.holdout)
        if self._given is not None:
            return given_tasks(self._given, split, self.holdout)
        made = self.make_tasks(split)
        return made if isinstance(made, TaskSet) else TaskSet(made)

    def fresh(self) -> Self:
        """Another env of the same tasks, tools and reward, with an episode and a generator of its own."""
        other = copy.copy(self)
        other._np_random, other._np_random_seed = None, None
        other.episode, other._ended = None, True
        other.timing, other._paid = {}, {}
        other.rubric = other._make_rubric()
        return other

    async def areset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Start:
        """Start an episode. options: `task_id`, `index` or `task`, and `split`; else a task is drawn at random."""
        self._reseed(seed)
        if self.episode is not None:
            await self.episode.release()  # of one that was never ended
        if self.toolset.sources:
            await self.toolset.open(self)
        task = self._choose(options or {})
        prompt = (Message("user", task.prompt),) if isinstance(task.prompt, str) else task.prompt
        if self.system and not any(message.role == "system" for message in prompt):
            prompt = (Message("system", self.system), *prompt)
        own = self.tools_for(task)
        self._offered = offered = self.toolset if own is None else own
        self.episode = episode = Episode(task, self._dice or self.np_random, list(prompt), offered.schemas)
        if self.sandbox or "sandbox" in task.metadata:
            episode.sandbox_settings = {**self.sandbox, **task.metadata.get("sandbox", {})}
        self._ended = False
        self._paid = {}
        self._beginning = Beginning(seed, options or {})
        began = perf_counter()
        self._deadline = began + self.timeout
        with boundary(EnvFault, "setup"):
            ready = self.setup(episode)
            if ready is not None and inspect.isawaitable(ready):
                await checkpoint()
                await ready
            for part in self._more_parts:
                if isinstance(part.fn, Progress):
                    part.fn.begin(episode)
        self.timing = {"setup": perf_counter() - began, "tools": 0.0, "reward": 0.0}
        return Start(task, tuple(episode.messages), episode.tools, self._scored(episode))

    def _choose(self, options: Mapping[str, Any]) -> Task:
        if (given := options.get("task")) is not None:
            return given if isinstance(given, Task) else as_tasks([given], "options['task']")[0]
        tasks = self.tasks(options.get("split", "train"))
        if (named := tasks.named(options)) is not None:
            return named
        if len(tasks) == 1:  # for which a generator draws nothing either
            return tasks[0]
        return tasks[int(self.np_random.integers(len(tasks)))]

    async def astep(self, message: Message) -> Step:
        """Take one assistant message, run its tool calls, and score the episode where it ends."""
        episode = self._under_way()
        episode.messages.append(message)
        episode.turns += 1
        answers: tuple[Message, ...] = ()
        reason: StopReason | None
        if message.tool_calls:
            results, reason = await self._run_tools(message.tool_calls, episode)
            answers = tuple([result.message() for result in results])
            episode.messages += answers
        elif (said := self.reply(episode, message)) is not None:
            answers, episode.parse_errors, reason = (said,), 0, self._limit(episode)
            episode.messages.append(said)
        else:
            reason = StopReason.completed
        if reason is not None:
            return await self._end(episode, reason, answers, message)
        if self.rubric.has_turns or self._state_score:
            paid = await self._pay_turn(episode, message)
            return Step(answers, paid, score=self._scored(episode))
        return Step(answers)

    async def finish(self, reason: StopReason) -> Step:
        """End the episode from outside, for a limit the env does not know, and score what is there."""
        return await self._end(self._under_way(), reason, (), None)

    async def score_group(self, trajectories: Sequence[Trajectory], options: Mapping[str, Any]) -> Sequence[GroupPay]:
        """What the parts of the reward that compare a task's episodes pay each of them."""
        if not self.rubric.has_groups:
            return [GroupPay() for _ in trajectories]
        return await self.rubric.score_group(self._choose(options), trajectories)

    async def aclose(self) -> None:
        """Let go of the episode under way; may be called again."""
        self._ended = True
        try:
            if self.episode is not None:
                await self.episode.release()
        finally:
            if self.toolset.sources:
                await self.toolset.close(self)

    async def aget_state(self) -> EnvState:
        """The episode under way, saved: see `agentgym.envs.state`. Raises `EnvFault`."""
        return await save(self)

    async def aset_state(self, state: EnvState) -> None:
        """Go on from a saved episode, of this env or another of the same kind. Raises `EnvFault`."""
        await restore(self, state)

    def get_state(self) -> EnvState:
        """`aget_state`, for ordinary code."""
        return self._drive(self.aget_state())

    def set_state(self, state: EnvState) -> None:
        """`aset_state`, for ordinary code."""
        self._drive(self.aset_state(state))

    def fork(self, count: int = 1) -> list[Self]:
        """`count` other envs in the state of this one, each to go its own way."""
        state = self.get_state()
        others = [self.fresh() for _ in range(count)]
        for other in others:
            other.set_state(state)
        return others

    def _needs_loop(self) -> bool:
        own = type(self)
        return own.areset is not ToolEnv.areset or own.astep is not ToolEnv.astep or own.aclose is not ToolEnv.aclose

    def _under_way(self) -> Episode:
        if self.episode is None or self._ended:
            raise EnvFault("no episode is under way: reset first")
        return self.episode

    async def _run_tools(
        self, calls: Sequence[ToolCall], episode: Episode
    ) -> tuple[list[ToolResult], StopReason | None]:
        began = perf_counter()
        room = self.max_tool_calls - len(episode.calls) if self.max_tool_calls else len(calls)
        run = calls[:room] if room < len(calls) else calls
        results = await (self._within_time(run, episode) if self.timeout and run else self._offered.run(run, episode))
        for call in calls[len(results) :]:
            results.append(ToolResult(call, "error: not run: a limit of this episode is reached", True))
        self.timing["tools"] += perf_counter() - began
        episode.calls += results
        malformed = stopped = False
        for result in results:
            malformed = malformed or result.call.error is not None
            stopped = stopped or result.stop
        episode.parse_errors = episode.parse_errors + 1 if malformed else 0
        if stopped:
            return results, StopReason.tool_stopped
        reason = self._limit(episode)
        if room < len(calls) and reason is not StopReason.timeout:
            reason = StopReason.max_tool_calls
        return results, reason

    def _limit(self, episode: Episode) -> StopReason | None:
        if self.timeout and perf_counter() > self._deadline:
            return StopReason.timeout
        if self.max_parse_errors and episode.parse_errors >= self.max_parse_errors:
            return StopReason.parse_error
        if self.max_turns and episode.turns >= self.max_turns:
            return StopReason.max_turns
        return None

    async def _within_time(self, calls: Sequence[ToolCall], episode: Episode) -> list[ToolResult]:
        await checkpoint()
        deadline = asyncio.timeout(self._deadline - perf_counter())
        try:
            async with deadline:
                return await self._offered.run(calls, episode)
        except TimeoutError:
            if deadline.expired():
                return []
            raise

    def _scored(self, episode: Episode) -> float | None:
        return self._state_score(episode) if self._state_score else None

    async def _pay_turn(self, episode: Episode, message: Message) -> float:
        values = await self.rubric.score_turn(episode.task, message.text, episode)
        for name, value in values.items():
            self._paid[name] = self._paid.get(name, 0.0) + value
        return self.rubric.total(values)

    async def _end(
        self, episode: Episode, reason: StopReason, answers: tuple[Message, ...], message: Message | None
    ) -> Step:
        began = perf_counter()
        rubric = self.rubric
        if (activity := current()) is not None:
            activity.enter(REWARD)
        try:
            turn = await self._pay_turn(episode, message) if message is not None and rubric.has_turns else 0.0
            values = await rubric.score_end(episode.task, episode.answer, episode)
            score = self._scored(episode)
        finally:
            await episode.release()
        components = {**self._paid, **values}
        terminated = reason.terminated
        self._ended = True
        self.timing["reward"] += perf_counter() - began
        return Step(
            messages=answers,
            reward=turn + rubric.total(values),
            terminated=terminated,
            truncated=not terminated,
            stop_reason=reason,
            components=components,
            outcome=self._outcome(components),
            tags=tuple(episode.tags),
            metrics={
                "tool_calls": len(episode.calls),
                "tool_errors": sum([result.error for result in episode.calls]),
                **episode.metrics,
            },
            score=score,
        )

    def _outcome(self, components: Mapping[str, float]) -> Outcome:
        """By the env's own reward: what a configuration adds to it makes no answer right."""
        more = [part.name for part in self._more_parts]
        own = {name: value for name, value in components.items() if name not in more} if more else components
        return Outcome.correct if self.rubric.total(own) >= self.success - 1e-9 else Outcome.incorrect
