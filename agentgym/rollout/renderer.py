"""Messages to tokens, for any Hugging Face chat template; within a branch it only appends.

What a model sampled is never tokenised again. To find what follows it, a small conversation is rendered whose assistant
message holds a marker; the text after the marker, from the end of the turn on, is what is to be appended. The same is
done for every kind of turn once and then remembered. Where a template changes its past (it removes the reasoning of
earlier turns when the user speaks again), the whole conversation is rendered afresh and starts a new branch, unless
`keep_thinking` holds the past as it was sampled; either is counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentgym.errors import ModelError
from agentgym.protocols import Parser, Rendered
from agentgym.rollout.boundaries import Ends, find_ends, find_past, rewrites
from agentgym.rollout.encoder import BREAK, Encoder
from agentgym.rollout.parsers import detect_format, get_parser
from agentgym.rollout.tails import Tails
from agentgym.rollout.template import QUESTION, ChatTemplate
from agentgym.types import Floats, Ids, Message

_THINK = "<think>"


@dataclass(slots=True)
class Counters:
    """How often it happened, over all episodes of a renderer."""

    extended: int = 0
    rewritten: int = 0
    """The template changed its past: the episode branched."""
    kept: int = 0
    """The template would have changed its past: kept as sampled."""
    closings: int = 0
    """Turns cut by length, closed by the renderer."""


class ChatRenderer:
    """`stop_ids` are all the tokens a model may end its turn with: the tokenizer's, those given (of a generation
    config), and those the template shows. `opens_thinking`: the generation prompt already begins the reasoning.
    `hides_tools`: the template writes calls but no list of tools (DeepSeek-V3): the prompt or the training must tell.

    Raises `ModelError` for a tokenizer without a usable chat template, and for messages it has no place for.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        stop_ids: Sequence[int] = (),
        keep_thinking: bool = False,
        tool_format: str = "auto",
        chat_template: str | None = None,
        variables: Mapping[str, Any] | None = None,
        cache_size: int = 16384,
    ):
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, chat_template=chat_template, variables=variables)
        self.keep_thinking = keep_thinking
        self.tool_format = detect_format(self.template.source) if tool_format == "auto" else tool_format
        self.counters = Counters()
        added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
        self.ends: Ends = find_ends(self.template, list(added))
        self.past = find_past(self.template)
        self._ids_of = {text: added[text] for text in self.ends.closers}
        sampled = [added[text] for text in (self.ends.content, self.ends.calls) if text is not None]
        eos = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([*sampled, *eos, *map(int, stop_ids)]))
        self.opens_thinking = self.template.render([QUESTION], prompt=True).rstrip().endswith(_THINK)
        self.hides_tools = not self.template.dialect.shows_tools
        self._enders = frozenset(self.stop_ids) | frozenset(self._ids_of.values())
        self._encode = Encoder(tokenizer, self.template.source, cache_size)
        self._tails = Tails(self.template, self.ends, self.past, self._encode, self._guard, cache_size)
        self._starts: dict[Any, Ids] = {}
        self._cache_size = cache_size
        controls = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._control = _control_tokens(controls | set(self.ends.closers))

    @property
    def parser(self) -> Parser:
        """The parser of this template's tool format, told whether the prompt opens the thinking."""
        return get_parser(self.tool_format, self.opens_thinking)

    def start(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Rendered:
        """The whole conversation and the generation prompt. Raises `ModelError` where the template cannot show it."""
        if any(message.tool_calls or not isinstance(message.content, str) for message in messages):
            return Rendered(self._encode(self._render(messages, tools)))
        spoken = tuple([(m.role, m.content, m.reasoning, m.tool_call_id, m.name) for m in messages])
        key = (spoken, json.dumps(tools) if tools else "")
        ids = self._starts.get(key)
        if ids is None:  # the episodes of a group start alike
            if len(self._starts) >= self._cache_size:
                self._starts.clear()
            ids = self._starts[key] = self._encode(self._render(messages, tools))
        return Rendered(ids)

    def extend(
        self,
        history: Sequence[Message],
        completion: Sequence[int],
        added: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Rendered:
        """What follows `completion`, the sampled tokens of history's last message: its end of turn where the model
        sampled none, `added`, and the generation prompt."""
        self.counters.extended += 1
        if self._may_rewrite(history, added) and rewrites(self.template, history, added, tools):
            if not self.keep_thinking:
                self.counters.rewritten += 1
                return Rendered(self._encode(self._render([*history, *added], tools)), rewritten=True)
            self.counters.kept += 1
        self._check_results(added)
        tail = self._tails.get(history, added, tools)
        last = completion[-1] if len(completion) else -1
        if last not in self._enders:
            self.counters.closings += 1
            return Rendered(tail.closed)
        if tail.closer in self.ends.roles and last != self._ids_of[tail.closer]:
            return Rendered(tail.closed)  # the next message's own role token, and the model stopped with another
        return Rendered(tail.open)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled tokens, special tokens kept, the end-of-turn token at the end left out."""
        kept = ids[:-1] if len(ids) and ids[-1] in self._enders else ids
        return self._encode.decode(kept)

    def written(self, text: str) -> Ids:
        """The tokens of a text inside an assistant message."""
        return self._encode(text)

    def branches(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[tuple[Ids, Floats]]:
        """A conversation up to its last assistant message as (ids [T], mask [T]) a branch, token for token what an
        episode would hold; every assistant message is masked 1 in exactly one of them."""
        spoken = [i for i, message in enumerate(messages) if message.role == "assistant"]
        if not spoken:
            raise ModelError("a demonstration needs at least one assistant message")
        context = self.start(messages[: spoken[0]], tools).ids
        parts: list[list[tuple[Ids, float]]] = [[]]
        for i, following in zip(spoken, [*spoken[1:], None], strict=True):
            body = self.sampled(messages[i])
            parts[-1] += [(context, 0.0), (body, 1.0)]
            if following is not None:
                rendered = self.extend(messages[: i + 1], body.tolist(), messages[i + 1 : following], tools)
                context = rendered.ids
                if rendered.rewritten:
                    parts.append([])
        return [_row(branch) for branch in parts]

    def sampled(self, message: Message) -> Ids:
        """The tokens a model would sample for this assistant message, its end of turn included."""
        try:
            text = self.parser.format(message)
        except ValueError as e:
            raise ModelError(f"cannot write a demonstration for this model: {e}") from None
        end = self.ends.calls if message.tool_calls and self.ends.calls else self.ends.content
        return np.append(self._encode(text), np.int32(self._ids_of[end])).astype(np.int32)

    def _may_rewrite(self, history: Sequence[Message], added: Sequence[Message]) -> bool:
        may = self.past.may_rewrite
        if not may:
            return False
        spoke = any(message.role != "tool" for message in added)
        reasoned = any(message.reasoning is not None for message in history)
        return (spoke, reasoned) in may

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        if tools and not (self.template.dialect.shows_tools or self.template.dialect.shows_calls):
            raise ModelError(
                "the model's chat template has no place for tools: the model would never see them. Use a model whose "
                "template has, or describe them in the prompt and pass none"
            )
        self._check_results(messages)
        return self.template.render([self._guard(message) for message in messages], tools, prompt=True)

    def _check_results(self, messages: Sequence[Message]) -> None:
        if not self.template.dialect.shows_results and any(message.role == "tool" for message in messages):
            raise ModelError(
                "the model's chat template has no place for tool results (role tool); use a model whose template has"
            )

    def _guard(self, message: Message) -> Message:
        """Break up control tokens in what tools and users said: text stays text."""
        if message.role not in ("tool", "user") or not isinstance(message.content, str):
            return message
        if not self._control.search(message.content) and BREAK not in message.content:
            return message
        text = message.content.replace(BREAK, "")
        return replace(message, content=self._control.sub(lambda m: m[0][0] + BREAK + m[0][1:], text))


def _control_tokens(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds them in a text. Numbered ones (`<unused1234>`) count as one: some tokenizers have thousands."""
    patterns = {re.sub(r"\d+", r"\\d+", re.escape(text)) for text in texts}
    return re.compile("|".join(sorted(patterns, key=len)[::-1]))


def _row(parts: Sequence[tuple[Ids, float]]) -> tuple[Ids, Floats]:
    ids = np.concatenate([ids for ids, _ in parts]).astype(np.int32)
    mask = np.concatenate([np.full(len(ids), value, dtype=np.float32) for ids, value in parts])
    return ids, mask
