"""What a program asked and was answered in one episode, as a tree of turns in tokens.

Each request brings its whole conversation. Where that goes on from an answer given here, only what is new is rendered,
behind the very tokens that were sampled. Where it does not (a message was edited or left out, tools changed, another
conversation began), it is rendered whole and starts a branch, which is counted and says its cause.

Ids of calls are unique on the wire; inside they are the parser's own, so that a template that shows them shows what it
would show our own agent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentgym.protocols import Renderer
from agentgym.rollout.program.wire import Ask
from agentgym.types import Completion, Ids, Message, ToolCall, Turn

Digest = bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands in the tree: what to add to the branch of `parent` (None: a branch of its own)."""

    context: Ids
    parent: int | None
    session: str
    added: tuple[Message, ...]
    """What the request adds to the turn it goes on from; the whole conversation where there is none."""
    follows: int | None
    """The turn it goes on from: `parent`, unless the template rewrote its past."""
    tools: str
    digests: tuple[Digest, ...]
    prompt: list[int]
    """The branch's tokens, `context` included: what the engine goes on from."""


@dataclass(slots=True)
class _Node:
    """What is known of a turn beside the turn."""

    added: tuple[Message, ...]
    follows: int | None
    session: str
    said: str
    """The answer as it went out, in canonical form."""
    calls: dict[str, ToolCall]
    """Its calls by their ids on the wire."""
    continued: bool = False
    """Some turn goes on from it."""
    taken: bool = False
    """The engine's session of its branch went on."""


@dataclass(slots=True)
class Branches:
    """The tree of one episode. `session` names the engine's sessions."""

    renderer: Renderer
    session: str
    turns: list[Turn] = field(default_factory=list)
    prompt: tuple[Message, ...] = ()
    """The first conversation."""
    causes: dict[str, int] = field(default_factory=dict)
    """How often a branch was started, by cause: edited, other, repeated, template, tools."""
    sessions: list[str] = field(default_factory=list)
    _nodes: list[_Node] = field(default_factory=list)
    _found: dict[tuple[str, Digest], int] = field(default_factory=dict)
    """The turn that ends a conversation, by its tools and messages."""
    _seen: set[Digest] = field(default_factory=set)
    """All beginnings of all conversations."""
    _calls: dict[str, ToolCall] = field(default_factory=dict)

    def place(self, ask: Ask) -> Place:
        """Where a request goes; raises `ModelError` where the template cannot show it."""
        tools = json.dumps(ask.tools) if ask.tools else ""
        digests = tuple(_digests(ask.messages))
        for count in range(len(digests) - 1, 0, -1):
            found = self._found.get((tools, digests[count - 1]))
            if found is not None:
                added = ask.messages[count:]
                if all(message.role != "assistant" for message in added):
                    return self._extend(found, added, ask, tools, digests)
                break  # it goes on with words that were not said here
        return self._begin(ask, tools, digests)

    def add(self, place: Place, completion: Completion, message: Message, sent: Mapping[str, Any]) -> Turn:
        """What was sampled there: `message` as it was parsed, `sent` as it goes out."""
        number, cause = len(self.turns), self._why(place)
        calls = {row["id"]: call for row, call in zip(sent.get("tool_calls", ()), message.tool_calls, strict=True)}
        prompt: tuple[Message, ...] = ()
        if place.follows is None:
            if number:
                prompt = place.added
            else:
                self.prompt = place.added
        elif not self._nodes[place.follows].continued:
            self._nodes[place.follows].continued = True
            self.observe(place.follows, place.added)
        else:
            prompt = place.added
        turn = Turn(number, place.parent, place.context, completion, message, prompt=prompt, cause=cause)
        self.turns.append(turn)
        said = _canonical(Message.from_openai(sent))
        self._nodes.append(_Node(place.added, place.follows, place.session, said, calls))
        self._calls |= calls
        ends = _digest(place.digests[-1], said)
        self._found[place.tools, ends] = number
        self._seen.update((*place.digests, ends))
        if cause:
            kind = cause.partition(":")[0]
            self.causes[kind] = self.causes.get(kind, 0) + 1
        return turn

    def call_ids(self, tag: str, message: Message) -> list[str]:
        """Ids on the wire for the calls of the next turn."""
        return [f"call_{tag}_{len(self.turns)}_{i}" for i in range(len(message.tool_calls))]

    def find(self, message: Message) -> int | None:
        """The latest turn whose answer went out as this message; None where there is none."""
        wanted = _canonical(message)
        numbers = range(len(self._nodes) - 1, -1, -1)
        return next((number for number in numbers if self._nodes[number].said == wanted), None)

    def outward(self, messages: Sequence[Message], number: int | None) -> list[dict[str, Any]]:
        """What an env answered to a turn, with the ids that its calls have on the wire."""
        names = {} if number is None else {call.id: name for name, call in self._nodes[number].calls.items()}
        rows = []
        for message in messages:
            row = message.to_openai()
            if message.role == "tool":
                row.pop("name", None)
                row["tool_call_id"] = names.get(message.tool_call_id or "", message.tool_call_id)
            rows.append(row)
        return rows

    def observe(self, number: int, messages: Sequence[Message]) -> None:
        """What came after a turn."""
        self.turns[number] = replace(self.turns[number], observations=tuple(messages))

    def pay(self, reward: float, number: int = -1, score: float | None = None) -> None:
        """Add to a turn's reward, by default to the last one's, and note the state's score after it."""
        if self.turns and (reward or score is not None):
            turn = self.turns[number]
            self.turns[number] = replace(
                turn, reward=turn.reward + reward, score=turn.score if score is None else score
            )

    def _extend(self, found: int, given: Sequence[Message], ask: Ask, tools: str, digests: tuple[Digest, ...]) -> Place:
        added = tuple(self._inward(given))
        history = self._history(found)
        node, turn = self._nodes[found], self.turns[found]
        rendered = self.renderer.extend(history, turn.completion.ids.tolist(), added, ask.tools)
        session = self._session() if node.taken else node.session
        node.taken = True
        parent = None if rendered.rewritten else found
        before = [] if parent is None else self._tokens(found)
        prompt = [*before, *rendered.ids.tolist()]
        return Place(rendered.ids, parent, session, added, found, tools, digests, prompt)

    def _begin(self, ask: Ask, tools: str, digests: tuple[Digest, ...]) -> Place:
        messages = tuple(self._inward(ask.messages))
        ids = self.renderer.start(messages, ask.tools).ids
        return Place(ids, None, self._session(), messages, None, tools, digests, ids.tolist())

    def _why(self, place: Place) -> str:
        """Why a place begins a branch; empty where it simply goes on. Asked when its answer has come: of requests
        under way at once the first to be answered is the one that goes on."""
        if place.follows is not None:
            if place.parent is None:
                return "template: it renders its past otherwise now"
            gone_on = self._nodes[place.follows].continued
            return f"repeated: turn {place.follows} was gone on from before" if gone_on else ""
        if not self.turns:
            return ""
        digests, messages = place.digests, place.added
        shared = next((i for i, digest in enumerate(digests) if digest not in self._seen), len(digests))
        others = {digest for key, digest in self._found if key != place.tools}
        if any(digest in others for digest in digests[:-1]):
            return "tools: they are not those that the conversation began with"
        if shared == len(digests):
            return "repeated: the same conversation was asked before"
        if all(message.role == "system" for message in messages[:shared]):
            return "other: another conversation"
        return f"edited: message {shared} ({messages[shared].role}) is not what stood there"

    def _inward(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Messages of the wire with the ids and names that our own agent would have."""
        for message in messages:
            if message.tool_calls:
                calls = [replace(call, id=self._own(call.id, call.id)) for call in message.tool_calls]
                yield replace(message, tool_calls=tuple(calls))
            elif message.role == "tool" and message.tool_call_id in self._calls:
                call = self._calls[message.tool_call_id]
                yield replace(message, tool_call_id=call.id, name=call.name or None)
            else:
                yield message

    def _own(self, call_id: str, default: str) -> str:
        return self._calls[call_id].id if call_id in self._calls else default

    def _path(self, number: int) -> list[int]:
        """The turns of a conversation up to this one, across rewritings."""
        path = [number]
        while (before := self._nodes[path[-1]].follows) is not None:
            path.append(before)
        return path[::-1]

    def _history(self, number: int) -> list[Message]:
        return [m for i in self._path(number) for m in (*self._nodes[i].added, self.turns[i].message)]

    def _tokens(self, number: int) -> list[int]:
        """The branch's tokens up to the end of this turn."""
        parts: list[list[int]] = []
        at: int | None = number
        while at is not None:
            turn = self.turns[at]
            parts.append([*turn.context_ids.tolist(), *turn.completion.ids.tolist()])
            at = turn.parent
        return [token for part in reversed(parts) for token in part]

    def _session(self) -> str:
        """A session of the engine for a branch that begins."""
        name = f"{self.session}~{len(self.sessions)}" if self.sessions else self.session
        self.sessions.append(name)
        return name


def stopped_at(renderer: Renderer, completion: Completion, stops: Sequence[str]) -> tuple[Completion, str]:
    """A completion as sampling would have ended it at the first of the stop texts, and its text without that.

    What was sampled up to there does not depend on what came after, so that its logprobs stay as they are.
    """
    ids = completion.ids.tolist()
    text = renderer.decode(ids)
    if not any(stop in text for stop in stops):
        return completion, text
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        text = renderer.decode(ids[:middle])
        low, high = (low, middle) if any(stop in text for stop in stops) else (middle + 1, high)
    text = renderer.decode(ids[:low])
    done = completion.first(low)
    return done, text[: min(text.find(stop) for stop in stops if stop in text)]


def _digests(messages: Sequence[Message]) -> Iterable[Digest]:
    """One for every beginning of the conversation."""
    digest = b""
    for message in messages:
        digest = _digest(digest, _canonical(message))
        yield digest


def _digest(before: Digest, text: str) -> Digest:
    return hashlib.blake2b(before + text.encode(), digest_size=16).digest()


def _canonical(message: Message) -> str:
    """What makes two messages the same to a program: reasoning, which most of them drop, is not in it."""
    content: Any = message.content if isinstance(message.content, str) else message.to_openai()["content"]
    calls = [(call.id, call.name, dict(call.arguments), call.error) for call in message.tool_calls]
    return json.dumps([message.role, content, calls, message.tool_call_id], sort_keys=True)
