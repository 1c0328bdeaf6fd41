"""How well and how fast `verify_math` judges: agreement with recorded cases, hostile answers, verdicts per CPU-second.

    python benchmarks/math_verifier.py --data FOLDER --json out.json

FOLDER holds `open/*.jsonl` (or set AGENTGYM_DATA); files that are not there are left out and said to be. Seconds are of
the clock but for those called CPU; memory is what this process and the workers hold (RSS, MiB).
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentgym.envs.verifiers.math import averify_math, check_gold, verify_math
from agentgym.envs.verifiers.math.pool import shared_pool

HOSTILE = {
    "power tower": "9^{9^{9^9}}",
    "boxed tower": "\\boxed{9^{9^{9^9}}}",
    "factorial": "1000000!",
    "factorial of a factorial": "((10!)!)!",
    "binomial": "\\binom{10^9}{5\\cdot 10^8}",
    "a million digits": "9" * 10**6,
    "5 MB of letters": "x" * 5_000_000,
    "5 MB of a formula": "$" + "1+" * 2_500_000 + "1$",
    "braces": "{" * 5_000 + "1" + "}" * 5_000,
    "parentheses": "(" * 3_000 + "1" + ")" * 3_000,
    "fractions": "\\frac{1}{" * 300 + "2" + "}" * 300,
    "long sum": "+".join(["1"] * 900),
    "boxes that never close": "\\boxed{" * 10_000,
    "dollars": "$" * 100_000,
    "nested powers": "(" * 10 + "x+1" + ")^9" * 10,
    "expansion": "(x+y+z+1)^{200}",
    "matrix": "\\begin{pmatrix}" + " \\\\ ".join(" & ".join("x" * 20) for _ in range(20)) + "\\end{pmatrix}",
    "long product": "\\prod_{i=1}^{10^7} i",
    "long series": "\\sum_{k=1}^{10^9} k^{k}",
    "integral": "\\int_0^1 x^{x^{x^x}} dx",
    "large exponential": "e^{e^{e^{e^{e^{100}}}}}",
    "symbolic tower": "x^{x^{x^{x^x}}}=2",
}
HONEST = [("\\sqrt{12}", "2\\sqrt{3}"), ("x^2-1", "(x-1)(x+1)"), ("\\frac{\\pi}{4}", "\\boxed{\\pi/4}")]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)


def agreement(path: Path) -> dict[str, Any]:
    """Share of verdicts that are the label's, and each miss; for the cases also by tag."""
    found: dict[str, list[bool]] = {}
    misses = []
    for row in rows(path):
        for kind, gold, answer, mode, label in judged(path.name, row):
            verdict = verify_math(gold, answer, extract=mode)
            found.setdefault(kind, []).append(bool(verdict) == label)
            if bool(verdict) != label:
                shown = {"id": row["id"], "kind": kind, "gold": str(gold)[-120:], "answer": str(answer)[-120:]}
                misses.append(shown | {"label": label, "verdict": verdict.value, "note": row.get("note", "")})
    by_kind = {kind: {"agree": sum(hits), "of": len(hits)} for kind, hits in found.items()}
    return {"agreement": by_kind, "misses": misses}


def judged(name: str, row: dict[str, Any]) -> Iterator[tuple[str, Any, Any, Any, bool]]:
    """(kind, gold, answer, extract, label) of each comparison that a row asks for."""
    if name.startswith("math_verifier_cases"):
        yield row["tag"], row["gold"], row["pred"], "auto", row["expected"]
        if row.get("symmetric"):
            yield row["tag"], row["pred"], row["gold"], "auto", row["expected"]
    elif name.startswith("labelled_gsm8k"):
        yield "labelled", row["gold"], row["response"].rpartition("A:")[2], "bare", row["is_correct"]
    else:
        yield "labelled", row["gold"], row["response"], "strict", row["is_correct"]


def robustness(path: Path) -> dict[str, int]:
    """Formulas that can be read among those that are well-formed, and among those that are not."""
    found = [(row["parses"], check_gold(row["latex"]) is None) for row in rows(path)]
    good, bad = [read for parses, read in found if parses], [read for parses, read in found if not parses]
    return {"well_formed": len(good), "read": sum(good), "malformed": len(bad), "malformed_read": sum(bad)}


def hostile() -> dict[str, Any]:
    """Seconds and verdict of each hostile answer against a plain and a symbolic gold, and what memory was held."""
    before, found = memory(), {}
    for name, answer in HOSTILE.items():
        for gold in ("5", "\\sqrt{2}+x"):
            start = time.perf_counter()
            verdict = verify_math(gold, answer)
            found[f"{name} against {gold}"] = {"seconds": time.perf_counter() - start, "verdict": verdict.value}
    worst = max(each["seconds"] for each in found.values())
    return {"worst_seconds": worst, "memory_before": before, "memory_after": memory(), "answers": found}


def neighbours() -> dict[str, Any]:
    """64 honest verdicts at once, alone and beside eight that never end: all correct, and how long they take."""

    async def play(ends_never: int) -> tuple[int, float]:
        endless = [f"\\prod_{{i=1}}^{{10^7}} i^{{{n}}}" for n in range(2, 2 + ends_never)]
        others = [asyncio.create_task(averify_math("5", answer)) for answer in endless]
        start = time.perf_counter()
        verdicts = await asyncio.gather(*(averify_math(*HONEST[i % len(HONEST)]) for i in range(64)))
        seconds = time.perf_counter() - start
        await asyncio.gather(*others)
        return sum(map(bool, verdicts)), seconds

    alone, beside = asyncio.run(play(0)), asyncio.run(play(8))
    return {"alone": {"correct": alone[0], "seconds": alone[1]}, "beside": {"correct": beside[0], "seconds": beside[1]}}


def simple(count: int = 20_000) -> dict[str, float]:
    """Verdicts per CPU-second on plain answers through `averify_math`, each answer another text."""
    kinds = {"boxed": "so it is \\boxed{%d}.", "hashes": "2+2 is it\n#### %d", "fraction": "\\boxed{\\frac{%d}{7}}"}

    async def play(form: str) -> None:
        for i in range(count):
            await averify_math(1234, form % i, extract="strict")

    found = {}
    for kind, form in kinds.items():
        start = time.process_time()
        asyncio.run(play(form))
        found[kind] = count / (time.process_time() - start)
    return found


def memory() -> dict[str, float]:
    """MiB that this process and the largest worker hold."""
    held = [_rss(pid) for pid in shared_pool().pids]
    return {"host": _rss(os.getpid()), "largest_worker": max(held, default=0.0), "workers": float(len(held))}


def _rss(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AGENTGYM_DATA", "../shared/data")))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    verify_math(*HONEST[0])
    found: dict[str, Any] = {"first_verdict_seconds": time.perf_counter() - start, "simple_per_cpu_second": simple()}
    found["hostile"], found["neighbours"] = hostile(), neighbours()
    folder = options.data / "open"
    for name in ("math_verifier_cases.jsonl", *(f"labelled_{each}.jsonl.gz" for each in LABELLED)):
        found[name] = agreement(folder / name) if (folder / name).exists() else "not there"
    cases = folder / "latex_parse_cases.jsonl"
    found[cases.name] = robustness(cases) if cases.exists() else "not there"
    found["memory_at_the_end"] = memory()
    text = json.dumps(found, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)


LABELLED = ("gsm8k_model_solutions", "math_qwen_cot_samples")

if __name__ == "__main__":
    main()
