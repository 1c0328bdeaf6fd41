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


def learner(d: Report) -> Iterable[Row]:
    sides = d["tokens_per_cpu_s"]
    yield "tokens per CPU-second", between(sides["agentgym"]), between(sides["trl"]), ratio(d["ratios"])
    yield "real tokens in packed bins", f"{d['packing']:.1%}", "", ""


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
        yield bound, f"{efficiency:.2f}", f"{d['whole'][bound]:.2f}", f"{masked:.1%}", f"{longest:.0%}"


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


def sigkill(d: Report) -> Iterable[Row]:
    for name, told in (("short", "6 steps"), ("full", "the whole recipe")):
        if part := d[name]:
            runs = part["runs"]
            ends = [run["success"]["after"] for run in runs if "error" not in run]
            after = f"{min(ends):.3f} to {max(ends):.3f}; {part['success']['undisturbed']:.3f} without"
            lost = (part["skipped"], part["ended_twice"], part["unreadable"])
            yield f"{len(runs)} x {told}", str(part["kills"]), *map(str, lost), after if name == "full" else ""


def estimate(figure: Mapping[str, Any]) -> str:
    """Mean [95% interval]."""
    mean, interval = figure["mean"], figure["interval"]
    return f"{mean:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def credit_study(d: Report) -> Iterable[Row]:
    for task in d["settings"]["tasks"]:
        for credit, row in d[task].items():
            before = [run[credit]["before"] for run in d["seeds"][task].values()]
            gain = estimate(row["less_grpo"]) if "less_grpo" in row else ""
            yield task, credit, f"{sum(before) / len(before):.3f}", estimate(row["after"]), gain


def staleness(d: Report) -> Iterable[Row]:
    for loss, by_bound in d["losses"].items():
        for bound, row in by_bound.items():
            age = f"{row['staleness_mean']:.2f} ({row['staleness_max']:.0f})"
            yield loss, bound, age, estimate(row["success"]), estimate(row["difference"])


def rolling(d: Report) -> Iterable[Row]:
    for order in ("rolling", "together"):
        row = d[order]
        yield order, *(f"{row[key]:.2f} s" for key in ("update_s", "replica_silence_s", "silence_s", "quiet_s"))


def weight_sync(d: Report) -> Iterable[Row]:
    for way in ("disk", "gloo"):
        row = d[way]
        extra = f"{row['server_extra_buckets_max']:.2f}, {row['learner_extra_buckets_max']:.2f}"
        yield way, f"{row['gb_s']:.2f}", f"{row['pause_s']:.2f} s", f"{row['proof_s']:.2f} s", extra


def acceptance(d: Report) -> Iterable[Row]:
    for seed, found in d["seeds"].items():
        before, after = (found["summary"][when]["sampled"] for when in ("before", "after"))
        evaluated = ", ".join(f"{name} {rate:.3f}" for name, rate in found["success"].items())
        check = "nothing is off" if found["check_run"] == 0 else "something is off"
        wall = f"{found['summary']['wall_s'] / 60:.0f} min"
        yield seed, f"{before:.3f}", f"{after:.3f}", evaluated, str(found["other_verdicts"]), check, wall


def sdk_agents(d: Report) -> Iterable[Row]:
    for program, by_seed in d["runs"].items():
        for seed, run in by_seed.items():
            apart = d["apart"].get(program, {}).get(seed)
            told = "" if apart is None else f"{apart:+.3f}"
            yield program, seed, *(f"{run[when]['sampled']:.3f}" for when in ("before", "after")), told


SIDES = ("what", "agentgym", "the other", "ratio")
RATES = ("success", "before", "after", "CPU-seconds")
PLAIN = ("what", "figure")
SECTIONS = (
    Section("vs_trl", "A GRPO step against TRL", "python benchmarks/vs_trl.py", SIDES, vs_trl),
    Section(
        "learner",
        "The learner alone against TRL's trainer step",
        "python benchmarks/learner.py",
        SIDES,
        learner,
        "The same batch of Store-v0 on the recipe's model, fp32 on one thread; TRL's best settings of those tried.",
    ),
    Section(
        "vs_gyms",
        "A tool episode against other gyms",
        "python benchmarks/vs_gyms.py",
        SIDES,
        vs_gyms,
        "Ours checks arguments and keeps the chat; GEM and skyrl-gym search the text for a tag. `skyrl-gym` is played\n"
        "as SkyRL's generator does by default, by threads; `skyrl-gym-step-alone`, like GEM and verifiers, directly.",
    ),
    Section("vs_sandboxes", "Python in a sandbox", "python benchmarks/vs_sandboxes.py", SIDES, vs_sandboxes),
    Section(
        "async_overlap",
        "Overlap of play and learning",
        "python benchmarks/async_overlap.py",
        ("max_staleness", "efficiency", "of a whole run", "masked tokens", "longest tenth trained"),
        async_overlap,
        "The trainer's own loop on a clock of its own; 1 would be the slower side working all the time. Of 60 steps\n"
        "in a longer run, and of a run of 60 steps with its first batch and its last stragglers.",
    ),
    Section(
        "async_vs_sync",
        "Play while the learner learns, against turn by turn",
        "python benchmarks/async_vs_sync.py --eval.tasks=1000",
        ("what", "asynchronous", "synchronous", "ratio"),
        async_vs_sync,
        "From one warm start, equally many trajectories on both sides.",
    ),
    Section(
        "staleness",
        "Learning from stale tokens",
        'make study-staleness ARGS="--losses grpo"',
        ("loss", "max_staleness", "age of tokens, mean (max)", "sampled success", "difference from the first"),
        staleness,
        "Three seeds, each from one warm start; means with Student's 95% intervals.",
    ),
    Section(
        "credit_study",
        "Credit by turns against one reward an episode",
        "make study-credit",
        ("task", "credit", "before", "sampled success after", "less grpo"),
        credit_study,
        "From one warm start a seed, on equally many trajectories; means over seeds with Student's 95% intervals.",
    ),
    Section(
        "sigkill_study",
        "Runs that are killed, and resumed",
        "make study-sigkill",
        ("runs", "kills", "tasks skipped", "tasks twice", "unreadable files", "success after"),
        sigkill,
        "SIGKILL to the whole process group at random moments, up to six times a run.",
    ),
    Section(
        "weight_sync",
        "New weights for a serving SGLang server",
        "python benchmarks/weight_sync.py",
        ("way", "GB/s", "without a token", "proof", "most extra memory, server and learner, in buckets"),
        weight_sync,
        "2 GB on a CPU, with requests under way.",
    ),
    Section(
        "rolling_updates",
        "Rolling updates of two SGLang servers",
        "python benchmarks/rolling_updates.py",
        ("order", "update", "one server without an answer", "both without an answer", "the same without an update"),
        rolling,
        "Both are asked for one token all the while, on a CPU.",
    ),
    Section(
        "sdk_agents",
        "Programs of other SDKs learn what our own agent learns",
        "python benchmarks/sdk_agents.py",
        ("program", "seed", "before", "after", "apart from our own"),
        sdk_agents,
    ),
    Section(
        "acceptance",
        "The whole mission in one run",
        "make acceptance",
        ("seed", "before", "after", "evaluated", "other verdicts", "check-run", "training"),
        acceptance,
        "PythonMath-v0 on two SGLang servers under Ray, two learner ranks, `gigpo`; a tiny model on a CPU.",
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
