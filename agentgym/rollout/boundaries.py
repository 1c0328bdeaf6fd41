"""Where a turn ends, found by rendering a marker and looking at what follows it.

After the marker a template writes the rest of a call, then an end of turn, then the next message. Templates differ in
all three: `<|im_end|>` and a newline; gpt-oss ends a last answer with `<|return|>`, a call with `<|call|>` and a past
answer with `<|end|>`; GLM has no end at all, the next role's token is what a model stops with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentgym.errors import ModelError
from agentgym.rollout.template import PROBE_TOOLS, QUESTION, SENTINEL, ChatTemplate, call_message, result_message
from agentgym.types import Message


@dataclass(frozen=True, slots=True)
class Ends:
    """Tokens that end a turn, as text. `content` and `calls` are what a model samples after an answer and after calls
    (None: the template has no calls), `closers` all that may stand there in a history, `roles` those that belong to
    the message that follows."""

    content: str
    calls: str | None
    closers: tuple[str, ...]
    roles: frozenset[str]

    def split(self, tail: str) -> tuple[str, str] | None:
        """`tail`, the text after a marker, as (end of turn, rest), or None where it has no end of turn."""
        best = len(tail)
        found = ""
        for closer in self.closers:
            at = tail.find(closer, 0, best + len(closer))
            if 0 <= at < best:
                best, found = at, closer
        return (found, tail[best + len(found) :]) if found else None


def find_ends(template: ChatTemplate, specials: Sequence[str]) -> Ends:
    """Probe a template whose tokenizer has the added tokens `specials`; raises `ModelError` where nothing is found."""
    splitter = re.compile("(" + "|".join(map(re.escape, sorted(specials, key=len, reverse=True))) + ")")
    known = frozenset(specials)
    answer = Message("assistant", SENTINEL)
    content, content_follow = _end(
        _after(template, splitter, [QUESTION, answer]),
        _after(template, splitter, [QUESTION, answer, QUESTION]),
        [],
        known,
    )
    if content is None:
        raise ModelError(
            "no end-of-turn token found in the model's chat template: after an assistant message it writes none of the "
            "tokenizer's special tokens; use the tokenizer that belongs to this template"
        )
    calls, calls_follow = _call_end(template, splitter, known)
    found = [content[0], content_follow, calls[0] if calls else None, calls_follow]
    closers = tuple(dict.fromkeys(token for token in found if token))
    roles = frozenset(end[0] for end in (content, calls) if end and end[1])
    return Ends(content[0], calls[0] if calls else None, closers, roles)


def _call_end(
    template: ChatTemplate, splitter: re.Pattern[str], known: frozenset[str]
) -> tuple[tuple[str, bool] | None, str | None]:
    if not template.dialect.shows_calls:
        return None, None
    first, pair = f"{SENTINEL}0", call_message(calls=2)
    between = _after(template, splitter, [QUESTION, pair], first)
    if not any(SENTINEL in piece for piece in between):
        between = []  # this template writes one call a turn
    return _end(
        _after(template, splitter, [QUESTION, call_message()]),
        _after(template, splitter, [QUESTION, call_message(), result_message("result")]),
        between,
        known,
    )


def _end(
    last: list[str], followed: list[str], between: list[str], known: frozenset[str]
) -> tuple[tuple[str, bool] | None, str | None]:
    """((the end of turn a model samples, whether it belongs to the next message), what stands there in a history).

    `last` is what follows the marker at the end of a conversation, `followed` with a message after it, `between` with
    another call after it; all are split at special tokens.
    """
    body = _common(_common(last, followed), between)  # the rest of the call itself
    both = [piece for piece in _common(last, followed)[len(body) :] if piece in known]
    if both:
        return (both[-1], False), both[-1]
    after = next((piece for piece in followed[len(body) :] if piece in known), None)
    alone = [piece for piece in last[len(body) :] if piece in known]
    if alone:
        return (alone[-1], False), after
    return ((after, True) if after else None), after


def _common(a: list[str], b: list[str]) -> list[str]:
    n = 0
    while n < len(a) and n < len(b) and a[n] == b[n]:
        n += 1
    return a[:n]


def _after(
    template: ChatTemplate, splitter: re.Pattern[str], messages: Sequence[Message], marker: str = SENTINEL
) -> list[str]:
    try:
        text = template.render(messages, prompt=False)
    except ModelError:
        return []
    _, found, after = text.rpartition(marker)
    return [piece for piece in splitter.split(after) if piece] if found else []


def rewrites(
    template: ChatTemplate,
    history: Sequence[Message],
    added: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
) -> bool:
    """Whether the template, given `added`, renders what came before otherwise than it did when history's last message
    was sampled. Only the template's own renderings are compared: how the model wrote its text plays no part."""
    marked = [m if m.reasoning is None else replace(m, reasoning=SENTINEL) for m in history]
    before = template.render(marked[:-1], tools, prompt=True).rstrip()
    after = template.render([*marked, *added], tools, prompt=True)
    if not after.startswith(before):
        return True
    if marked[-1].reasoning is None:
        return False
    if template.dialect.reasoning_key is not None:  # a template that knows reasoning and leaves this one out
        return after.count(SENTINEL) <= before.count(SENTINEL)
    return after.count(SENTINEL) < template.render(marked, tools, prompt=False).count(SENTINEL)


@dataclass(frozen=True, slots=True)
class Past:
    """What probing found about a template's treatment of its past.

    `may_rewrite` holds (a user or system message was added, the history has reasoning); what is not in it was rendered
    in every probe exactly as before, and needs no comparison at run time.
    """

    may_rewrite: frozenset[tuple[bool, bool]]
    needs_history: bool
    """What follows a turn depends on more than that turn."""
    needs_tools: bool
    needs_ids: bool


def find_past(template: ChatTemplate) -> Past:
    """Render small conversations with and without reasoning, calls and later user turns, and compare."""
    may: set[tuple[bool, bool]] = set()
    tools = PROBE_TOOLS if template.dialect.shows_tools else ()
    for reasoned in (False, True):
        for history, added in _probes(template, "thought" if reasoned else None):
            try:
                changed = rewrites(template, history, added, tools)
            except ModelError:
                continue  # it will be said when such a conversation comes
            if changed:
                may.add((added[-1].role != "tool", reasoned))
    return Past(frozenset(may), *_needs(template))


def _probes(template: ChatTemplate, reasoning: str | None) -> list[tuple[list[Message], list[Message]]]:
    answer = Message("assistant", "answer", reasoning=reasoning)
    probes = [
        ([QUESTION, answer], [QUESTION]),
        ([QUESTION, answer, QUESTION, answer], [QUESTION]),
        ([QUESTION, replace(answer, reasoning=None), QUESTION, answer], [QUESTION]),
    ]
    if not template.dialect.shows_calls:
        return probes
    call, result = call_message("x", reasoning), result_message("result")
    bare = replace(call, reasoning=None)
    loop = [QUESTION, call, result]
    return [
        *probes,
        ([QUESTION, call], [result]),
        ([*loop, call], [result]),
        ([*loop, bare], [result]),
        ([QUESTION, bare, result, call], [result]),
        ([*loop, call, result, call], [result]),
        ([*loop, answer], [QUESTION]),
        ([*loop, answer, QUESTION, call], [result]),
        ([QUESTION, call], [result, QUESTION]),
        ([*loop, replace(answer, reasoning=None)], [QUESTION]),
    ]


def _needs(template: ChatTemplate) -> tuple[bool, bool, bool]:
    """Whether what follows a turn depends on earlier turns, on the tools, on the ids of calls."""
    call, result, answer = call_message(), result_message("result"), Message("assistant", SENTINEL)
    past = [QUESTION, Message("assistant", "answer"), QUESTION]
    calls = template.dialect.shows_calls
    loops = [[*past, call_message("x"), result], [*past, call_message("x"), result, past[1], QUESTION]] if calls else []
    tails = [[answer, QUESTION], *([[call, result], [call, result, QUESTION]] if calls else [])]
    tools = PROBE_TOOLS if template.dialect.shows_tools else ()

    def differ(a: Sequence[Message], b: Sequence[Message], shown: Sequence[Mapping[str, Any]] = ()) -> bool:
        one, other = tail_text(template, a), tail_text(template, b, shown)
        return None not in (one, other) and one != other

    needs_history = any(differ([QUESTION, *tail], [*earlier, *tail]) for tail in tails for earlier in (past, *loops))
    needs_tools = any(differ([QUESTION, *tail], [QUESTION, *tail], tools) for tail in tails)
    renamed = replace(call, tool_calls=(replace(call.tool_calls[0], id="zcallz"),))
    moved = [QUESTION, renamed, replace(result, tool_call_id="zcallz")]
    return needs_history, needs_tools, calls and differ([QUESTION, call, result], moved)


def tail_text(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), marker: str = SENTINEL
) -> str | None:
    """What the template writes after the marker, generation prompt included; None where it cannot."""
    try:
        text = template.render(messages, tools, prompt=True)
    except ModelError:
        return None
    _, found, tail = text.partition(marker)
    return tail if found else None
