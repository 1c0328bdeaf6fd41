"""Numbers as a person reads them."""

from __future__ import annotations

GIB = 1 << 30


def gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"


def seconds(time: float) -> str:
    return f"{time:,.1f} s" if time >= 1 else f"{time * 1e3:,.1f} ms"


def count(numbers: float) -> str:
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if numbers >= size:
            return f"{numbers / size:,.2f} {name}"
    return f"{numbers:,.0f}"


def several(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
