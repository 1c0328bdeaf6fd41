"""Output within its limit, and visibly so."""

from __future__ import annotations


def cut(output: str | bytes, limit: int, size: int | None = None) -> tuple[str, bool]:
    """(text of at most `limit` bytes and a marker where more was written, whether it was cut).

    `size` is how much there was, where `output` is only its beginning. What is no UTF-8 is shown escaped.
    """
    data = output.encode(errors="replace") if isinstance(output, str) else output
    size = len(data) if size is None else size
    if size <= limit:
        return data.decode(errors="backslashreplace"), False
    return f"{data[:limit].decode(errors='ignore')}\n[... {size - limit} more bytes]", True
