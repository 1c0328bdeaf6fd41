"""Does an answer follow from what the agent was shown, and do its steps agree with each other and with its peers?

Works on messages alone, without a gold answer: a part of a reward that pays for not inventing. It reads by patterns and
is no proof of truth: a number that was seen may still be the wrong one. Put it beside a grader of the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from fractions import Fraction

from agentgym.envs.verifiers.contradictions import find_contradictions
from agentgym.envs.verifiers.quantities import Code, Quantity, read_facts
from agentgym.envs.verifiers.sources import Derive, Sources
from agentgym.envs.verifiers.verdict import Verdict
from agentgym.tools.episode import Episode
from agentgym.types import Message, Outcome, StopReason, Task, Trajectory

_QUOTED = re.compile(r"[\"\u201c]([^\"\u201c\u201d\n]{2,80})[\"\u201d]")
_NAME = re.compile(r"(?<![.!?:\n] )(?<!^)\b[A-Z][a-z]+(?:\s+[A-Z][a-z]+)*", re.MULTILINE)
_FINAL = (
    re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"),
    re.compile(r"####[ \t]*(.+)"),
    re.compile(r"\banswer(?:\s+is)?\s*(?::|\bis\b)?[ \t]*(.+)", re.IGNORECASE),
)


def check_trace(
    messages: Sequence[Message],
    answer: str | None = None,
    *,
    derive: Derive = "calls",
    allow: Collection[float] = (),
    names: bool = False,
) -> Verdict:
    """Whether every fact of the final answer was shown: in the prompt, by a tool, or as the result of a calculation.

    Facts are numbers (1,200 = 1200.0 = 1.2k = $1200; 3.33 for 3.3333; 15% for 0.15), codes, dates, times, addresses and
    quotations. What a tool only repeats of its arguments was not shown, nor what a calculator makes of numbers that
    were not. `correct` where all trace; `score` is their share; 0 for an answer without any fact.

    Args:
        messages: the conversation; its last message is the answer where `answer` is None.
        derive: "calls": results of expressions in calls, also where the tool failed; "pairs": sums, differences,
            products and quotients of any two numbers seen, too.
        allow: numbers that need no source, such as small counts.
        names: capitalised words inside sentences are facts too.
    """
    final = _answer_of(messages) if answer is None else answer
    if not final.strip():
        return Verdict(Outcome.incorrect, "there is no answer", 0.0)
    sources = Sources.of(messages, derive)
    facts, missing = _untraced(final, sources, allow, names)
    if not facts:
        return Verdict(Outcome.incorrect, "the answer holds no fact that could be traced", 0.0)
    if missing:
        return Verdict(Outcome.incorrect, f"never shown: {', '.join(missing)}", 1 - len(missing) / facts)
    return Verdict(Outcome.correct, f"all {facts} facts were shown", 1.0)


def check_consistency(
    messages: Sequence[Message],
    answer: str | None = None,
    *,
    derive: Derive = "calls",
    allow: Collection[float] = (),
    names: bool = False,
) -> Verdict:
    """`check_trace`, each contradiction counting as a further fact that was not shown. Arguments as there.

    Contradictions are: the agent's own words against its earlier ones, against a tool's result, against arithmetic.
    """
    trace = check_trace(messages, answer, derive=derive, allow=allow, names=names)
    clashes = find_contradictions(messages)
    if not clashes or trace.score is None:
        return trace
    final = _answer_of(messages) if answer is None else answer
    facts = _untraced(final, Sources.of(messages, derive), allow, names)[0]
    share = trace.score * facts / (facts + len(clashes))
    return Verdict(Outcome.incorrect, "\n".join([trace.reason, *map(str, clashes)]), share)


class Consistency:
    """`check_consistency` as a reward of an episode's end. The arguments are those of that function."""

    def __init__(self, derive: Derive = "calls", allow: Collection[float] = (), names: bool = False):
        if derive not in ("calls", "pairs"):
            raise ValueError(f"derive = {derive!r}: must be calls or pairs")
        self._derive, self._allow, self._names = derive, tuple(allow), names

    def __call__(self, task: Task, answer: str, episode: Episode) -> Verdict:
        return check_consistency(episode.messages, answer, derive=self._derive, allow=self._allow, names=self._names)


class Agreement:
    """A `GroupReward`: the share of the group's episodes whose final answer is the same, their own among them.

    Where nothing else is known of the right answer, the majority's stands for it (TTRL, arXiv 2504.16084). An episode
    without an answer agrees with nobody.
    """

    def __call__(self, task: Task, trajectories: Sequence[Trajectory]) -> list[float]:
        answers = [final_answer(given_answer(t)) for t in trajectories]
        counts = Counter(answers)
        return [counts[answer] / len(answers) if answer else 0.0 for answer in answers]


def given_answer(trajectory: Trajectory) -> str:
    """The text of a trajectory's last message if the episode ended by it, else empty."""
    last = trajectory.turns[-1].message if trajectory.turns else Message("assistant")
    return last.text if trajectory.stop_reason is StopReason.completed and not last.tool_calls else ""


def final_answer(text: str) -> str:
    """What a text commits to, in a form that equals that of another writing of it: what is boxed, follows #### or
    "answer is", else the last line; a number by its value (1,200 = $1200.00), words without case and punctuation."""
    lines = text.strip().splitlines()
    if not lines:
        return ""
    chosen = next((found[-1] for pattern in _FINAL if (found := pattern.findall(text))), lines[-1])
    quantities, codes = read_facts(chosen, piece=True)
    words = re.sub(r"[^\w\s]", " ", chosen.casefold()).split()
    if len(quantities) == 1 and not codes and len(words) <= 4:
        return _canonical(quantities[0])
    return " ".join(words)


def _canonical(quantity: Quantity) -> str:
    unit = quantity.unit if quantity.unit == "%" else ""
    return f"{quantity.value}{unit}"


def _untraced(answer: str, sources: Sources, allow: Collection[float], names: bool) -> tuple[int, list[str]]:
    """How many facts an answer has, and those that were never shown."""
    allowed = {Fraction(str(number)) for number in allow}
    quantities, codes = read_facts(answer)
    quantities = [quantity for quantity in quantities if quantity.value not in allowed]
    quotes = [quote for quote in _QUOTED.findall(answer) if not _is_fact(quote, quantities, codes)]
    words = [*quotes, *(_NAME.findall(answer) if names else ())]
    missing = [
        *(quantity.text.strip() for quantity in quantities if not sources.has_quantity(quantity)),
        *(code.text for code in codes if not sources.has_code(code)),
        *(word for word in words if not sources.has_words(word)),
    ]
    return len(quantities) + len(codes) + len(words), missing


def _is_fact(quote: str, quantities: Sequence[Quantity], codes: Sequence[Code]) -> bool:
    """Whether a quotation is a number or code, which is counted already."""
    return quote.strip() in {*(quantity.text.strip() for quantity in quantities), *(code.text for code in codes)}


def _answer_of(messages: Sequence[Message]) -> str:
    last = messages[-1] if messages else Message("assistant")
    return last.text if last.role == "assistant" and not last.tool_calls else ""
