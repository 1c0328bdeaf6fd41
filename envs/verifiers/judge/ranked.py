"""A judge that compares the answers of a group: relative quality where no absolute scale is to be trusted."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import string
from collections.abc import Sequence
from typing import Any

from agentgym.envs.verifiers.consistency import given_answer
from agentgym.envs.verifiers.judge.asking import Asker, data_rule, quoted, text_of
from agentgym.errors import ConfigError
from agentgym.types import Task, Trajectory

MAX_ANSWERS = len(string.ascii_uppercase)
_LINE = re.compile(r"\**ranking\**\s*:\s*\**\s*([A-Z](?:\s*[>=]\s*[A-Z])*)\s*\**\.?", re.IGNORECASE)


class RankJudge:
    """A `GroupReward`: 1 for a group's best answer, 0 for its worst, ties share; equal steps between.

    The judge sees all answers at once, in a shuffled order and then in the reverse of it, and the ranks are averaged: a
    liking for the first or the last cancels out. Equal answers are shown once. An answer that is empty is last,
    unasked; a group with nothing to compare gets 0.5 each. What else there is goes to `Asker`.
    """

    def __init__(self, url: str, rubric: str, *, passes: int = 2, **asking: Any):
        if not rubric.strip():
            raise ConfigError("judge: there is no rubric")
        if passes < 1:
            raise ConfigError(f"judge: passes = {passes!r}: must be 1 or more")
        self._asker = Asker(url, **asking)
        self._rubric, self._passes = rubric.strip(), passes

    async def __call__(self, task: Task, trajectories: Sequence[Trajectory]) -> list[float]:
        return await self.rank(text_of(task.prompt), [given_answer(t) for t in trajectories])

    async def rank(self, question: str, answers: Sequence[str]) -> list[float]:
        """A worth for each answer, 0 to 1; raises `VerifierFault` where the judge gives no ranking."""
        texts = [answer.strip() for answer in answers]
        distinct = list(dict.fromkeys(text for text in texts if text))
        if len(distinct) > MAX_ANSWERS:
            raise ConfigError(f"judge: {len(distinct)} answers to rank; at most {MAX_ANSWERS}")
        ranks = dict.fromkeys(distinct, 0.0)
        if len(distinct) > 1:
            for ranking in await asyncio.gather(
                *(self._pass(question, order) for order in self._orders(question, distinct))
            ):
                for text, rank in ranking.items():
                    ranks[text] += rank / self._passes
        return _worths([ranks.get(text) for text in texts])

    async def aclose(self) -> None:
        """Close the connections of this event loop; further questions open others."""
        await self._asker.aclose()

    def _orders(self, question: str, answers: Sequence[str]) -> list[list[str]]:
        """The same orders for the same answers: shuffled by their hash, every second one the reverse of the last."""
        digest = hashlib.blake2b(repr((question, sorted(answers))).encode("utf-8", "surrogatepass")).digest()
        rng = random.Random(digest)
        orders: list[list[str]] = []
        for i in range(self._passes):
            if i % 2:
                orders.append(orders[-1][::-1])
            else:
                orders.append(rng.sample(sorted(answers), len(answers)))
        return orders

    async def _pass(self, question: str, order: Sequence[str]) -> dict[str, float]:
        labels = string.ascii_uppercase[: len(order)]
        parts = {"task": question, **{f"answer {label}": text for label, text in zip(labels, order, strict=True)}}
        mark, user = quoted(parts)
        system = (
            f"You rank {len(order)} answers to one task, {', '.join(labels)}. Their order means nothing.\n\n"
            f"{data_rule(mark)}\n\nWhat is better:\n{self._rubric}\n\nThink briefly, then end with one line and "
            "nothing after it, best first, > between a better and a worse one, = between equals:\n"
            f"Ranking: {' > '.join(labels[::-1])}\nwith every letter once."
        )
        found = await self._asker.ask(system, user, lambda reply: read_ranking(reply, labels))
        return {text: found[i] for i, text in enumerate(order)}


def read_ranking(reply: str, labels: str) -> tuple[float, ...]:
    """The rank of each label (0 the best; equals share the mean of their places) from a reply's last line,
    `Ranking: B > A = C`. Raises `ValueError` unless every label is there once."""
    lines = reply.strip().splitlines()
    match = _LINE.fullmatch(lines[-1].strip()) if lines else None
    if match is None:
        raise ValueError("the reply does not end with a ranking")
    tiers = [re.findall("[A-Z]", tier) for tier in match[1].upper().split(">")]
    named = [label for tier in tiers for label in tier]
    if sorted(named) != sorted(labels):
        raise ValueError(f"the ranking does not name each of {', '.join(labels)} once")
    ranks: dict[str, float] = {}
    place = 0
    for tier in tiers:
        ranks.update(dict.fromkeys(tier, place + (len(tier) - 1) / 2))
        place += len(tier)
    return tuple(ranks[label] for label in labels)


def _worths(ranks: Sequence[float | None]) -> list[float]:
    """Ranks as 1 (best) to 0 (worst); None, an empty answer, is below all others."""
    known = [rank for rank in ranks if rank is not None]
    if not known:
        return [0.5] * len(ranks)
    worst = max(known) + (1 if len(known) < len(ranks) else 0)
    best = min(known)
    if worst == best:
        return [0.5] * len(ranks)
    return [0.0 if rank is None else (worst - rank) / (worst - best) for rank in ranks]
