"""What a text states of what: in "The price of a pear is 37", 37 of the price of a pear.

Read by patterns, for precision: a sentence that supposes, denies, asks or compares states nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentgym.envs.verifiers.quantities import Quantity, read_facts

_HEDGES = re.compile(
    r"\?|\b(?:if|suppose|assum\w+|whether|would|could|might|maybe|perhaps|not|never|no|isn't|aren't|wasn't|doesn't|"
    r"more than|less than|fewer than|at least|at most|up to|over|under|above|below|between|about|around|roughly|"
    r"approximately|nearly|almost|was|were|previously|used to|either|or)\b",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:actually|correction|corrected|wait|sorry|mistake|instead|rather|updated?|changed|now|new)\b", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_CLAUSE = re.compile(
    r"[,()]|(?<!\d):|:(?!\d)|\b(?:and|but|so|then|while|whereas|because|since|which|where|that|with)\b", re.IGNORECASE
)
_ROW = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,2}[.)])[ \t][^\n:]{0,60}:.*$|^[ \t]{2,}[^\n:]{0,60}:.*$", re.MULTILINE)
_VERBS = {
    **dict.fromkeys(("is", "are", "equals", "=", ":", "has", "have", "totals", "to", "at"), ""),
    **dict.fromkeys(("costs", "cost"), "price"),
    **dict.fromkeys(("weighs", "weigh"), "weight"),
    **dict.fromkeys(("takes", "take", "lasts", "last"), "duration"),
    **dict.fromkeys(("scores", "scored"), "score"),
}
_CLAIM = re.compile(
    r"(?P<left>[^=:?!;]{1,120}?)\s*"
    r"(?P<verb>=|:|\b(?:is|are|equals|has|have|totals|comes to|costs?|weighs?|takes?|lasts?|scored?s?)\b)"
    r"\s*(?:exactly |now |only |just |equal to )*(?=[-+$€£\u2212]?\d)",
    re.IGNORECASE,
)
ATTRIBUTES = {
    **dict.fromkeys(("price", "cost", "costs", "prices", "fare"), "price"),
    **dict.fromkeys(("duration", "time", "length"), "duration"),
    **{
        word: word
        for word in (
            *("weight", "distance", "population", "height", "age", "score", "size", "balance", "temperature", "fee"),
            *("tax", "rate", "deadline", "stock", "quantity", "count", "number", "total", "width", "area", "volume"),
        )
    },
}
FILLER = frozenset(
    (
        *("a", "an", "the", "of", "for", "in", "on", "at", "by", "to", "from", "with", "per", "each", "every", "one"),
        *("this", "that", "these", "those", "it", "its", "their", "his", "her", "my", "your", "our", "there", "here"),
        *("he", "she", "they", "we", "i", "you", "is", "are", "be", "been", "has", "have", "had", "do", "does"),
        *("exact", "current", "also", "still", "again", "thus", "hence", "therefore", "however", "first", "second"),
        *("next", "finally", "item", "product", "value", "what", "get", "got", "know", "see", "found", "find", "says"),
        *("say", "said", "shows", "show", "tool", "result", "as", "so", "only", "just", "very", "all", "both", "now"),
        *("note", "please", "later"),
    )
)
_PRONOUNS = frozenset(["it", "this", "that", "he", "she", "they", "there", "these", "those"])
_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|\#?\w*\d\w*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """`subject` are its words without order, `attribute` what of it is told ("" where that is not said)."""

    subject: frozenset[str]
    attribute: str
    quantity: Quantity
    unit: str
    text: str
    corrects: bool = False


def read_statements(text: str) -> Iterator[Statement]:
    """The statements of a text that give a number."""
    for sentence in _SENTENCE.split(_rows_out(text)):
        sentence = sentence.replace("*", "") if "**" in sentence else sentence
        if len(sentence) > 1000 or _HEDGES.search(sentence):
            continue
        clauses, opening = _clauses(sentence)
        for clause in clauses:
            if (statement := _statement(clause, opening, sentence)) is not None:
                yield statement


def _rows_out(text: str) -> str:
    """A text without the bulleted `Price: 40` lines of a listing: they speak of what stands above them."""
    return _ROW.sub("", text)


def _clauses(sentence: str) -> tuple[list[str], str]:
    """The clauses, and words that open the sentence and hold for all of it ("On Monday, ...")."""
    # the colon of "pear: 37" and the comma of 1,200 part nothing
    parts = _CLAUSE.split(re.sub(r"(?<=[^\W\d]):(?=\s*[-$€£]?\d)", " = ", re.sub(r"(?<=\d),(?=\d{3})", "", sentence)))
    first = parts[0].split()
    opens = (
        len(parts) > 1 and bool(first) and first[0].casefold() in ("on", "in", "at", "for", "after", "before", "from")
    )
    return (parts[1:], parts[0]) if opens and not re.search(r"\d\s*$", parts[0]) else (parts, "")


def _statement(clause: str, opening: str, sentence: str) -> Statement | None:
    claim = _CLAIM.search(clause)
    if claim is None:
        return None
    quantities, _ = read_facts(clause[claim.end() :], piece=True)
    if not quantities or quantities[0].start > 0:
        return None
    quantity = quantities[0]
    after = clause[claim.end() + quantity.end :]
    if re.match(r"\s*[-+*/=^\u00d7\u00f7]", after):  # an expression, not yet a value
        return None
    verb = claim["verb"].casefold().split()[-1]
    left = words_of(claim["left"])
    if not left or left[-1] in _PRONOUNS:
        return None
    following = _WORD.match(after.lstrip()) if after[:1] == " " else None
    rest = words_of(after)
    unit = quantity.unit
    if not unit and following and following.group().casefold() not in FILLER:
        unit, rest = singular(following.group().casefold()), rest[1:]
    names = [ATTRIBUTES.get(word) for word in left]
    attribute = next((name for name in names if name), _VERBS.get(verb, ""))
    words = [word for word in (*left, *rest, *words_of(opening)) if word not in FILLER and word not in ATTRIBUTES]
    subject = frozenset(map(singular, words))
    if not subject and not attribute:
        return None
    return Statement(subject, attribute, quantity, unit, sentence.strip(), bool(_CORRECTION.search(sentence)))


def words_of(text: str) -> list[str]:
    return [word.casefold().removesuffix("'s") for word in _WORD.findall(text)]


def singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
