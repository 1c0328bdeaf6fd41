"""Conversations as an OpenAI-compatible endpoint takes them, and its answers as messages.

`native`: tools and calls in the fields that the protocol has for them; a call that the server left in the text is
found there. `text`: for servers that know no tools, they are described in the system message and calls are text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentgym.protocols import Parser
from agentgym.types import Message

GUIDE = """# Tools

You can call these functions, described in JSON:
{schemas}

A call is written like this, with nothing else around it; its result comes in the next message:
{example}"""


@dataclass(frozen=True, slots=True)
class ChatText:
    parser: Parser
    native: bool = True

    def write(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The part of a request's body that says what was said: `messages`, and `tools` where there are any."""
        if self.native or not tools:
            body: dict[str, Any] = {"messages": [_native(message) for message in messages]}
            return {**body, "tools": [dict(tool) for tool in tools]} if tools else body
        rows: list[dict[str, Any]] = [{"role": "system", "content": self._guide(tools)}]
        for message in messages:
            row = self._textual(message)
            if message.role == "system" and len(rows) == 1:
                rows[0]["content"] = f"{message.text}\n\n{rows[0]['content']}"
            elif message.role == "tool" and rows[-1].get("tools"):
                rows[-1]["content"] += f"\n{row['content']}"  # chat templates want user and assistant in turn
            else:
                rows.append(row)
        return {"messages": [{"role": row["role"], "content": row["content"]} for row in rows]}

    def read(self, message: Message, tools: Sequence[Mapping[str, Any]], ids: str) -> Message:
        """The endpoint's message with the calls that its server left in the text, which get `ids` and a number."""
        if message.tool_calls:
            return message
        parsed = self.parser.parse(message.text, tools)
        reasoning = message.reasoning if parsed.reasoning is None else parsed.reasoning
        calls = tuple([replace(call, id=f"{ids}{i}") for i, call in enumerate(parsed.calls)])
        return Message("assistant", parsed.content, reasoning=reasoning, tool_calls=calls)

    def _textual(self, message: Message) -> dict[str, Any]:
        if message.role == "tool":
            return {"role": "user", "content": f"<tool_response>\n{message.text}\n</tool_response>", "tools": True}
        if message.role == "assistant":
            return {"role": "assistant", "content": self.parser.format(replace(message, reasoning=None))}
        return _native(message)

    def _guide(self, tools: Sequence[Mapping[str, Any]]) -> str:
        schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        call = Message.from_openai(
            {"role": "assistant", "tool_calls": [{"function": {"name": "NAME", "arguments": '{"PARAMETER": "value"}'}}]}
        )
        return GUIDE.format(schemas=schemas, example=self.parser.format(call))


def _native(message: Message) -> dict[str, Any]:
    """OpenAI's own fields and no more: strict servers refuse what they do not know."""
    row = message.to_openai()
    row.pop("reasoning_content", None)
    for call in row.get("tool_calls", ()):
        call.pop("error", None)
        call["function"]["name"] = call["function"]["name"] or "unknown"  # of a malformed call
    if message.role == "tool":
        row.pop("name", None)
    if message.role == "assistant" and message.tool_calls and not message.text:
        row["content"] = None
    return row
