"""Is an answer right, as mathematics? `verify_math`: plain numbers at once, all else by sympy in processes apart."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import lru_cache

from agentgym.envs.verifiers.math import exact
from agentgym.envs.verifiers.math.extract import Extract, Value, extract
from agentgym.envs.verifiers.math.pool import shared_pool
from agentgym.tools.driving import checkpoint
from agentgym.types import Outcome

__all__ = ["Extract", "averify_math", "check_gold", "verify_math", "warm_up"]

_MODES = ("auto", "strict", "bare")


def verify_math(gold: object, answer: object, *, extract: Extract = "auto") -> Outcome:
    """Whether `answer` means what `gold` means; true when `Outcome.correct`. Callable from any thread.

    Args:
        gold: the right answer: a number, or text in LaTeX or plain notation, of which the value is found as by "auto".
        answer: what the agent wrote.
        extract: where in `answer` its value stands. "strict" (what environments use): in the last complete
            `\\boxed{}`, else after the last `####`, else nowhere. "bare": the whole text is the value. "auto": in the
            last box (boxes that stand together are one answer), else after a final-answer phrase (`####`, "the answer
            is", `A:`), else whatever stands last in the text.

    Returns `correct`, `incorrect`, `unparsable` (the answer commits to no value), `timeout` (it would take too much
    time or memory to compute); these four are the answer's doing. `error` (a gold that cannot be read, a machine that
    cannot compute) is not, and a rubric makes it an unscored episode. Blocks while sympy computes, never for long.
    """
    verdict = _at_once(gold, answer, extract)
    return verdict.result() if isinstance(verdict, Future) else verdict


async def averify_math(gold: object, answer: object, *, extract: Extract = "auto") -> Outcome:
    """`verify_math` for async code, on any event loop."""
    verdict = _at_once(gold, answer, extract)
    if not isinstance(verdict, Future):
        return verdict
    await checkpoint()
    return await asyncio.wrap_future(verdict)


def check_gold(gold: object) -> str | None:
    """What is wrong with a gold answer, None if it can be compared with: for loaders, which can name file and row."""
    value = _gold(gold if isinstance(gold, str) else _text(gold))
    if value is None:
        return f"the answer {_shown(gold)} is empty, too long, or no text"
    if not value.prose and exact.read(value.text) is not None:
        return None
    if shared_pool().submit(value, None).result():
        return None
    return f"the answer {_shown(gold)} is no number, no formula that can be read, and no plain text"


def warm_up() -> None:
    """Start the processes that compute, so that the first hard answer need not wait a second for them."""
    shared_pool().warm()


def _at_once(gold: object, answer: object, mode: Extract) -> Outcome | Future[Outcome]:
    """The verdict where numbers or words settle it, else its future."""
    if mode not in _MODES:
        raise ValueError(f"verify_math: extract = {mode!r}: must be one of {', '.join(_MODES)}")
    meant = _gold(gold if isinstance(gold, str) else _text(gold))
    if meant is None:
        return Outcome.error
    said = extract(answer if isinstance(answer, str) else _text(answer), mode)
    if said is None:
        return Outcome.unparsable
    if not (meant.prose or said.prose):
        if meant.text == said.text:
            return Outcome.correct
        if (settled := _settled(meant.text, said.text)) is not None:
            return Outcome.correct if settled else Outcome.incorrect
    return shared_pool().submit(meant, said)


def _settled(gold: str, answer: str) -> bool | None:
    """Whether numbers are the same, None where one of the two is something else."""
    right = exact.read(gold)
    if right is not None:
        number = exact.read(answer)
        return None if number is None else exact.same(right, number)
    if (based := exact.same_in_base(gold, answer)) is not None:
        return based
    several = exact.read_several(gold)
    if several is None or (numbers := exact.read_several(answer)) is None:
        return None
    return exact.same_numbers(several, numbers)


@lru_cache(maxsize=4096)
def _gold(gold: str) -> Value | None:
    return extract(gold, "auto")


def _text(value: object) -> str:
    """Numbers are taken as they print; anything else (None, a list) is no answer."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def _shown(gold: object) -> str:
    shown = repr(gold)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."
