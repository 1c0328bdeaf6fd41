"""What follows an assistant's turn, as tokens: its end of turn, the messages after it, the generation prompt.

A tail is rendered from a small conversation in which a marker stands for what the model wrote. Tool results are the
one part of it that keeps changing; where a template puts them in unchanged (it is tried), their place is left open, so
that a new result costs no rendering.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentgym.errors import ModelError
from agentgym.rollout.boundaries import Ends, Past
from agentgym.rollout.encoder import Encoder
from agentgym.rollout.template import QUESTION, SENTINEL, ChatTemplate
from agentgym.types import Ids, Message, ToolCall

_SLOT = "qzSLOT{}zq"
_PLAIN = ("17", "ab c", "x=1, y: 2.5 (ok)")
_RICH = ('say "hi" it\'s', "a\n\n{'b': [1, 2]} \\n é", '{"k": "v"}')
_PLAIN_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;=+*-_()%")


@dataclass(frozen=True, slots=True)
class Tail:
    """From the end of turn on (`closed`), and after it (`open`); `closer` is that end as text."""

    closer: str
    closed: Ids
    open: Ids


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A tail's text with the tool results left out: `texts` has one more element than there are results."""

    closer: str
    texts: tuple[str, ...]
    rich: bool
    """Quotes, braces and newlines are put in unchanged too."""

    def fits(self, content: str) -> bool:
        if not content or content[0].isspace() or content[-1].isspace():
            return False  # a template may trim
        return "<" not in content if self.rich else _PLAIN_CHARS.issuperset(content)

    def fill(self, contents: Sequence[str]) -> str:
        return "".join([part for pair in zip(self.texts, (*contents, ""), strict=True) for part in pair])


class Tails:
    """Tails by the kind of turn and the messages added to it."""

    def __init__(
        self,
        template: ChatTemplate,
        ends: Ends,
        past: Past,
        encode: Encoder,
        guard: Callable[[Message], Message],
        cache_size: int = 16384,
    ):
        self._template = template
        self._ends = ends
        self._past = past
        self._encode = encode
        self._ids = {closer: int(encode(closer)[-1]) for closer in ends.closers}
        self._guard = guard
        self._cache: OrderedDict[Any, Tail] = OrderedDict()
        self._patterns: dict[Any, _Pattern | None] = {}
        self._size = cache_size

    def get(
        self, history: Sequence[Message], added: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> Tail:
        """What follows history's last message; raises `ModelError` where the template cannot show `added`."""
        if self._past.needs_history or (tools and self._past.needs_tools):
            return self._tail(*self._render(history, [self._guard(message) for message in added], tools))
        last = history[-1]
        calls = [call.id for call in last.tool_calls]
        names = [call.name for call in last.tool_calls]
        if self._past.needs_ids:
            names += calls
        # ids of calls count by their place, so that turns that differ in nothing else share a tail
        kinds = tuple([(m.role, m.name, _place(m.tool_call_id, calls)) for m in added])
        shape = (tuple(names), kinds)
        key = (shape, tuple([m.content for m in added]))
        tail = self._cache.get(key)
        if tail is None:
            tail = self._cache[key] = self._make(shape, last, added)
            if len(self._cache) > self._size:
                self._cache.popitem(last=False)
        return tail

    def _make(self, shape: Any, last: Message, added: Sequence[Message]) -> Tail:
        guarded = [self._guard(message) for message in added]
        if all(message.role == "tool" for message in guarded):
            if shape not in self._patterns:
                if len(self._patterns) >= self._size:
                    self._patterns.clear()
                self._patterns[shape] = self._pattern(last, guarded)
            pattern = self._patterns[shape]
            contents = [m.content for m in guarded if isinstance(m.content, str)]
            if pattern is not None and len(contents) == len(guarded) and all(map(pattern.fits, contents)):
                return self._tail(pattern.closer, pattern.fill(contents))
        return self._tail(*self._render([last], guarded, ()))

    def _tail(self, closer: str, rest: str) -> Tail:
        closed = self._encode(closer + rest)
        # some tokenizers put a blank before all they encode: the tail begins at the end of turn itself
        at = int(np.argmax(closed == self._ids[closer])) if closed[0] != self._ids[closer] else 0
        return Tail(closer, closed[at:], closed[at + 1 :])

    def _pattern(self, last: Message, added: Sequence[Message]) -> _Pattern | None:
        """The tail with its results left out, or None where filling them in is not what the template does."""
        slots = [_SLOT.format(i) for i in range(len(added))]
        closer, text = self._render([last], [replace(m, content=s) for m, s in zip(added, slots, strict=True)], ())
        texts: list[str] = []
        for slot in slots:
            before, found, text = text.partition(slot)
            if not found or slot in text:
                return None
            texts.append(before)
        pattern = _Pattern(closer, (*texts, text), rich=False)
        if not self._holds(pattern, last, added, _PLAIN):
            return None
        return replace(pattern, rich=self._holds(pattern, last, added, _RICH))

    def _holds(self, pattern: _Pattern, last: Message, added: Sequence[Message], samples: Sequence[str]) -> bool:
        for i in range(len(samples)):
            contents = [samples[(i + j) % len(samples)] for j in range(len(added))]
            filled = [replace(m, content=c) for m, c in zip(added, contents, strict=True)]
            if self._render([last], filled, ()) != (pattern.closer, pattern.fill(contents)):
                return False
        return True

    def _render(
        self, history: Sequence[Message], added: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> tuple[str, str]:
        """(end of turn, what comes after it)."""
        before = history[:-1] or [QUESTION]
        error: ModelError | None = None
        for stand_in in _stand_ins(history[-1]):
            try:
                text = self._template.render([*before, stand_in, *added], tools, prompt=True)
            except ModelError as e:
                error = e
                continue
            _, found, after = text.partition(SENTINEL)
            parts = self._ends.split(after) if found else None
            if parts:
                return parts
        raise error or ModelError("the model's chat template does not show what follows an assistant message")


def _place(call_id: str | None, calls: Sequence[str]) -> Any:
    return calls.index(call_id) if call_id in calls else call_id


def _stand_ins(message: Message) -> list[Message]:
    """The message with a marker for its text, from the most to the least faithful shape."""
    plain = Message("assistant", SENTINEL)
    if not message.tool_calls:
        return [plain]
    calls = [ToolCall(call.id, call.name, {"text": "x"}) for call in message.tool_calls[:-1]]
    last = message.tool_calls[-1]
    marked = ToolCall(last.id, last.name, {"text": SENTINEL})
    shapes = [(*calls, marked), (marked,)] if calls else [(marked,)]
    return [*(Message("assistant", tool_calls=shape) for shape in shapes), plain]
