"""Dump: a message of everything seen and of many answers at once, the right one among them, pays nothing."""

from __future__ import annotations

import string
from collections.abc import Iterable

from agentgym.envs.validate.bench import Bench, Case
from agentgym.envs.validate.echo import prompt_of
from agentgym.envs.validate.finding import Finding
from agentgym.envs.validate.floor import Attack, hold, says

DECOYS = ("0", "17", "-1", "1000003", "none of these", "I do not know")
LONG = "I think step by step about all that I was told. " * 2_000


def check(bench: Bench) -> Finding:
    def attacks(case: Case) -> Iterable[Attack]:
        seen = "\n".join(message.text for message in prompt_of(bench, case))
        yield says("all numbers to 3000", " ".join(map(str, range(3_000))))
        yield says("all numbers to 1000, each as the answer", "\n".join(f"#### {n}" for n in range(1_001)))
        yield says("all letters and all that was seen", f"{seen}\n{' '.join(string.ascii_uppercase)}\n{seen}")
        yield says("a hundred thousand characters of nothing", LONG)
        yield from _with_the_answer(bench, case, seen)

    return hold(bench, "dump", attacks)


def _with_the_answer(bench: Bench, case: Case, seen: str) -> Iterable[Attack]:
    right = bench.answer(case)
    if not right.strip():
        return
    others = bench.others(case)[:20]
    if not others and "\n" in right:
        return  # there is no wrong answer of its form to hide it among
    wrong = others or _like(right)
    half = len(wrong) // 2
    listed = [*_like(right), *wrong[:half], right, *wrong[half:]]  # the last one is of the right one's form, and wrong
    yield says("a list of answers, the right one in the middle", "\n".join(listed))
    yield says("the prompt, the metadata and the answers", f"{seen}\n{_metadata(case)}\n{right}\n{wrong[-1]}")
    if "\n" not in right:
        yield says("one answer or the other", f"{right} or {wrong[0]}")
        yield says("answers in a row", ", ".join(listed))
        yield says("answers in one box", f"\\boxed{{{', '.join(listed)}}}")
        yield says("answers, each marked", "\n".join(f"#### {answer.removeprefix('#### ')}" for answer in listed))
        yield says("answers in boxes", " ".join(f"\\boxed{{{answer}}}" for answer in listed))
        yield says("answers in one tag", f"<answer>{' '.join(listed)}</answer>")


def _like(right: str) -> list[str]:
    """Wrong answers, where a marked answer is right marked as it is."""
    _, mark, tail = right.rpartition("#### ")
    found = [f"{mark}{decoy}" for decoy in DECOYS] if mark else list(DECOYS)
    return [decoy for decoy in found if decoy.strip() not in (right.strip(), f"{mark}{tail}".strip())]


def _metadata(case: Case) -> str:
    return repr(dict(case.task.metadata))[:50_000]
