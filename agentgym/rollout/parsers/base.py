"""What all formats share: reasoning apart, then from opening to opening; a format reads what stands at one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agentgym.protocols import ParsedCalls
from agentgym.rollout.parsers.scan import Scan
from agentgym.types import Message, ToolCall

THINK, END_THINK = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class BaseParser(ABC):
    """`thinking_open`: the generation prompt already wrote `<think>`, so text begins inside the reasoning.

    What is malformed becomes a call with `error` set: the env answers it and the model may try again.
    """

    thinking_open: bool = False

    thoughts: ClassVar[tuple[tuple[str, str], ...]] = ((THINK, END_THINK),)
    """Pairs of tags around the reasoning; `format` writes the first."""

    @property
    @abstractmethod
    def how(self) -> str:
        """How a call is written, as an order: it ends every error."""

    @abstractmethod
    def find(self, scan: Scan, at: int) -> int:
        """Where calls next may begin, or -1."""

    @abstractmethod
    def read(self, scan: Scan, start: int) -> int:
        """Read what begins at `start`: add its calls to `scan`, return where the text goes on (beyond `start`). If it
        adds none, what it went over was no call and stays content."""

    @abstractmethod
    def write(self, calls: Sequence[ToolCall]) -> str:
        """The text a model would write for these calls (at least one)."""

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = (), *, id_prefix: str = "call_") -> ParsedCalls:
        """Take a model's text apart; ids are `id_prefix` + 0, 1, ... Raises on no text whatever."""
        scan = Scan(text, self.how, tools, id_prefix)
        reasoning, at = self._reasoning(scan)
        if at < 0:  # thinking that never ended: nothing was said yet
            return ParsedCalls((), (), "", reasoning)
        said: list[str] = []
        start = self.find(scan, at)
        while start >= 0 and not scan.full:
            made = len(scan.calls)
            end = max(self.read(scan, start), start + 1)
            if len(scan.calls) > made:
                said.append(text[at:start].strip())
                at = end
            else:
                scan.misses += 1
            start = self.find(scan, end)
        scan.stop()
        said.append(text[at:].strip())
        errors = tuple([call.error for call in scan.calls if call.error is not None])
        return ParsedCalls(tuple(scan.calls), errors, "\n".join(filter(None, said)), reasoning)

    def format(self, message: Message) -> str:
        """The text a model would write: the inverse of `parse` for stripped text that holds none of the tags.

        Raises `ValueError` for arguments that the format cannot carry."""
        said = [message.text] if message.text else []
        if message.tool_calls:
            said.append(self.write(message.tool_calls))
        text = "\n".join(said)
        opening, closing = self.thoughts[0]
        if message.reasoning is None:
            return f"{closing}\n\n{text}" if self.thinking_open else text
        begin = "" if self.thinking_open else f"{opening}\n"
        return f"{begin}{message.reasoning}\n{closing}\n\n{text}"

    def closing(self, text: str) -> str:
        """What ends the reasoning that `text` breaks off in; empty where it is in none."""
        _, at = self._reasoning(Scan(text, self.how))
        if at >= 0:
            return ""
        opened = [pair for pair in self.thoughts if pair[0] in text] or self.thoughts
        return f"\n{opened[0][1]}\n\n"

    def _reasoning(self, scan: Scan) -> tuple[str | None, int]:
        """The reasoning (None where there is none) and where the rest begins (-1: it never ended)."""
        text = scan.text
        present = [pair for pair in self.thoughts if pair[0] in text or pair[1] in text]
        opening, closing = present[0] if present else self.thoughts[0]
        if not present and not self.thinking_open:
            return None, 0
        end = text.find(closing)
        opened = self.thinking_open
        begin = 0
        lead = len(text) - len(text.lstrip())
        if text.startswith(opening, lead):
            opened, begin = True, lead + len(opening)
        elif not opened:
            end = self._outside_calls(scan, end, closing)
        if end >= 0:
            inner = text[begin:end].strip()
            # a prompt that opened the thinking, and a model that closed it at once
            return (inner if inner or begin or not opened else None), end + len(closing)
        return (text[begin:].strip(), -1) if opened else (None, 0)

    def _outside_calls(self, scan: Scan, end: int, closing: str) -> int:
        """The first end of reasoning at or after `end` that is not inside a call, or -1."""
        ahead = Scan(scan.text, self.how, scan.tools)
        start = self.find(ahead, 0)
        while 0 <= start < end and not ahead.full:
            made = len(ahead.calls)
            after = max(self.read(ahead, start), start + 1)
            if len(ahead.calls) == made:
                ahead.misses += 1
            elif end < after:
                end = ahead.find(closing, after)
            start = self.find(ahead, after)
        return end
