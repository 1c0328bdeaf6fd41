"""The piece of a text that a search shows: where most of the query's words are."""

from __future__ import annotations

import re
from collections import Counter

from agentgym.tools.corpus import words

MAX_SEARCHED = 200_000
"""Characters of a document in which a piece is looked for."""
_WORD = re.compile(r"\w+")


def snippet_of(text: str, query: str, size: int) -> str:
    """At most about `size` characters of `text`, on one line, cut at words; "..." marks where it goes on."""
    text = " ".join(text.split())
    if len(text) <= size:
        return text
    start = _best_start(text[:MAX_SEARCHED], frozenset(words(query)), size - size // 3)
    end = min(start + size, len(text))
    if end < len(text) and (space := text.rfind(" ", start + size // 2, end)) > 0:
        end = space
    return f"{'... ' if start else ''}{text[start:end].strip()}{' ...' if end < len(text) else ''}"


def _best_start(text: str, wanted: frozenset[str], size: int) -> int:
    """Where the first piece with the most different wanted words begins; a little before its first one."""
    places = [(m.start(), m.end(), w) for m in _WORD.finditer(text) for w in words(m[0]) if w in wanted]
    inside: Counter[str] = Counter()
    best, best_start, first = 0, 0, 0
    for start, end, word in places:
        inside[word] += 1
        while end - places[first][0] > size and places[first][0] < start:
            left = places[first][2]
            inside[left] -= 1
            if not inside[left]:
                del inside[left]
            first += 1
        if len(inside) > best:
            best, best_start = len(inside), places[first][0]
    return _sentence_before(text, best_start, size // 2)


def _sentence_before(text: str, place: int, room: int) -> int:
    """The beginning of the sentence that `place` is in, if that is within `room`, else of a word."""
    if place <= room:
        return 0
    ends = [place - room + m.end() for m in re.finditer(r"[.!?] ", text[place - room : place])]
    if ends:
        return ends[-1]
    space = text.find(" ", place - room // 2, place)
    return space + 1 if space >= 0 else place
