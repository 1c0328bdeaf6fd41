"""A judge that gives one answer a score by a rubric."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
from typing import Any

from agentgym.envs.verifiers.judge.asking import Asker, data_rule, quoted, text_of
from agentgym.envs.verifiers.verdict import Verdict
from agentgym.errors import ConfigError, VerifierFault
from agentgym.tools.episode import Episode
from agentgym.types import Outcome, Task

_LINE = re.compile(r"\**score\**\s*:\s*\**\s*([-+]?\d+(?:\.\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?))?\s*\**\.?", re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)


class Judge:
    """Scores an answer from `low` to `high` by a rubric; a reward of (task, answer, episode), worth 0 to 1.

    rubric: what is good, and which score it earns. samples: how often it is asked; the median counts, where at least
    half of the readings could be used. passing: the worth from which on the outcome is `correct`. reference: show the
    task's own answer to the judge. What else there is goes to `Asker`.
    """

    def __init__(
        self,
        url: str,
        rubric: str,
        *,
        low: float = 1,
        high: float = 10,
        samples: int = 1,
        passing: float = 0.5,
        reference: bool = False,
        temperature: float | None = None,
        **asking: Any,
    ):
        if not low < high:
            raise ConfigError(f"judge: the scale goes from low to high, got {low:g} and {high:g}")
        if samples < 1:
            raise ConfigError(f"judge: samples = {samples!r}: must be 1 or more")
        if not rubric.strip():
            raise ConfigError("judge: there is no rubric")
        # several samples at temperature 0 would be one
        warmth = temperature if temperature is not None else (0.0 if samples == 1 else 0.7)
        self._asker = Asker(url, temperature=warmth, **asking)
        self._rubric, self._low, self._high = rubric.strip(), low, high
        self._samples, self._passing, self._reference = samples, passing, reference

    async def __call__(self, task: Task, answer: str, episode: Episode | None = None) -> Verdict:
        """The verdict; an empty answer earns the lowest score unasked."""
        reference = str(task.answer) if self._reference and task.answer is not None else ""
        return await self.judge(text_of(task.prompt), answer, reference)

    async def judge(self, question: str, answer: str, reference: str = "") -> Verdict:
        """The verdict on an answer to a question: `Outcome.error` where the judge gives none."""
        if not answer.strip():
            return Verdict(Outcome.incorrect, "there is no answer", 0.0)
        parts = {"task": question, **({"reference answer": reference} if reference else {}), "answer": answer}
        mark, user = quoted(parts)
        system = self._system(mark, bool(reference))
        asked = (self._asker.ask(system, user, self._read, seed) for seed in range(self._samples))
        read = await asyncio.gather(*asked, return_exceptions=True)
        scores = [score for score in read if isinstance(score, float)]
        faults = [fault for fault in read if isinstance(fault, BaseException)]
        for fault in faults:
            if not isinstance(fault, VerifierFault):
                raise fault
        if not scores or 2 * len(scores) < self._samples:
            return Verdict(Outcome.error, str(faults[0]))
        score = statistics.median(scores)
        worth = (score - self._low) / (self._high - self._low)
        reason = f"scored {score:g} of {self._low:g} to {self._high:g}"
        return Verdict(Outcome.correct if worth >= self._passing else Outcome.incorrect, reason, worth)

    async def aclose(self) -> None:
        """Close the connections of this event loop; further questions open others."""
        await self._asker.aclose()

    def _system(self, mark: str, reference: bool) -> str:
        told = " A reference answer is given; other ways to be right are right." if reference else ""
        return (
            f"You grade an answer to a task.{told}\n\n{data_rule(mark)}\n\nThe rubric:\n{self._rubric}\n\n"
            f"Think briefly, then end with one line and nothing after it:\nScore: n\n"
            f"where n is a number from {self._low:g} to {self._high:g}."
        )

    def _read(self, reply: str) -> float:
        return read_score(reply, self._low, self._high)


def read_score(reply: str, low: float, high: float) -> float:
    """The score in a judge's reply: its last line `Score: n`, or a JSON object with "score" that ends it.

    Only the end counts: what a judge cites on its way is not its verdict. Raises `ValueError` for anything else, and
    for a score outside of the scale, which is not clipped: a judge that misread its scale has misread more.
    """
    text = reply.strip()
    if not text:
        raise ValueError("the reply is empty")
    value = _json_score(text)
    if value is None:
        match = _LINE.fullmatch(text.splitlines()[-1].strip())
        if match is None or (match[2] is not None and float(match[2]) != high):
            raise ValueError("the reply does not end with a score")
        value = float(match[1])
    if not low <= value <= high:
        raise ValueError(f"the score {value:g} is not from {low:g} to {high:g}")
    return value


def _json_score(text: str) -> float | None:
    fenced = _FENCE.search(text)
    for candidate in (text, fenced.group(1) if fenced else "", text.splitlines()[-1]):
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(found, dict)
            and isinstance(score := found.get("score"), int | float)
            and not isinstance(score, bool)
        ):
            return float(score)
    return None
