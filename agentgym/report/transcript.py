"""An episode for a person to read: who said what, the calls, their results, the reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentgym.report.progress import figure
from agentgym.types import Message, Trajectory

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {
    "system": "dim",
    "user": "bold cyan",
    "agent": "bold green",
    "thinks": "italic dim",
    "calls": "yellow",
    "tool": "magenta",
    "end": "bold",
}
MARGIN = 7
"""Columns of the name before a line."""
# what a model or tool wrote must not steer the terminal: control characters are shown as pictures of themselves
_VISIBLE = {**{c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t"}, **dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)}


def said(message: Message) -> Iterator[tuple[str, str]]:
    """A message as (who, text) pairs: reasoning, words and calls apart. Control characters are made visible."""
    for who, text in _parts(message):
        yield who, text.replace("\r\n", "\n").translate(_VISIBLE)


def _parts(message: Message) -> Iterator[tuple[str, str]]:
    if message.role != "assistant":
        yield message.role, message.text
        return
    if message.reasoning:
        yield "thinks", message.reasoning.strip()
    if message.text.strip() or not message.tool_calls:
        yield "agent", message.text.strip() or "(nothing)"
    for call in message.tool_calls:
        yield "calls", call_text(call.name, call.arguments) if call.error is None else f"(malformed) {call.error}"


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as Python would write it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def verdict(trajectory: Trajectory) -> str:
    """How an episode ended, in one line."""
    if trajectory.reward is None:
        return f"unscored: {trajectory.error or trajectory.stop_reason.value}"
    parts = [f"reward {figure(trajectory.reward)}", trajectory.outcome.value]
    if len(trajectory.components) > 1:
        parts.append(" ".join(f"{name}={figure(value)}" for name, value in trajectory.components.items()))
    if trajectory.stop_reason.value != "completed":
        parts.append(trajectory.stop_reason.value)
    return " · ".join(parts)


def conversation_lines(messages: Sequence[Message], width: int, most: int = 3) -> list[Text]:
    """Lines of `width` columns, at most `most` a message (the rest is an ellipsis), without the system message."""
    return [
        line
        for message in messages
        if message.role != "system"
        for who, text in said(message)
        for line in _wrapped(who, text, width, most)
    ]


def _wrapped(who: str, text: str, width: int, most: int) -> Iterator[Text]:
    import textwrap

    from rich.text import Text

    room = max(8, width - MARGIN)
    # what cannot be shown in `most` lines needs no wrapping either
    lines = [part for line in text[: room * (most + 1)].splitlines() for part in textwrap.wrap(line, room)] or [""]
    if len(lines) > most or len(text) > room * (most + 1):
        lines = [*lines[: most - 1], lines[most - 1][: room - 1] + "…"] if len(lines) >= most else [*lines, "…"]
    style = STYLES[who]
    for i, line in enumerate(lines):
        yield Text.assemble((f"{who if i == 0 else '':<{MARGIN}}", style), (line, style if who == "calls" else ""))


def print_message(console: Console, message: Message) -> None:
    """Print one message whole."""
    from rich.text import Text

    for who, text in said(message):
        style = STYLES[who]
        body = text.replace("\n", "\n" + " " * MARGIN)
        words = style if who in ("system", "thinks", "calls") else ""
        console.print(Text.assemble((f"{who:<{MARGIN}}", style), (body, words)))


def print_trajectory(console: Console, trajectory: Trajectory) -> None:
    """Print an episode that was played: its conversation and how it ended."""
    for message in trajectory.messages:
        print_message(console, message)
    print_end(console, verdict(trajectory), good=bool(trajectory.outcome))


def print_end(console: Console, text: str, *, good: bool) -> None:
    from rich.text import Text

    console.print(Text(f"{'end':<{MARGIN}}{text}", style="bold green" if good else "bold red"))
