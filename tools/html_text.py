"""HTML as the text that a reader sees. One pass from left to right, so that no page, however broken, takes long."""

from __future__ import annotations

import html
import re

_CLOSING = {
    name: re.compile(f"</{name}", re.IGNORECASE | re.ASCII)
    for name in ("script", "style", "template", "noscript", "svg", "title")
}
"""What is not shown, and its end."""
_BLOCKS = re.compile(
    r"address|article|aside|blockquote|br|d[dlt]|div|fieldset|figure|footer|form|h[1-6]|header|hr|li|main|nav|ol|option|p"
    r"|pre|section|table|tbody|t[dhr]|ul"
)
_TITLE = re.compile(r"<title[^<>]*>", re.IGNORECASE)
_NAME = re.compile(r"/?([a-zA-Z][a-zA-Z0-9]*)")


def html_text(page: str) -> str:
    """The text of a page: its title and body without markup, scripts and styles; blocks on lines of their own."""
    parts: list[str] = [_title(page), "\n"]
    place = 0
    while (start := page.find("<", place)) >= 0:
        parts.append(page[place:start])
        if page.startswith("<!--", start):
            place = _after(page, "-->", start + 4)
            continue
        name = _NAME.match(page, start + 1)
        if name is None and page[start + 1 : start + 2] not in ("!", "?"):
            parts.append("<")
            place = start + 1
            continue
        place = _after(page, ">", start + 1)
        tag = name[1].lower() if name else ""
        if _BLOCKS.fullmatch(tag):
            parts.append("\n")
        if tag in _CLOSING and page[start + 1] != "/":
            end = _CLOSING[tag].search(page, place)
            place = _after(page, ">", end.end()) if end else len(page)
    parts.append(page[place:])
    lines = (" ".join(line.split()) for line in html.unescape("".join(parts)).splitlines())
    return "\n".join(line for line in lines if line)


def _title(page: str) -> str:
    start = _TITLE.search(page)
    end = _CLOSING["title"].search(page, start.end()) if start else None
    return page[start.end() : end.start()] if start and end else ""


def _after(text: str, mark: str, place: int) -> int:
    """Where `mark` ends, or the end of the text: what is never closed hides the rest, as in a browser."""
    found = text.find(mark, place)
    return len(text) if found < 0 else found + len(mark)
