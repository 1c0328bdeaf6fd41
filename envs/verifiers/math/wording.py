"""Texts as answers, and LaTeX made plain enough for the parser. No sympy here: only strings."""

from __future__ import annotations

import re

_UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "√": r"\sqrt ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "±": r"\pm ", "°": "", "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "θ": r"\theta ", "\u00a0": " ", "\u202f": " ",
    "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
}  # fmt: skip
_FROM_UNICODE = str.maketrans(_UNICODE)
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_SPACES = re.compile(r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~")
_NO_SPACE = re.compile(r"(?<!\\)\\!\s*")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,)\\!\s*(?=\d{3}(?!\d))")
_SLANTED = re.compile(r"\\(leq|geq)slant(?![a-zA-Z])")
_BARE_FRACTION = re.compile(r"\\frac\s*(\\[a-zA-Z]+|\d)\s*(\d)(?!\d)")
_GLUED = re.compile(r"(?<=[\d)}])(or|and)(?=[\dA-Z(\\])")
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])|(?<=\d)\s*\bdegrees?\b")
_LETTER = re.compile(r"\\(?:mathrm|text|mathit|mathsf|operatorname)\s*\{\s*([eidEPC])\s*\}")
_POWER = re.compile(r"\*\*")
_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(")
_PI = re.compile(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])")
_FACTOR = re.compile(r"(?<![\\a-zA-Z])(\d*)([a-zA-Z])$")
_TWO = re.compile(r"(?<![\d._^])(?<!frac)(?<!frac )\d+\s+\d+(?!\d*\s*/)")
_GROUPS = re.compile(r"(?<=\d) (?=\d{3}(?!\d))")
_IMAGINARY = re.compile(r"(?<=\d)i(?![a-zA-Z])")  # 4i: the parser looks for an i that stands alone
_AMOUNT = re.compile(r"[-+]?\s*\\?\$?[\d.,]+\s+[a-zA-Z]")
_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|mbox|math(?:rm|bf|it|sf|tt)|operatorname|emph)\s*\{([^{}]*)\}"
)
_QUIET = re.compile(r"\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![a-zA-Z])")
_CHOICE = re.compile(r"\(?([A-J])(?:\)|\.|:)(?:\s|$)")
_ONE_LETTER = re.compile(r"\(([A-Za-z])\)\.?")
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'-]+[^\W\d_]+)*")


def formula(text: str) -> str:
    """LaTeX in the form that the parser takes: unicode signs, doubled backslashes, programming notation."""
    text = text.translate(_FROM_UNICODE).replace("\n", " ").strip().strip("$").strip()
    if "matrix" not in text and "array" not in text and "cases" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = _SLANTED.sub(r"\\\1", _THOUSANDS.sub("", text))
    text = _BARE_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _GLUED.sub(r" \1 ", _NO_SPACE.sub("", text).replace("{,}", ","))
    text = _GROUPS.sub("", _DEGREES.sub("", _SPACES.sub(" ", text)))
    text = _PI.sub(r"\\pi ", _POWER.sub("^", _LETTER.sub(r"{\1}", text)))
    text = _roots(text).strip().rstrip(".,;").strip()
    text = re.sub(r"\s+(?=})", "", text)  # `e }` would be read as a unit too
    return _IMAGINARY.sub(" i ", _last_factor(text))


def side_by_side(text: str) -> bool:
    """Whether two integers stand side by side: `1 2` is nothing, though the parser adds them up."""
    return _TWO.search(text) is not None


def _last_factor(text: str) -> str:
    """A variable at the end stays one: the parser would take the `t` of `2t` for tons. `5 m` is left to it."""
    if len(text) > 1 and not _AMOUNT.fullmatch(text):
        text = _FACTOR.sub(lambda found: f"{found[1]}{{{found[2]}}}", text)
    return text


def _roots(text: str) -> str:
    """sqrt(...) -> \\sqrt{...}, its parentheses counted."""
    while found := _ROOT.search(text):
        depth, at = 1, found.end()
        while at < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        if depth:
            return text
        text = f"{text[: found.start()]}\\sqrt{{{text[found.end() : at - 1]}}}{text[at:]}"
    return text


def plain(text: str) -> str:
    """A text as words: no markup, one space, no final period; lower case, except for a single letter."""
    text = text.translate(_FROM_UNICODE).strip().strip("$").strip()
    for _ in range(3):
        text = _STYLE.sub(r"\1", text)
    text = _QUIET.sub("", _SPACES.sub(" ", text)).replace("{", "").replace("}", "").replace("\\%", "%")
    text = " ".join(text.strip("*\"'` ").split()).rstrip(".,;")
    if found := _ONE_LETTER.fullmatch(text):
        text = found[1]
    return text if len(text) == 1 else text.lower()


def same_text(gold: str, answer: str) -> bool:
    """Equal as words; a choice `A` is also met by `(A)`, `A. 12` and `A) 12`."""
    said, meant = plain(answer), plain(gold)
    if said == meant:
        return bool(meant)
    if len(meant) == 1 and meant in "ABCDEFGHIJ":
        found = _CHOICE.match(_bare(answer))
        return found is not None and found[1] == meant
    return _glued(said) == _glued(meant) and bool(meant)


def is_words(text: str) -> bool:
    """Whether a text is words and no formula: `even`, `\\text{odd}`, `Evelyn`, `no solution`."""
    bare = plain(text)
    if len(bare) == 3 and bare[0] < bare[1] < bare[2]:
        return False  # abc, xyz: a product
    return len(bare) > 2 and _WORDS.fullmatch(bare) is not None


def _glued(text: str) -> str:
    """Without spaces, but not those that part two numbers."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def _bare(text: str) -> str:
    for _ in range(3):
        text = _STYLE.sub(r"\1", text)
    return _SPACES.sub(" ", text).replace("$", "").strip()
