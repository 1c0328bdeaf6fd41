"""gpt-oss: messages on channels. `analysis` is reasoning, what has a recipient is a call, the rest is content."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.protocols import ParsedCalls
from agentgym.rollout.parsers.scan import BadJson, Scan, read_arguments, read_json
from agentgym.types import Message

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
_ENDS = (END, CALL, RETURN, START, CHANNEL, MESSAGE)
_TO = re.compile(r"(?:^|[\s>])to=([^\s<]{1,256})")
_CHANNEL = re.compile(r"<\|channel\|>\s{0,8}(\w{1,64})")
_HOW = f"write {CHANNEL}commentary to=functions.NAME {CONSTRAIN}json{MESSAGE}{{...}}{CALL}"


@dataclass(frozen=True, slots=True)
class HarmonyParser:
    """`thinking_open` means nothing here: the channel says what is reasoning.

    What a model says after a call, before it was answered, it made up: it is left out, further calls are not.
    """

    thinking_open: bool = False

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = (), *, id_prefix: str = "call_") -> ParsedCalls:
        """Take a model's text apart; ids are `id_prefix` + 0, 1, ... Raises on no text whatever."""
        scan = Scan(text, _HOW, tools, id_prefix)
        thought: list[str] = []
        said: list[str] = []
        at = 0
        while at < len(text) and not scan.full:
            begins, token = scan.first((MESSAGE, END, CALL, RETURN), at)
            if token != MESSAGE:  # no message begins: what is left is text, or a header that was cut off
                rest = text[at : len(text) if begins < 0 else begins]
                self._take_rest(scan, rest, said)
                at = len(text) if begins < 0 else begins + len(token)
                continue
            header = text[at:begins]
            before = header.find(START) if START in header else header.find(CHANNEL)
            if before > 0 and not _TO.search(header[:before]) and not scan.calls:
                said.append(header[:before].strip())
            header = header[header.rfind(START) :] if START in header else header
            at = self._take_message(scan, header, begins + len(MESSAGE), thought, said)
        scan.stop()
        errors = tuple([call.error for call in scan.calls if call.error is not None])
        reasoning = "\n".join(filter(None, thought)) if thought else None
        return ParsedCalls(tuple(scan.calls), errors, "\n".join(filter(None, said)), reasoning)

    def format(self, message: Message) -> str:
        """What a model samples after `<|start|>assistant`; its last token, which ends the turn, is left out."""
        parts = []
        if message.reasoning is not None:
            parts.append(f"{CHANNEL}analysis{MESSAGE}{message.reasoning}{END}")
        if message.text or not message.tool_calls:
            channel = "commentary" if message.tool_calls else "final"
            parts.append(f"{CHANNEL}{channel}{MESSAGE}{message.text}{END if message.tool_calls else ''}")
        for i, call in enumerate(message.tool_calls):
            body = json.dumps(dict(call.arguments), ensure_ascii=False)
            ended = CALL if i + 1 < len(message.tool_calls) else ""
            parts.append(f"{CHANNEL}commentary to=functions.{call.name} {CONSTRAIN}json{MESSAGE}{body}{ended}")
        return f"{START}assistant".join(parts)

    def closing(self, text: str) -> str:
        """What ends the `analysis` that `text` breaks off in; empty where it is in none."""
        _, began, body = text.rpartition(MESSAGE)
        header = text[: len(text) - len(body)].rpartition(START)[2]
        channel = _CHANNEL.search(header)
        inside = began and not any(end in body for end in _ENDS) and not _TO.search(header)
        return f"{END}{START}assistant" if inside and channel and channel[1] == "analysis" else ""

    def _take_rest(self, scan: Scan, rest: str, said: list[str]) -> None:
        recipient = _TO.search(rest)
        if CHANNEL in rest or START in rest or CONSTRAIN in rest:
            if recipient:
                scan.fail(_name_of(recipient[1]), f"it was cut off: {MESSAGE} is missing")
        elif not scan.calls:
            said.append(rest.strip())

    def _take_message(self, scan: Scan, header: str, at: int, thought: list[str], said: list[str]) -> int:
        """Read the message whose body begins at `at`; return where the text goes on."""
        recipient, channel = _TO.search(header), _CHANNEL.search(header)
        if recipient and recipient[1] not in ("assistant", "user", "all"):
            return self._take_call(scan, _name_of(recipient[1]), at)
        end, token = scan.first(_ENDS, at)
        end = len(scan.text) if end < 0 else end
        body = scan.text[at:end].strip()
        if channel and channel[1] == "analysis":
            thought.append(body)
        elif not scan.calls:
            said.append(body)
        return end + len(token) if token in (END, CALL, RETURN) else end

    def _take_call(self, scan: Scan, name: str, at: int) -> int:
        try:
            value, end = read_json(scan.text, scan.skip(at))
        except BadJson as e:
            end, token = scan.first(_ENDS, at)
            cut = "it was cut off: " if end < 0 else ""
            scan.fail(name, f"{cut}arguments are invalid JSON: {e}")
        else:
            arguments, wrong = read_arguments(name, value)
            after = scan.skip(end)
            stop, token = scan.first(_ENDS, end)
            if after < len(scan.text) and stop != after:
                rest = scan.text[after : len(scan.text) if stop < 0 else stop]
                wrong = wrong or f"text after the JSON object: {rest.strip()[:40]!r}"
            scan.add(name, arguments, wrong=wrong)
            end = stop
        if end < 0:
            return len(scan.text)
        return end + len(token) if token in (END, CALL, RETURN) else end


def _name_of(recipient: str) -> str:
    return recipient.removeprefix("functions.")
