"""A Hugging Face chat template as a function: messages and tools in, text out.

Templates disagree about the shape of what they are given (arguments as an object or as text, what the reasoning is
called, how long a call's id may be). `ChatTemplate` finds out by rendering small probes, once, and then gives every
template what it wants. It leaves out tokens: those are the renderer's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from agentgym.errors import ModelError
from agentgym.types import ImagePart, Message, ToolCall

SENTINEL = "qzSENTINELzq"
"""Stands for what a model wrote; plain letters, so that no template escapes, trims or splits it."""

PROBE_TOOLS: tuple[Mapping[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "a probe",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string", "description": "any"}},
                "required": ["text"],
            },
        },
    }
    for name in ("qzprobe", "qzprobf")
)
QUESTION = Message("user", "question")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one template wants its messages, and what it has no place for."""

    arguments_as_text: bool = False
    reasoning_key: str | None = None
    """None: the template knows no reasoning, which then stays in the content as the model wrote it."""
    short_ids: bool = False
    """Call ids must be nine letters or digits."""
    null_content: bool = False
    """A message that is only calls has no content at all, rather than an empty one."""
    content_as_parts: bool = False
    """Content is a list of parts even where it is only text."""
    shows_tools: bool = True
    shows_calls: bool = True
    shows_results: bool = True


class ChatTemplate:
    """`render` is the whole of it; `dialect` says what was found out."""

    def __init__(self, tokenizer: Any, *, chat_template: str | None = None, variables: Mapping[str, Any] | None = None):
        self.source = chat_template or _template_of(tokenizer)
        self._compiled = _compile(self.source)
        self._variables = {**tokenizer.special_tokens_map, **(variables or {})}
        self.dialect = Dialect()
        self.dialect = self._probe()

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, prompt: bool) -> str:
        """The conversation as text, with the generation prompt if `prompt`; raises `ModelError` where it cannot."""
        try:
            return str(
                self._compiled.render(
                    messages=self.rows(messages),
                    tools=list(tools) or None,
                    documents=None,
                    add_generation_prompt=prompt,
                    **self._variables,
                )
            )
        except Exception as e:  # a template is code of others: it may raise anything
            roles = " ".join(message.role for message in messages)
            raise ModelError(
                f"the model's chat template cannot render this conversation ({roles}): {e}. "
                "Use a model whose template has tools and tool results, or set another chat_template"
            ) from e

    def rows(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as the dicts that this template wants."""
        names: dict[str, str] = {}
        rows = []
        for message in messages:  # in order: the ids of calls may come again in a later turn
            names.update((call.id, call.name) for call in message.tool_calls)
            rows.append(self._row(message, names))
        return rows

    def _row(self, message: Message, names: Mapping[str, str]) -> dict[str, Any]:
        row: dict[str, Any] = {"role": message.role, "content": _content(message, self.dialect.content_as_parts)}
        if message.role == "assistant":
            if message.reasoning is not None:
                self._put_reasoning(row, message)
            if message.tool_calls:
                row["tool_calls"] = [self._call(call) for call in message.tool_calls]
                if self.dialect.null_content and not row["content"]:
                    row["content"] = None
        elif message.role == "tool":
            if message.tool_call_id is not None:
                row["tool_call_id"] = self._id(message.tool_call_id)
            name = message.name or names.get(message.tool_call_id or "")
            if name:
                row["name"] = name
        return row

    def _put_reasoning(self, row: dict[str, Any], message: Message) -> None:
        key = self.dialect.reasoning_key
        if key is None:
            inline = f"<think>\n{message.reasoning}\n</think>\n\n{message.text}"
            row["content"] = _content(replace(message, content=inline), self.dialect.content_as_parts)
        elif key == "thinking" and message.tool_calls and message.text:
            # gpt-oss: what comes before a call is all analysis, in one field
            row["content"], row[key] = "", f"{message.reasoning}\n{message.text}"
        else:
            row[key] = message.reasoning

    def _call(self, call: ToolCall) -> dict[str, Any]:
        arguments: Any = dict(call.arguments)
        if self.dialect.arguments_as_text:
            arguments = json.dumps(arguments, ensure_ascii=False)
        name = call.name or "unknown"  # a malformed call may have none
        return {"type": "function", "id": self._id(call.id), "function": {"name": name, "arguments": arguments}}

    def _id(self, call_id: str) -> str:
        if not self.dialect.short_ids or (len(call_id) == 9 and call_id.isalnum()):
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:9]

    def _probe(self) -> Dialect:
        """Ask the template, not its name: each question is a rendering in which a marker shows up or does not."""
        if SENTINEL not in self._try([QUESTION, Message("assistant", SENTINEL)]):
            self.dialect = Dialect(content_as_parts=True)
        shows_tools = PROBE_TOOLS[0]["function"]["name"] in self._try([QUESTION], PROBE_TOOLS, prompt=True)
        self.dialect = self._calling()
        shows_calls = SENTINEL in self._try([QUESTION, call_message()])
        answer = (QUESTION, call_message("x") if shows_calls else Message("assistant", "x"), result_message(SENTINEL))
        shows_results = SENTINEL in self._try(answer, prompt=True)
        return replace(
            self.dialect,
            reasoning_key=self._reasoning_key(),
            shows_tools=shows_tools,
            shows_calls=shows_calls,
            shows_results=shows_results,
        )

    def _calling(self) -> Dialect:
        plain = self.dialect
        conversation = (QUESTION, call_message(), result_message("x"))
        for as_text, short, null in product((False, True), repeat=3):
            self.dialect = replace(plain, arguments_as_text=as_text, short_ids=short, null_content=null)
            if SENTINEL in self._try(conversation, prompt=True):
                return self.dialect
        return plain

    def _reasoning_key(self) -> str | None:
        found = self.dialect
        for key in ("reasoning_content", "thinking", "reasoning"):
            self.dialect = replace(found, reasoning_key=key)
            for message in (Message("assistant", "x", reasoning=SENTINEL), call_message("x", SENTINEL)):
                if SENTINEL in self._try([QUESTION, message]):
                    return key
        self.dialect = found
        return None

    def _try(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, prompt: bool = False
    ) -> str:
        try:
            return self.render(messages, tools, prompt=prompt)
        except ModelError:
            return ""


def call_message(text: str = SENTINEL, reasoning: str | None = None, *, calls: int = 1) -> Message:
    """A probe: an assistant message whose last call's argument is `text`."""
    texts = [*(f"{text}{i}" for i in range(calls - 1)), text]
    made = tuple(
        ToolCall(f"call_{i}", PROBE_TOOLS[i]["function"]["name"], {"text": value}) for i, value in enumerate(texts)
    )
    return Message("assistant", reasoning=reasoning, tool_calls=made)


def result_message(text: str, index: int = 0) -> Message:
    return Message("tool", text, tool_call_id=f"call_{index}", name=PROBE_TOOLS[index]["function"]["name"])


def _content(message: Message, as_parts: bool) -> Any:
    parts = message.content
    if isinstance(parts, str):
        return [{"type": "text", "text": parts}] if as_parts else parts
    if not as_parts and not any(isinstance(part, ImagePart) for part in parts):
        return message.text  # many templates take text only
    return [
        {"type": "image", "url": part.url} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
        for part in parts
    ]


def _template_of(tokenizer: Any) -> str:
    try:
        # a tokenizer may carry several by name: the one made for tools is the one wanted
        return str(tokenizer.get_chat_template(tools=[{}]))
    except (ValueError, AttributeError):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ModelError(
            f"the tokenizer of {name} has no chat template; use an instruct model, or set tokenizer.chat_template"
        ) from None


def _compile(source: str) -> Any:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return _compile_jinja_template(source)
    except Exception as e:
        raise ModelError(f"the model's chat template is not valid Jinja: {e}") from e
