"""`agentgym/FunctionCalling-v0`: call the functions that a request needs, with the right arguments, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgym.envs.function_calling.conversation import Conversation
from agentgym.envs.function_calling.forms import Form
from agentgym.envs.function_calling.household import FAMILIES
from agentgym.envs.function_calling.one_shot import OneShot
from agentgym.envs.function_calling.requests import SYSTEM, Requests, generate
from agentgym.envs.function_calling.rows import load_rows
from agentgym.envs.tasks import TaskSet, split_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import DataError
from agentgym.protocols import Policy
from agentgym.tools.episode import Episode
from agentgym.tools.toolset import ToolSet
from agentgym.types import Message, Task

FORMS: Mapping[str, Form] = {"requests": Requests(), "one_shot": OneShot(), "conversation": Conversation()}
TURNS_OF_ROWS = 120


class FunctionCallingEnv(ToolEnv):
    """Requests to answer with calls of the functions that are there, with the right arguments and no others.

    ## Description
    "Set an alarm for 11:40 on Thursday." The episode's tools are those of its task. By default they are a made-up
    household's; with `data=` they are those of a row of the Berkeley function-calling leaderboard (BFCL v4).

    ## Kinds
    Generated: `single` (one function is there), `multiple` (several are), `parallel` (two calls are asked for),
    `irrelevant` (no function does it), `two_turns` (a second request follows the first answer). BFCL: the row's
    category, such as `parallel_multiple`, `live_simple`, `simple_java` or `multi_turn_miss_func`.

    ## Tools
    Generated: one family of `set_alarm`, `start_timer`; `set_light`, `set_heat`; `add_item`, `drop_item`. Each call
    that is accepted is answered with a number. BFCL: the row's functions, as OpenAI schemas (names with dots made
    legal), or the functions of its APIs, which are written here from their docs and really run.

    ## Starting state
    Generated: a system message that says how to answer; the numbers are drawn from the episode's generator. BFCL: the
    row's messages; the APIs start from its `initial_config`.

    ## Reward
    `reward`, 1 or 0. Generated: in every turn the accepted calls are exactly those that were asked for, and the answer
    is their numbers and nothing else, in any order, or "none" where no function serves. BFCL, one turn: the first
    message with well-formed calls matches the answer by BFCL's rules; where no call is right: an answer in words. BFCL,
    several turns: after each turn the state of every API is that of the right calls, and what those were answered was
    seen. `turns_right` (a metric): share of the turns that were right.

    ## Episode end
    Generated and several turns: terminated by the answer to the last request. One turn: terminated by the first message
    with well-formed calls (`tool_stopped`), or an answer. 3 malformed messages in a row terminate. Truncated after
    `max_turns` messages: 12, with `data=` 120.

    ## Tasks
    10,000 generated train tasks and 2,000 test tasks, every request held out by its hash; task i is of kind i % 5.
    `data`: a file of BFCL rows. A row that cannot be used, or needs an API that is not written, is refused.

    ## Arguments
    answers: the file of the answers; by default `answers_NAME` or `possible_answer/NAME` beside the data.
    docs: the folder of the function docs of multi-turn rows; by default that of the data.
    demo_mistakes: probability that the `demo` expert answers a request with "sorry".
    demo_second_mistakes: the same, for a second request.
    demo_parallel: probability that it makes both calls where two are asked for; else it makes the first.

    ## Versions
    v0: first.
    """

    tools = tuple(one for family in FAMILIES.values() for one in family)
    weights = {"turns_right": 0.0}  # noqa: RUF012 - read-only
    system = SYSTEM
    max_turns = 12

    def __init__(
        self,
        tasks: Any = None,
        *,
        answers: str = "",
        docs: str = "",
        data: str = "",
        demo_mistakes: float = 0.55,
        demo_second_mistakes: float = 0.7,
        demo_parallel: float = 0.3,
        **kwargs: Any,
    ):
        if data:  # rows bring their own system message, if any, and conversations are long
            kwargs = {"system": "", "max_turns": TURNS_OF_ROWS, **kwargs}
        super().__init__(tasks, data=data, **kwargs)
        self._files = (data, answers, docs)
        self.demo_mistakes = demo_mistakes
        self.demo_second_mistakes = demo_second_mistakes
        self.demo_parallel = demo_parallel

    def make_tasks(self, split: str) -> TaskSet:
        return generate(split)

    def _make_split(self, split: str) -> TaskSet:
        if self._data:
            return split_tasks(load_rows(*self._files), split, self.holdout)
        return super()._make_split(split)

    def tools_for(self, task: Task) -> ToolSet:
        return self._form(task).toolset(task)

    def setup(self, episode: Episode) -> None:
        self._form(episode.task).setup(episode)

    def reply(self, episode: Episode, message: Message) -> Message | None:
        return self._form(episode.task).reply(episode, message)

    def reward(self, task: Task, answer: str, episode: Episode) -> Mapping[str, float]:
        return self._form(task).score(task, answer, episode)

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """`gold` makes the right calls; `demo` is the imperfect play of warm starts (on rows of BFCL: `gold`)."""
        return self._form(task).expert(task, seed, None if style == "gold" else self)

    def _form(self, task: Task) -> Form:
        form = FORMS.get(task.metadata.get("form", ""))
        if form is None:
            raise DataError(f"task {task.id!r} is none of function calling: give rows of BFCL as a file, data=")
        return form
