"""The words that everything else is written in: frozen, slotted data, no behaviour beyond conversion.

`Task -> Episode -> Trajectory (Turn, Completion) -> Group -> Batch`. Only plain Python and numpy live here, so that
importing it costs nothing and every value can cross a process boundary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from agentgym.quick import quick

Ids: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float32]
Experts: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
"""[tokens, layers, chosen] numbers of experts, uint8 where they fit and else uint16; the type's largest number stands
for a choice that is not known. Layers without experts have zeros."""
Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal["stop", "length", "abort"]

GIVEN = -1
"""The version of a token inside a completion that no policy sampled; it is never trained."""


class StopReason(StrEnum):
    """Why an episode ended. The first two are ends of the task (terminated), the rest are limits (truncated)."""

    completed = "completed"  # the agent sent a message without tool calls
    tool_stopped = "tool_stopped"  # a tool ended the episode
    max_turns = "max_turns"
    max_tokens = "max_tokens"
    max_tool_calls = "max_tool_calls"
    context_overflow = "context_overflow"
    parse_error = "parse_error"  # too many malformed messages in a row
    timeout = "timeout"
    fault = "fault"  # infrastructure: the episode is unscored

    @property
    def terminated(self) -> bool:
        return self in _ENDS_OF_THE_TASK


# once: to look a member of an enum up costs as much as a dict does
_ENDS_OF_THE_TASK = (StopReason.completed, StopReason.tool_stopped, StopReason.parse_error)


class Outcome(StrEnum):
    """A verdict. True only when `correct`. `unscored` is no verdict at all and never counts as reward 0."""

    correct = "correct"
    incorrect = "incorrect"
    unparsable = "unparsable"
    timeout = "timeout"
    error = "error"
    unscored = "unscored"

    def __bool__(self) -> bool:
        return self is Outcome.correct


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    url: str
    """An http(s) or data URL."""


ContentPart: TypeAlias = TextPart | ImagePart


@quick
@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the model asked for. `error` is set when its text was malformed: the env then answers with it."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@quick
@dataclass(frozen=True, slots=True)
class Message:
    """One chat message in OpenAI's shape; `reasoning` is kept apart from `content` and is never scored."""

    role: Role
    content: str | tuple[ContentPart, ...] = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text of the content, its images left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    def to_openai(self) -> dict[str, Any]:
        """A fresh dict in OpenAI's chat shape (arguments as a JSON string, reasoning as `reasoning_content`)."""
        row: dict[str, Any] = {
            "role": self.role,
            "content": self.content if isinstance(self.content, str) else _parts_out(self.content),
        }
        if self.reasoning is not None:
            row["reasoning_content"] = self.reasoning
        if self.tool_calls:
            row["tool_calls"] = [_call_out(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            row["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            row["name"] = self.name
        return row

    @classmethod
    def from_openai(cls, row: Mapping[str, Any]) -> Message:
        """Read a dict in OpenAI's chat shape; raises `ValueError` naming the field that is wrong."""
        role = row.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            raise ValueError(f"role: expected system, user, assistant or tool, got {role!r}")
        return cls(
            role=role,
            content=_content_in(row.get("content")),
            reasoning=row.get("reasoning_content", row.get("reasoning")),
            tool_calls=tuple(_call_in(i, call) for i, call in enumerate(row.get("tool_calls") or ())),
            tool_call_id=row.get("tool_call_id"),
            name=row.get("name"),
        )


def _encoder() -> Callable[[Any], str]:
    """`json.dumps` without ASCII escapes. The standard library makes its C encoder anew for each value, which costs
    more than the encoding of a call's arguments: here it is made once."""
    encoder = json.JSONEncoder(ensure_ascii=False)
    make = getattr(json.encoder, "c_make_encoder", None)  # None where Python has no C part
    if make is None:
        return encoder.encode
    parts = make(None, encoder.default, json.encoder.encode_basestring, None, ": ", ", ", False, False, True)
    return lambda value: "".join(parts(value, 0))


_encode = _encoder()


def _parts_out(content: tuple[ContentPart, ...]) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": part.url}}
        for part in content
    ]


def _content_in(content: Any) -> str | tuple[ContentPart, ...]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ValueError(f"content: expected text or a list of parts, got {type(content).__name__}")
    parts: list[ContentPart] = []
    for i, part in enumerate(content):
        if not isinstance(part, Mapping) or part.get("type") not in ("text", "image_url"):
            raise ValueError(f"content[{i}]: expected a part of type text or image_url")
        is_text = part["type"] == "text"
        parts.append(TextPart(str(part["text"])) if is_text else ImagePart(str(part["image_url"]["url"])))
    return tuple(parts)


def _call_out(call: ToolCall) -> dict[str, Any]:
    # a malformed call keeps its raw text as `arguments`, so that a stored conversation shows what the model wrote
    arguments = _encode(call.arguments if type(call.arguments) is dict else dict(call.arguments))
    row: dict[str, Any] = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
    if call.error is not None:
        row["error"] = call.error
    return row


def _call_in(index: int, row: Any) -> ToolCall:
    where = f"tool_calls[{index}]"
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: expected an object, got {type(row).__name__}")
    function = row.get("function", row)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"{where}.function.name: expected a string")
    call_id = str(row.get("id") or f"call_{index}")
    arguments = function.get("arguments", {})
    error = row.get("error")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError as e:
            arguments, error = {}, f"arguments of {function['name']!r} are not valid JSON: {e}"
    if not isinstance(arguments, Mapping):
        arguments, error = {}, f"arguments of {function['name']!r} must be a JSON object"
    return ToolCall(call_id, function["name"], dict(arguments), error)


@dataclass(frozen=True, slots=True)
class Task:
    """A problem with its answer. Success is reported by `kind`. `demo` is how an agent goes on from the prompt, if that
    is known: its own messages, and either all of the tools' answers to them or none."""

    id: str
    prompt: str | tuple[Message, ...]
    answer: Any = None
    kind: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    demo: Sequence[Message] | None = None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How an engine samples. `temperature=0` is greedy; its logprobs are then those at temperature 1.

    `experts_from`: also tell the experts that each token from this position on was sent to; None: not asked.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    stop_ids: tuple[int, ...] = ()
    seed: int | None = None
    experts_from: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled: three arrays of shape [T], the stop token included where there is one.

    `logprobs` are natural logs under the sampling distribution; `versions` are policy versions, one per token, or
    `GIVEN`. `count` is the number of sampled tokens where the arrays do not tell it: some were given, or an endpoint
    sampled and the arrays are empty (None then if it did not say).
    `experts` are those of the tokens right before the last one, which was sampled and never run; there are as many as
    were asked for, and they reach back into the prompt.
    """

    ids: Ids
    logprobs: Floats
    versions: Ids
    finish_reason: FinishReason = "stop"
    count: int | None = None
    experts: Experts | None = None

    @property
    def tokens(self) -> int:
        """How many were sampled, as far as is known."""
        return len(self.ids) if self.count is None else self.count

    def first(self, tokens: int) -> Completion:
        """The same, had it stopped after so many of its ids."""
        dropped, experts = len(self.ids) - tokens, self.experts
        return replace(
            self,
            ids=self.ids[:tokens],
            logprobs=self.logprobs[:tokens],
            versions=self.versions[:tokens],
            finish_reason="stop",
            experts=None if experts is None else experts[: max(0, len(experts) - dropped)],
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """What was added before sampling (`context_ids`, never trained) and what the agent then sampled.

    `parent` is the id of the turn whose tokens this one continues. None starts a branch: then `context_ids` holds the
    whole rendered conversation. `message` is the parsed completion, `observations` what the env answered to it.
    Where a program of the user's has branched its conversation, `cause` says why (`edited: ...`, as in
    `rollout.program.branches`) and `prompt` holds the messages that came before this turn and after no other.
    Where credit asks for them, `score` is that of the state after this turn and `values` [T] are a critic's, each of
    the state before a sampled token.
    """

    id: int
    parent: int | None
    context_ids: Ids
    completion: Completion
    message: Message
    observations: tuple[Message, ...] = ()
    reward: float = 0.0
    agent_id: str = "agent"
    prompt: tuple[Message, ...] = ()
    cause: str = ""
    score: float | None = None
    values: Floats | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The turns of one agent in one episode, with what it was paid and why it stopped.

    `reward` is None exactly when `outcome` is `unscored`. `tags` are the conditions that success is also reported by
    (for example `after_busy`); `metrics` are numbers about the episode; `seconds` are times by part (wall, env, ...).
    `start_score` is that of the state it began in, where credit asks for scores.
    """

    id: str
    task_id: str
    env_id: str
    turns: tuple[Turn, ...]
    prompt: tuple[Message, ...]
    reward: float | None
    components: Mapping[str, float]
    outcome: Outcome
    stop_reason: StopReason
    kind: str = ""
    agent_id: str = "agent"
    episode: int = 0
    seed: int = 0
    tags: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    start_score: float | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation: the prompt, then each turn's message and what followed it. What a branch was told beside
        that is in its first turn's `prompt`."""
        chain: list[Message] = []
        for turn in self.turns:
            chain += [turn.message, *turn.observations]
        return (*self.prompt, *chain)

    @property
    def sampled_tokens(self) -> int:
        return sum(turn.completion.tokens for turn in self.turns)


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """Asks a rollout worker to play one task `size` times, as its episodes `first`, `first + 1`, ...

    In training `id` is `epoch:task_id`. An episode depends on `seed`, `id` and its number, on nothing else.
    """

    id: str
    env_id: str
    task: int | str
    """Index or id of the task in the env's task list of `split`."""
    size: int
    seed: int
    temperature: float = 1.0
    split: Literal["train", "test"] = "train"
    first: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """The trajectories of one task: what credit compares, and the only thing that goes up from a rollout worker."""

    id: str
    task_id: str
    env_id: str
    trajectories: tuple[Trajectory, ...]
    request: GroupRequest | None = None
