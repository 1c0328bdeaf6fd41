"""Writes BENCHMARKS.md from the JSON files in benchmarks/results: every comparison, what was lost included.

    python benchmarks/book.py [--results DIR] [--out BENCHMARKS.md]

It measures nothing. A section whose file is not there says so; machine and versions stand beside each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Report: TypeAlias = Mapping[str, Any]
Row: TypeAlias = tuple[str, ...]
"""The cells of one line of a table."""

HEAD = """# Benchmarks

Written by `python benchmarks/book.py` from the files in [benchmarks/results](benchmarks/results); `make bench` measures
the comparisons anew and writes it. Side-by-side figures come from alternating runs on one machine: a ratio is the
median of the pairs' ratios, with the lowest and highest behind it. Above 1 is in our favour, **below 1 is lost**. These
are small machines: read ratios, not absolute figures.
"""


@dataclass(frozen=True, slots=True)
class Section:
    """What one file of results says. `rows` makes the table's lines of it, below `columns`."""

    file: str
    title: str
    command: str
    columns: Row
    rows: Callable[[Report], Iterable[Row]]
    note: str = ""


def number(value: float) -> str:
    """Three digits that mean something, thousands with commas."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def between(figures: Mapping[str, float]) -> str:
    """Median (lowest to highest)."""
    return f"{number(figures['median'])} ({number(figures['low'])} to {number(figures['high'])})"


def ratio(figures: Mapping[str, float]) -> str:
    told = between(figures)
    return f"**{told}, lost**" if figures["median"] < 1 else told


def vs_trl(d: Report) -> Iterable[Row]:
    spread = d["spread"]
    yield "trajectories per CPU-second", between(spread["ours"]), between(spread["trl"]), ratio(spread["ratio"])


def vs_gyms(d: Report) -> Iterable[Row]:
    ours = between(d["steps_per_cpu_s"]["ours"])
    for peer, spread in d["ratio_spread"].items():
        yield f"steps per CPU-second, {peer}", ours, between(d["steps_per_cpu_s"][peer]), ratio(spread)


def vs_sandboxes(d: Report) -> Iterable[Row]:
    for what, part in (("a call", d), ("a new session", d["sessions"])):
        ours = between(part["per_s"]["ours"])
        for peer, spread in part["spread"].items():
            theirs = between(part["per_s"][peer])
            yield f"{what}, a second by the clock, {peer}", ours, theirs, ratio(spread["wall"])
            ours_ms, theirs_ms = (between(part["cpu_ms"][name]) for name in ("ours", peer))
            yield f"{what}, CPU-milliseconds, {peer}", ours_ms, theirs_ms, ratio(spread["cpu"])


def async_overlap(d: Report) -> Iterable[Row]:
    for bound, efficiency in d["efficiency"].items():
        masked, longest = d["masked"][bound], d["longest_decile_trained"][bound]
        yield bound, f"{efficiency:.2f}", f"{masked:.1%}", f"{longest:.0%}"


def learned(d: Report) -> Iterable[Row]:
    for name in ("sampled", "greedy"):
        yield name, between(d["before"][name]), between(d["after"][name]), number(d["cpu_s"]["median"])


def controls(d: Report) -> Iterable[Row]:
    for name, rate in d["after"].items():
        yield name.replace("_", " "), number(rate)


def math_verifier(d: Report) -> Iterable[Row]:
    for kind, rate in d["simple_per_cpu_second"].items():
        yield f"{kind}: verdicts per CPU-second", number(rate)
    yield "slowest verdict on a hostile answer, seconds", number(d["hostile"]["worst_seconds"])


def sandbox_bench(d: Report) -> Iterable[Row]:
    yield "CPU-milliseconds a session", number(d["session"]["cpu_ms"])
    yield "sessions a second", number(d["session"]["per_s"])
    yield "CPU-milliseconds a warm call", number(d["exec"]["cpu_ms"])
    for kind, times in d["end"].items():
        yield f"killed to reaped, {kind}, p50 ms", number(times["p50"])


def brevity(d: Report) -> Iterable[Row]:
    for seed, found in d["seeds"].items():
        ends = (found["paid"]["before"], found["paid"]["after"], found["unpaid"]["after"])
        told = (f"{end['tokens_per_success']:.0f} ({end['sampled']:.3f})" for end in ends)
        yield seed, *told, f"{found['ratio']:.2f}"


def async_vs_sync(d: Report) -> Iterable[Row]:
    ours, theirs = d["asynchronous"], d["synchronous"]
    for name, key in (("wall", "wall_s"), ("CPU", "cpu_s")):
        yield (
            f"{name} seconds of the RL phase",
            between(ours[key]),
            between(theirs[key]),
            ratio(d[f"{name.lower()}_ratio"]),
        )
    yield "sampled success after it", between(ours["after"]), between(theirs["after"]), ""


SIDES = ("what", "agentgym", "the other", "ratio")
RATES = ("success", "before", "after", "CPU-seconds")
PLAIN = ("what", "figure")
SECTIONS = (
    Section("vs_trl", "A GRPO step against TRL", "python benchmarks/vs_trl.py", SIDES, vs_trl),
    Section("vs_gyms", "A tool episode against other gyms", "python benchmarks/vs_gyms.py", SIDES, vs_gyms),
    Section("vs_sandboxes", "Python in a sandbox", "python benchmarks/vs_sandboxes.py", SIDES, vs_sandboxes),
    Section(
        "async_overlap",
        "Overlap of play and learning",
        "python benchmarks/async_overlap.py",
        ("max_staleness", "efficiency", "masked tokens", "longest tenth trained"),
        async_overlap,
        "The trainer's own loop on a clock of its own; 1 would be the slower side working all the time.",
    ),
    Section(
        "async_vs_sync",
        "Play while the learner learns, against turn by turn",
        "python benchmarks/async_vs_sync.py",
        ("what", "asynchronous", "synchronous", "ratio"),
        async_vs_sync,
        "From one warm start, equally many trajectories on both sides.",
    ),
    Section(
        "brevity",
        "Being paid for brevity",
        "python benchmarks/brevity.py",
        ("seed", "tokens a success (success) before", "paid", "unpaid", "unpaid / paid"),
        brevity,
        "From one warm start of chatty play; the two runs differ in the weight of the grader `efficiency` alone.",
    ),
    Section(
        "controls",
        "Controls on Store-v0",
        "make controls",
        ("after the same CPU-seconds", "sampled success"),
        controls,
        "Shuffled rewards must not learn; rejection sampling is what RL has to beat, and does not beat here.",
    ),
    Section("seeds", "Store-v0 learns", "make study-seeds", RATES, learned),
    *(
        Section(name, f"{title} learns", f"python benchmarks/seeds.py --recipe {recipe} --seeds 0,1", RATES, learned)
        for name, title, recipe in (
            ("python_math", "PythonMath-v0", "python-math"),
            ("search_qa", "SearchQA-v0", "search-qa"),
            ("shipping", "Shipping-v0", "shipping"),
            ("function_calling", "FunctionCalling-v0", "function-calling"),
            ("treasure", "Treasure-v0", "treasure"),
        )
    ),
    Section("math_verifier", "The math verifier", "python benchmarks/math_verifier.py", PLAIN, math_verifier),
    Section("sandbox_bench", "The local sandbox", "agentgym sandbox bench --sessions 400", PLAIN, sandbox_bench),
)


def page(section: Section, results: Path) -> str:
    """One section in Markdown."""
    path = results / f"{section.file}.json"
    title = f"## {section.title}\n"
    if not path.is_file():
        told = section.command if section.command.startswith("make") else f"{section.command} --json {path.name}"
        return f"{title}\nNot measured: `{told}` writes it.\n"
    report: Report = json.loads(path.read_text())
    lines = [title, f"`{section.command}`, [{path.name}]({path.as_posix()}).{_where(report)}", ""]
    lines += [section.note, ""] if section.note else []
    lines += [_line(section.columns), _line(("---",) * len(section.columns))]
    lines += [_line(row) for row in section.rows(report)]
    return "\n".join(lines) + "\n"


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"


def _where(report: Report) -> str:
    machine = report.get("machine")
    told = []
    if machine:
        told.append(f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB")
        told.append(f"Python {machine['python']}")
    packages = {**report.get("versions", {})}
    packages |= {name: text.partition("==")[2] for name, text in report.get("packages", {}).items() if "==" in text}
    told += [f"{name} {text}" for name, text in packages.items()]
    return f" {', '.join(told)}." if told else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"))
    args = parser.parse_args()
    args.out.write_text("\n".join([HEAD, *(page(section, args.results) for section in SECTIONS)]))


if __name__ == "__main__":
    main()
