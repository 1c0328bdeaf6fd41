"""The seams, and only here. Each has implementations of one file each and a public fake or default to test with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

from agentgym.execution import Capabilities, ExecResult, SandboxSpec
from agentgym.quick import quick
from agentgym.types import (
    Completion,
    Floats,
    Group,
    Ids,
    Message,
    Outcome,
    SamplingParams,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)
from agentgym.weights import WeightUpdate

if TYPE_CHECKING:
    import torch

Policy: TypeAlias = Callable[[Sequence[Message]], Message]
"""A scripted player: the conversation so far -> the next assistant message."""


@quick
@dataclass(frozen=True, slots=True)
class Start:
    """What an env hands out at reset: the prompt and the tools (OpenAI function schemas) of this episode, and the score
    of the state it begins in, where it reports scores."""

    task: Task
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    score: float | None = None


@quick
@dataclass(frozen=True, slots=True)
class Step:
    """What an env answers to one assistant message.

    `messages` is what it adds to the conversation (empty at the end); `reward` is this turn's own reward, the
    terminal one included; `components` and `outcome` are those of the whole episode and are set at its end. `score`
    says how near the state now is to the goal, 0 to 1, where the env reports that; it is no reward.
    """

    messages: tuple[Message, ...] = ()
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    stop_reason: StopReason | None = None
    components: Mapping[str, float] = field(default_factory=dict)
    outcome: Outcome = Outcome.unscored
    tags: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True, slots=True)
class GroupPay:
    """What a trajectory gets beside its own reward once all of its group have ended."""

    reward: float = 0.0
    components: Mapping[str, float] = field(default_factory=dict)


class Env(Protocol):
    """Plays one task at a time. `astep` is the one entry; Gymnasium's `step` is a face over it.

    Anything that goes wrong in the env's own machinery raises an `EpisodeFault`: the episode is then unscored.
    An env whose reward compares the episodes of a group is a `GroupScorer` as well.
    """

    async def areset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Start:
        """Start an episode. options: `task_id`, `index` or `task`, and `split` ("train" or "test")."""
        ...

    async def astep(self, message: Message) -> Step: ...

    async def finish(self, reason: StopReason) -> Step:
        """End the episode from outside (a limit was met); scores what is there. Truncated unless it says otherwise."""
        ...

    def tasks(self, split: str = "train") -> Sequence[Task]: ...

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy | None:
        """A scripted player of `task`: `gold` for validation, `demo` for warm starts; None where there is none."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class GroupScorer(Protocol):
    """What an env may have besides: pay that depends on how the other episodes of the task went."""

    async def score_group(self, trajectories: Sequence[Trajectory], options: Mapping[str, Any]) -> Sequence[GroupPay]:
        """One pay for each of a task's scored episodes, after the last of them has ended; outcomes stay as they are.

        options: those that the episodes were reset with. It is called on any instance, perhaps while that plays
        another episode: all that is known of an episode is its trajectory. A fault leaves the whole group unscored.
        """
        ...


@runtime_checkable
class Tool(Protocol):
    """A typed function the agent may call."""

    name: str
    schema: Mapping[str, Any]
    """OpenAI function schema: {"type": "function", "function": {"name", "description", "parameters"}}."""

    async def call(self, arguments: Mapping[str, Any], episode: Any = None) -> str: ...


class Engine(Protocol):
    """Token ids in; token ids, logprobs and policy versions out. It never sees text."""

    @property
    def version(self) -> int: ...

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        """Continue `ids` (the whole branch so far). Calls of one `session` may reuse its cache; correctness never
        depends on it. Raises `EngineFault`; a prompt that leaves no room yields finish_reason "length" with no ids."""
        ...

    async def release(self, session: str) -> None:
        """Forget a session's cache; unknown sessions are fine."""
        ...

    async def update_weights(self, update: WeightUpdate) -> None:
        """Take new weights between two decode steps; sequences under way go on with them (caches recomputed)."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rendered:
    """Tokens to append before sampling. `rewritten` means the template changed its past: `ids` is then the whole
    conversation and starts a new branch, otherwise it only continues the tokens so far."""

    ids: Ids
    rewritten: bool = False


class Renderer(Protocol):
    """The only place where messages become tokens. Within a branch it only appends."""

    stop_ids: tuple[int, ...]

    def start(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Rendered:
        """The whole conversation and the generation prompt."""
        ...

    def extend(
        self,
        history: Sequence[Message],
        completion: Sequence[int],
        added: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Rendered:
        """What follows `completion` (the sampled tokens of history's last message): its end of turn where the model
        did not sample one, `added`, and the generation prompt."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled tokens, special tokens kept, the end-of-turn token at the end left out."""
        ...

    def branches(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[tuple[Ids, Floats]]:
        """A whole conversation as (ids [T], mask [T]) a branch; the mask is 1 on what the assistant would have
        sampled, each of its messages in exactly one branch. There is one branch unless the template rewrites its
        past."""
        ...


@quick
@dataclass(frozen=True, slots=True)
class ParsedCalls:
    """A model's text taken apart. A malformed call is in `calls` with its `error` set, and in `errors`."""

    calls: tuple[ToolCall, ...]
    errors: tuple[str, ...] = ()
    content: str = ""
    reasoning: str | None = None

    def message(self) -> Message:
        return Message("assistant", self.content, reasoning=self.reasoning, tool_calls=self.calls)


class Parser(Protocol):
    """A model's text -> calls, content, reasoning. Never raises on any text."""

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> ParsedCalls: ...

    def format(self, message: Message) -> str:
        """The inverse: the text a model would write for this assistant message."""
        ...

    def closing(self, text: str) -> str:
        """What ends the reasoning that `text` breaks off in; empty where it is in none."""
        ...


class Credit(Protocol):
    """Group -> one advantage array [T] per turn of each of its trajectories, in order (unscored ones get zeros)."""

    def __call__(self, group: Group) -> list[list[Floats]]: ...


class BatchCredit(Protocol):
    """All groups of a step -> what a `Credit` gives for each, for those that need statistics over the batch."""

    def __call__(self, groups: Sequence[Group]) -> list[list[list[Floats]]]: ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a loss sees: the N sampled tokens of a micro-batch, row after row. Tensors have shape [N].

    `logprobs` carry the gradient. `old_logprobs` are those of the policy that ratios are taken against: the one that
    sampled, or the proximal one where `loss.anchor` says so. `row` is the index of the sequence that a token belongs
    to, 0 to `rows` - 1; None where a loss looks at single tokens only. `proximal` are the logprobs of the weights that
    the step began with, where they are asked for.
    """

    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor
    row: torch.Tensor | None = None
    rows: int = 0
    proximal: torch.Tensor | None = None


class Loss(Protocol):
    """Tokens -> the loss of each token [N], 0 where the mask is, and sums of metrics over tokens (`x/max`: largest).

    How tokens are weighed against each other is `loss.aggregate`'s and not the loss's business.
    """

    def __call__(self, tokens: Tokens) -> tuple[torch.Tensor, dict[str, float]]: ...


class WeightSync(Protocol):
    """Carries a learner's weights to the engines."""

    def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> WeightUpdate: ...

    def close(self) -> None: ...


class Logger(Protocol):
    """Receives every row of metrics."""

    def log(self, row: Mapping[str, Any], step: int) -> None: ...

    def close(self) -> None: ...


class Reporter(Protocol):
    """Shows a person what a run is doing, as it does it. It never raises and never decides anything."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Begin a stage ("build model", "warm start", "train", ...); the one before is over. `total` in `unit`s."""
        ...

    def advance(self, done: int, **fields: float | str) -> None:
        """The stage has come to `done` of its total, with figures of the moment (reward, success, loss, tok/s)."""
        ...

    def metrics(self, row: Mapping[str, Any], step: int) -> None:
        """A training step's whole row of metrics."""
        ...

    def episode(self, trajectory: Trajectory) -> None:
        """An episode to look at."""
        ...

    def note(self, text: str) -> None:
        """A remark worth a line."""
        ...

    def result(self, title: str, rows: Mapping[str, Any]) -> None:
        """Figures at the end of something."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Sandbox(Protocol):
    """A session where untrusted code runs. Variables and files live on between calls; one call at a time.

    What the code does wrong is a result, never an exception; `SandboxFault` is the sandbox's own failure, or a call
    after `close`.
    """

    async def exec(self, code: str, *, timeout: float | None = None) -> ExecResult:
        """Run Python; `timeout` in seconds, None for that of the limits."""
        ...

    async def shell(self, command: str, *, timeout: float | None = None) -> ExecResult:
        """Run a command in a shell of its own, from the working directory."""
        ...

    async def terminal(self, command: str, *, timeout: float | None = None) -> ExecResult:
        """Run a command in one shell that lives on: its directory, variables and background jobs too."""
        ...

    async def write_file(self, path: str, data: bytes) -> None:
        """Put a file there, its folders too; a relative path is under the working directory."""
        ...

    async def read_file(self, path: str, max_bytes: int = 1 << 20) -> bytes:
        """A file's bytes; `SandboxFileError` for one that is missing or larger."""
        ...

    async def snapshot(self) -> bytes:
        """The working directory's files; variables and processes are not in it."""
        ...

    async def restore(self, snapshot: bytes) -> None:
        """Make the working directory what it was; interpreter and terminal begin afresh."""
        ...

    async def close(self) -> None:
        """End the session; again does nothing."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class SandboxBackend(Protocol):
    """Makes sessions of one kind."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def create(self, spec: SandboxSpec) -> Sandbox: ...

    async def aclose(self) -> None:
        """End every session; again does nothing."""
        ...
