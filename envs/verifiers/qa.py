"""Short answers in words: exact match after SQuAD's normalisation, and token F1, against one or several golds.

Normalisation is that of SQuAD's official evaluation (Rajpurkar et al. 2016): small letters, no punctuation, no
articles, single spaces. In three places it goes on where that one errs: a number keeps its sign and its decimal point
("-5" is not "5", "3.5" is not "35", "1,000" is "1000"), punctuation beyond ASCII counts as such, and a gold answer of
which nothing would be left ("A", "The The") is kept as it is, so that an empty answer never matches.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, get_args

from agentgym.types import Outcome

Extract = Literal["auto", "strict", "bare"]
Gold: TypeAlias = "str | int | float | bool | Iterable[str | int | float]"

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER = re.compile(
    r"(?<![\w.,])([-+\u2212])?[$\u20ac\u00a3]?(?=\.?\d)((?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d+)?)(?!\w|[.,]\d)", re.ASCII
)
_DIGIT = re.compile("[0-9]")
_POINT, _MINUS = "\ue000", "\ue001"  # private use: stand in for a number's own while punctuation is dropped
_CLEARED = str.maketrans({**dict.fromkeys(string.punctuation, None), _POINT: ".", _MINUS: "-"})
_MARK = re.compile(r"[\W_]*(?:the )?(?:final )?answer(?: is)?[*_ ]*:(.*)", re.IGNORECASE)
_CLOSED_SETS = frozenset({"yes", "no", "noanswer"})


def verify_qa(gold: Gold, answer: str, *, extract: Extract = "auto", min_f1: float | None = None) -> Outcome:
    """Whether an answer in words is (one of) the gold, normalised; true when `Outcome.correct`.

    Args:
        gold: a text, number or yes/no (True is "yes"), or several of which one has to be met.
        answer: what the agent wrote.
        extract: what of it counts. Thinking (`<think>`) never does. "strict": what a last line `Answer: ...` or last
            `<answer>` tags say, else all of it. "auto": also the last `\\boxed{}`. "bare": all of it.
        min_f1: accept from this token F1 on, in place of an exact match.

    Returns `Outcome.unparsable` where no answer was given. Raises `ValueError` for a gold that is empty.
    """
    golds, said = _golds(gold), final_answer(answer, extract)
    if not said:
        return Outcome.unparsable
    right = _matches(golds, said) if min_f1 is None else _best_f1(golds, said) >= min_f1
    return Outcome.correct if right else Outcome.incorrect


def exact_match(gold: Gold, answer: str, *, extract: Extract = "auto") -> bool:
    """Whether an answer is one of the golds after normalisation; arguments as those of `verify_qa`."""
    return bool(verify_qa(gold, answer, extract=extract))


def token_f1(gold: Gold, answer: str, *, extract: Extract = "auto") -> float:
    """The harmonic mean of precision and recall of the answer's words, against the best of the golds: 0 to 1.

    As HotpotQA's evaluation: yes and no share no credit with anything but themselves.
    """
    golds, said = _golds(gold), final_answer(answer, extract)
    return _best_f1(golds, said) if said else 0.0


def final_answer(answer: str, extract: Extract = "auto") -> str:
    """What of a message is its answer, see `verify_qa`; empty if there is none."""
    if extract not in get_args(Extract):
        raise ValueError(f"extract must be one of {', '.join(get_args(Extract))}, got {extract!r}")
    if extract == "bare":
        return answer.strip()
    text = _spoken(answer)
    tagged = _in_tags(text)
    if tagged is not None:
        return tagged
    lines = text.splitlines()
    for i in reversed(range(len(lines))):
        if (marked := _MARK.fullmatch(lines[i])) is not None:
            following = (line for line in (marked[1], *lines[i + 1 :]) if line.strip(" *_"))
            return next(following, "").strip(" *_")
    boxed = _boxed(text) if extract == "auto" else None
    return (text if boxed is None else boxed).strip()


def normalise(text: str) -> str:
    """A text as it is compared: small letters, no punctuation, no articles, single spaces; numbers keep their value."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join([c for c in text if unicodedata.category(c)[0] != "P" or c.isascii()])
    text = text.casefold()
    if _DIGIT.search(text):
        text = _NUMBER.sub(_number, text)
    kept = text.translate(_CLEARED)
    return " ".join([word for word in kept.split() if word not in _ARTICLES])


def _number(match: re.Match[str]) -> str:
    sign, digits = match[1], match[2]
    whole, point, decimals = digits.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    value = f"{whole or '0'}{_POINT if point and decimals else ''}{decimals}"
    is_negative = sign in ("-", "\u2212") and bool(value.strip(f"0{_POINT}"))
    return f"{_MINUS if is_negative else ''}{value}"


def _golds(gold: Gold) -> list[str]:
    several = [gold] if isinstance(gold, str | int | float) else list(gold)
    texts = [text for item in several for text in _texts(item)]
    if not texts or not all(text.strip() for text in texts):
        raise ValueError("the gold answer is empty")
    return texts


def _texts(gold: Any) -> tuple[str, ...]:
    if isinstance(gold, bool):
        return ("yes", "true") if gold else ("no", "false")
    if not isinstance(gold, str | int | float):
        raise ValueError(f"the gold answer must be text or a number, got {type(gold).__name__}")
    return (str(gold),)


def _compared(gold: str, said: str) -> tuple[str, str]:
    """Gold and answer, normalised as far as something is left of the gold."""
    wanted = normalise(gold)
    if wanted:
        return wanted, normalise(said)
    return " ".join(gold.casefold().split()), " ".join(said.casefold().split())


def _matches(golds: Iterable[str], said: str) -> bool:
    return any(wanted == got for wanted, got in (_compared(gold, said) for gold in golds))


def _best_f1(golds: Iterable[str], said: str) -> float:
    return max(_f1(*_compared(gold, said)) for gold in golds)


def _f1(wanted: str, got: str) -> float:
    if wanted == got:
        return 1.0
    if wanted in _CLOSED_SETS or got in _CLOSED_SETS:
        return 0.0
    gold_words, words = wanted.split(), got.split()
    shared = sum((Counter(gold_words) & Counter(words)).values())
    return 2 * shared / (len(gold_words) + len(words)) if shared else 0.0


def _spoken(answer: str) -> str:
    """What follows the thinking; nothing, if that never ended."""
    _, closed, after = answer.rpartition("</think>")
    text = after if closed else answer
    return text.partition("<think>")[0]


def _in_tags(text: str) -> str | None:
    _, opened, after = text.rpartition("<answer>")
    return after.partition("</answer>")[0].strip() if opened else None


def _boxed(text: str) -> str | None:
    _, opened, after = text.rpartition("\\boxed{")
    if not opened:
        return None
    depth = 1
    for i, c in enumerate(after):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            inner = after[:i].strip()
            text_only = re.fullmatch(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}", inner)
            return text_only[1].strip() if text_only else inner
    return None
