"""Generated work on files for `ShellTask-v0`: a folder tree, what is asked of it, and what has to come out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from agentgym.envs.tasks import Drawn, TaskSet, generated_tasks

KINDS = ("word", "dates", "sum", "rename", "move", "delete", "list")
TOPS = ("archive", "backup", "data", "docs", "inbox", "notes", "office", "project", "records", "shop", "site", "store")
FOLDERS = ("april", "east", "june", "lab", "march", "may", "north", "old", "public", "south", "team", "west")
NAMES = (
    *("alpha", "bravo", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "jade", "karst", "lotus"),
    *("maple", "nova", "onyx", "pine", "quartz", "reef", "sage", "tundra", "umber", "vale", "willow", "zephyr"),
)
WORDS = ("error", "apple", "winter", "payment", "river", "signal", "garden", "ticket", "castle", "engine")
FILLER = ("the", "report", "came", "late", "again", "with", "two", "pages", "from", "our", "desk", "and", "was", "read")
SUFFIXES = ("log", "txt", "md", "csv")
YEARS = range(2015, 2024)
SIZES = {"train": 420, "test": 140}
HOLDOUT = 0.25
FILES = 20


@dataclass(frozen=True, slots=True)
class Chore:
    """What one task asks. `suffix` names the files, `word` what they hold; `year` and `limit` (bytes) where a kind
    has them."""

    kind: str
    top: str
    suffix: str
    word: str
    year: int
    limit: int


@dataclass(frozen=True, slots=True)
class Job:
    """An episode's files and what is to come out.

    answer: what the agent has to say. expected: every file below `top` as it must be at the end; None: the files are
    not looked at. truth: a command whose output is the answer, run on an untouched copy (for rows that know theirs
    by a command only).
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    setup: str = ""
    answer: str = ""
    top: str = ""
    expected: Mapping[str, bytes] | None = None
    truth: str = ""


def draw(chore: Chore, rng: np.random.Generator) -> Job:
    """A tree of `FILES` files, some of which the chore is about, and the outcome."""
    random_ = random.Random(int(rng.integers(1 << 62)))
    folders = [chore.top, *(f"{chore.top}/{name}" for name in random_.sample(FOLDERS, 3))]
    folders.append(f"{folders[-1]}/{random_.choice(NAMES)}")
    files: dict[str, bytes] = {}
    years: dict[str, int] = {}
    for i, name in enumerate(random_.sample(NAMES, FILES)):
        # the first ten are of the asked suffix; of these the first two are surely meant, and the third surely not
        suffix = chore.suffix if i < 10 else random_.choice([s for s in SUFFIXES if s != chore.suffix])
        meant = (True, True, False)[i] if i < 3 else random_.random() < 0.5
        path = f"{random_.choice(folders)}/{name}.{suffix}"
        files[path] = (_table if suffix == "csv" else _prose)(chore, meant, random_).encode()
        years[path] = random_.randrange(2010, chore.year) if meant else random_.randrange(chore.year, 2026)
    chosen = {path: data for path, data in files.items() if _MEANT[chore.kind](chore, path, data, years[path])}
    setup = "\n".join(f"touch -d {year}-06-15 {path}" for path, year in years.items()) if chore.kind == "dates" else ""
    if chore.kind == "sum":
        return Job(files, answer=str(_total(chore, chosen)))
    answer = f"{len(chosen)} {sum(map(len, chosen.values()))}"
    if chore.kind not in _CHANGES:
        return Job(files, setup, answer)
    return Job(files, setup, answer, chore.top, _CHANGES[chore.kind](chore, files, chosen))


def _prose(chore: Chore, meant: bool, random_: random.Random) -> str:
    """Lines of words. A longer form of the word is no match, and which is meant is also the longer text."""
    words = random_.choices(FILLER, k=random_.randrange(20, 40) + (60 if meant else 0))
    words += [f"{chore.word}s"] * random_.randrange(3) + [chore.word] * (random_.randrange(1, 4) if meant else 0)
    random_.shuffle(words)
    return "".join(" ".join(words[i : i + 8]) + "\n" for i in range(0, len(words), 8))


def _table(chore: Chore, meant: bool, random_: random.Random) -> str:
    names = [random_.choice(NAMES) for _ in range(random_.randrange(3, 8) + (12 if meant else 0))]
    names += [f"{chore.word}s"] * random_.randrange(2) + [chore.word] * (random_.randrange(2, 4) if meant else 0)
    random_.shuffle(names)
    return "".join(f"{name},{random_.randrange(10, 1000)}\n" for name in names)


def _holds(chore: Chore, data: bytes) -> bool:
    return chore.word in data.decode().replace(",", " ").split()


def _of_suffix(chore: Chore, path: str) -> bool:
    return path.endswith(f".{chore.suffix}")


def _with_word(chore: Chore, path: str, data: bytes, year: int) -> bool:
    return _of_suffix(chore, path) and _holds(chore, data)


_MEANT: dict[str, Callable[[Chore, str, bytes, int], bool]] = {
    "word": _with_word,
    "dates": lambda chore, path, data, year: _of_suffix(chore, path) and year < chore.year,
    "sum": lambda chore, path, data, year: path.endswith(".csv"),
    "rename": lambda chore, path, data, year: _of_suffix(chore, path),
    "move": _with_word,
    "delete": lambda chore, path, data, year: _of_suffix(chore, path) and len(data) > chore.limit,
    "list": _with_word,
}


def _total(chore: Chore, files: Mapping[str, bytes]) -> int:
    rows = (line.split(",") for data in files.values() for line in data.decode().splitlines())
    return sum(int(amount) for name, amount in rows if name == chore.word)


def _renamed(chore: Chore, files: Mapping[str, bytes], chosen: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{path.rpartition('.')[0]}.{chore.year}" if path in chosen else path: data for path, data in files.items()}


def _moved(chore: Chore, files: Mapping[str, bytes], chosen: Mapping[str, bytes]) -> dict[str, bytes]:
    into = f"{chore.top}/{chore.word}"
    return {f"{into}/{path.rpartition('/')[2]}" if path in chosen else path: data for path, data in files.items()}


def _deleted(chore: Chore, files: Mapping[str, bytes], chosen: Mapping[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path not in chosen}


def _listed(chore: Chore, files: Mapping[str, bytes], chosen: Mapping[str, bytes]) -> dict[str, bytes]:
    return {**files, f"{chore.top}/found.list": "".join(f"{path}\n" for path in sorted(chosen)).encode()}


_CHANGES: dict[str, Callable[[Chore, Mapping[str, bytes], Mapping[str, bytes]], dict[str, bytes]]] = {
    "rename": _renamed,
    "move": _moved,
    "delete": _deleted,
    "list": _listed,
}
STATE_KINDS = tuple(_CHANGES)


def prompt(chore: Chore) -> str:
    """What the agent is asked."""
    top, suffix, word = chore.top, chore.suffix, chore.word
    files = f"every .{suffix} file under {top}"
    report = "Then say how many files that were and how many bytes they have together."
    return {
        "word": f"How many .{suffix} files under {top} hold the word {word}, and how many bytes have they together?",
        "dates": f"How many .{suffix} files under {top} were last changed before {chore.year}, and how many bytes have "
        "they together?",
        "sum": f"The lines of the .csv files under {top} read name,amount. What do the amounts of {word} add up to?",
        "rename": f"Rename {files}, each where it lies, so that it ends in .{chore.year} instead. {report}",
        "move": f"Move {files} that holds the word {word} into a new folder {top}/{word}. {report}",
        "delete": f"Delete {files} that is larger than {chore.limit} bytes. {report}",
        "list": f"Write the paths of all .{suffix} files under {top} that hold the word {word}, each from {top}/ on, "
        f"into {top}/found.list, one a line and sorted. {report}",
    }[chore.kind]


def gold_command(chore: Chore) -> str:
    """A command that does the chore and prints the answer."""
    if chore.kind == "sum":
        rows = f"find {chore.top} -type f -name '*.csv' -exec cat {{}} +"
        return f"{rows} | awk -F, '$1 == \"{chore.word}\" {{ s += $2 }} END {{ print s + 0 }}'"
    test = {"dates": f"! -newermt {chore.year}-01-01", "delete": f"-size +{chore.limit}c"}.get(chore.kind, "")
    if chore.kind in ("word", "move", "list"):
        test = f"-exec grep -lw {chore.word} {{}} +"
    found = (
        f"f=$(find {chore.top} -type f -name '*.{chore.suffix}' {test}); echo $(echo \"$f\" | wc -l) $(cat $f | wc -c)"
    )
    change = {
        "rename": f'for p in $f; do mv "$p" "${{p%.*}}.{chore.year}"; done',
        "move": f"mkdir {chore.top}/{chore.word}; mv $f {chore.top}/{chore.word}",
        "delete": "rm $f",
        "list": f'echo "$f" | LC_ALL=C sort > {chore.top}/found.list',
    }.get(chore.kind)
    return f"{found}; {change}" if change else found


@lru_cache(maxsize=len(SIZES))
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 7, no question twice, each split by the question's hash."""
    return generated_tasks(split, SIZES[split], HOLDOUT, {kind: _chores(kind) for kind in KINDS})


def _chores(kind: str) -> Iterator[Drawn]:
    rng = random.Random(f"ShellTask-v0 {kind}")
    while True:
        suffix = "csv" if kind == "sum" else rng.choice(SUFFIXES[:3])
        chore = Chore(kind, rng.choice(TOPS), suffix, rng.choice(WORDS), rng.choice(YEARS), rng.randrange(260, 360))
        yield prompt(chore), {"chore": chore}
