"""OpenAI's chat completions: requests read, answers, streams and errors written.

What would change the distribution that is sampled from (temperature, top_p, penalties, seed) is read over: in training
it is the run's own. What cannot be done at all is refused by name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentgym.errors import AgentGymError
from agentgym.types import Message, TextPart

MODEL = "policy"
"""What the endpoint calls its one model. Requests may name any."""
CallRule = Literal["any", "one", "none"]


class WireError(AgentGymError):
    """A request that is not answered, as OpenAI's clients want to be told: `status` is HTTP's."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> bytes:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return json.dumps(
            {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}
        ).encode()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `calls`: how many tool calls the answer may have; `max_tokens` None: as the run says."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    calls: CallRule = "any"
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    stream: bool = False
    usage: bool = False
    """A stream ends with the numbers of tokens."""
    model: str = MODEL


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: `message` in OpenAI's shape."""

    id: str
    model: str
    message: Mapping[str, Any]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


def read_ask(data: bytes) -> Ask:
    """The request in an HTTP body; raises `WireError` naming the field that is wrong."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise WireError(400, f"the body is not valid JSON: {e}") from None
    if not isinstance(body, dict):
        raise WireError(400, "the body has to be a JSON object")
    if b"\\u" in data and not _is_text(body):
        raise WireError(400, "messages: half of a surrogate pair is no text", param="messages")
    _refuse(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise WireError(400, "messages: expected a list of at least one message", param="messages")
    stream = _one_of(body, "stream", bool, False)
    options = body.get("stream_options") or {}
    return Ask(
        messages=tuple(_message(i, row) for i, row in enumerate(messages)),
        tools=_tools(body.get("tools")),
        calls=_rule(body),
        stop=_stops(body.get("stop")),
        max_tokens=_limit(body),
        stream=stream,
        usage=isinstance(options, Mapping) and bool(options.get("include_usage")),
        model=str(body.get("model") or MODEL),
    )


def read_message(row: Mapping[str, Any]) -> Message:
    """A message in OpenAI's shape: a developer is a system, text in parts is text. Raises `ValueError`."""
    if row.get("role") == "developer":
        row = {**row, "role": "system"}
    message = Message.from_openai(row)
    parts = message.content
    if not isinstance(parts, str) and all(isinstance(part, TextPart) for part in parts):
        row = {**row, "content": message.text}
        message = Message.from_openai(row)
    if not isinstance(message.reasoning, str | None):
        raise ValueError("reasoning_content: expected text")
    return message


def completion(reply: Reply) -> bytes:
    """The body of an answer that is not streamed."""
    return json.dumps(
        {
            "id": reply.id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": reply.model,
            "choices": [{"index": 0, "message": reply.message, "logprobs": None, "finish_reason": reply.finish_reason}],
            "usage": reply.usage,
        }
    ).encode()


def stream(reply: Reply, usage: bool) -> Iterator[bytes]:
    """The server-sent events of a streamed answer: its role, what it says, its calls, its end."""
    message = reply.message
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if message.get("reasoning_content"):
        deltas.append({"reasoning_content": message["reasoning_content"]})
    if message.get("content"):
        deltas.append({"content": message["content"]})
    for i, call in enumerate(message.get("tool_calls", ())):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        begun = {"index": i, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
        deltas += [
            {"tool_calls": [begun]},
            {"tool_calls": [{"index": i, "function": {"arguments": arguments}}]},
        ]
    head = {"id": reply.id, "object": "chat.completion.chunk", "created": int(time.time()), "model": reply.model}
    more = {"usage": None} if usage else {}
    for delta in deltas:
        yield _event({**head, "choices": [_choice(delta, None)], **more})
    yield _event({**head, "choices": [_choice({}, reply.finish_reason)], **more})
    if usage:
        yield _event({**head, "choices": [], "usage": reply.usage})
    yield b"data: [DONE]\n\n"


def models() -> bytes:
    return json.dumps({"object": "list", "data": [_MODEL]}).encode()


def model() -> bytes:
    return json.dumps(_MODEL).encode()


_MODEL = {"id": MODEL, "object": "model", "created": 0, "owned_by": "agentgym"}


def _choice(delta: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _event(row: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(row).encode() + b"\n\n"


def _refuse(body: Mapping[str, Any]) -> None:
    if body.get("n") not in (None, 1):
        raise WireError(400, "n: one answer a request; ask again for another", param="n")
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type") not in (None, "text"):
        raise WireError(400, "response_format: only text; the policy is not held to a grammar", param="response_format")
    for name, use in (("functions", "tools"), ("function_call", "tool_choice")):
        if body.get(name):
            raise WireError(400, f"{name}: OpenAI has given it up; use {use}", param=name)
    if body.get("logprobs"):
        raise WireError(400, "logprobs: they are recorded here and not handed out", param="logprobs")


def _is_text(body: Mapping[str, Any]) -> bool:
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _message(index: int, row: Any) -> Message:
    where = f"messages[{index}]"
    if not isinstance(row, Mapping):
        raise WireError(400, f"{where}: expected an object, got {type(row).__name__}", param=where)
    try:
        return read_message(row)
    except KeyError as e:
        raise WireError(400, f"{where}: {e} is missing", param=where) from None
    except (ValueError, TypeError, AttributeError) as e:
        raise WireError(400, f"{where}.{e}", param=where) from None


def _tools(rows: Any) -> tuple[Mapping[str, Any], ...]:
    if rows is None:
        return ()
    if not isinstance(rows, list):
        raise WireError(400, "tools: expected a list", param="tools")
    for i, row in enumerate(rows):
        function = row.get("function") if isinstance(row, Mapping) and row.get("type") == "function" else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            where = f"tools[{i}]"
            raise WireError(400, f"{where}: expected {{type: function, function: {{name, ...}}}}", param=where)
    return tuple(rows)


def _rule(body: Mapping[str, Any]) -> CallRule:
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise WireError(
            400,
            "tool_choice: auto or none; a call cannot be forced upon a policy that is sampled from",
            param="tool_choice",
        )
    if choice == "none":
        return "none"
    return "one" if body.get("parallel_tool_calls") is False else "any"


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise WireError(400, "stop: expected a text or a list of texts", param="stop")
    return tuple(stops)


def _limit(body: Mapping[str, Any]) -> int | None:
    given = [_one_of(body, name, int, None) for name in ("max_completion_tokens", "max_tokens")]
    known = [limit for limit in given if limit is not None]
    if any(limit < 1 for limit in known):
        raise WireError(400, "max_tokens: expected a number from 1 on", param="max_tokens")
    return min(known, default=None)


def _one_of(body: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise WireError(400, f"{name}: expected {kind.__name__}, got {type(value).__name__}", param=name)
    return value


def outward(message: Message, ids: Sequence[str], text: str) -> dict[str, Any]:
    """A sampled message in OpenAI's shape, its calls named by `ids`. A malformed call has `text`, what the model wrote,
    for its arguments: no JSON, as OpenAI warns that they may be."""
    calls = []
    for call, call_id in zip(message.tool_calls, ids, strict=True):
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False) if call.error is None else _no_json(text)
        function = {"name": call.name or "unknown", "arguments": arguments}
        calls.append({"id": call_id, "type": "function", "function": function})
    row: dict[str, Any] = {"role": "assistant", "content": message.text or (None if calls else ""), "refusal": None}
    if message.reasoning is not None:
        row["reasoning_content"] = message.reasoning
    return {**row, "tool_calls": calls} if calls else row


def _no_json(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return f"malformed: {text}"
