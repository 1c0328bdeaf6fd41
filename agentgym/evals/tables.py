"""A table of texts, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` of as many cells as there are `columns`; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def turned(self) -> Table:
        """Rows for columns, columns for rows."""
        lines = list(zip(*[self.columns, *self.rows], strict=True))
        return Table(self.title, lines[0], lines[1:])

    def markdown(self) -> str:
        """With its title as a heading."""
        lines = [f"## {self.title}", ""] if self.title else []
        lines += ["| " + " | ".join(map(_cell, self.columns)) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def show(self, console: Console) -> None:
        """On the terminal, the title above it."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=None, pad_edge=False, header_style="bold")
        for i, column in enumerate(self.columns):
            table.add_column(Text(column), style="cyan" if i == 0 else None, justify="left" if i == 0 else "right")
        for row in self.rows:
            table.add_row(*[Text(cell) for cell in row])
        console.print(Text(f"\n{self.title}", style="bold"), soft_wrap=True)
        console.print(table)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
