"""Rows of data files for `ShellTask-v0`: our own, AgentBench's (`os_interaction`) and InterCode's (NL2Bash).

A row that needs what a sandbox has not is told by its `needs`, a reason in words; it is refused or left out, never
played with a truth that would be an accident.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from agentgym.envs.data_files import rows_of
from agentgym.envs.shell_chores import Job
from agentgym.errors import DataError
from agentgym.types import Task

CHECKS = ("integer-match.py", "string-match.py")
"""AgentBench's scripts that compare an answer with the output of the row's own command: as integers, as text."""
ROOT = re.compile(r"\b(useradd|usermod|groupadd|chpasswd|passwd|sudo|su|chown|apt|apt-get|service|systemctl|mount)\s")
ELSEWHERE = re.compile(r"(?<![\w.~$}/-])/(?!dev/|tmp\b|bin/|usr/bin/|proc/)[A-Za-z][\w.-]*")
PROCESSES = re.compile(r"(?<!&)&(?![&>\d])|\b(ps|pgrep|top|pidof|jobs|nproc|free|uptime|df|who|w)\b")
CHANCE = re.compile(r"\$RANDOM|/dev/u?random|\bshuf\b|\bdate\b")


def rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row) of a JSONL file or of a .json file with one list; raises `DataError`."""
    if not path.endswith(".json"):
        yield from rows_of(path)
        return
    try:
        with open(path, "rb") as file:
            listed = json.load(file)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise DataError(f"{path}: not valid JSON: {e}") from None
    listed = [listed] if isinstance(listed, dict) else listed
    if not isinstance(listed, list):
        raise DataError(f"{path}: expected a list of objects")
    for number, row in enumerate(listed, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object, got {type(row).__name__}")
        yield f"{path}, row {number}", row


def read_row(row: Mapping[str, Any], default_id: str) -> Task:
    """A row as a task: metadata `job`, `needs` (empty: nothing more), `gold` (a command), `compare`.

    Raises `ValueError` for a row of no known form.
    """
    if "query" in row and "gold" in row:
        return _nl2bash(row, default_id)
    if "description" in row and "evaluation" in row:
        return _agentbench(row, default_id)
    if "question" in row:
        return _own(row, default_id)
    raise ValueError(
        "expected 'question' (with 'answer' or 'expect'), 'description' and 'evaluation' (AgentBench), or 'query' and "
        "'gold' (InterCode)"
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name!r}: expected text")
    return value


def _files(row: Mapping[str, Any], name: str) -> dict[str, bytes]:
    value = row.get(name) or {}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{name!r}: expected an object of texts by path")
    return {str(path).removeprefix("./"): text.encode() for path, text in value.items()}


def _own(row: Mapping[str, Any], default_id: str) -> Task:
    question, top = _text(row, "question"), str(row.get("top", ""))
    answer = str(row["answer"]) if row.get("answer") is not None else ""
    expected = _files(row, "expect") if "expect" in row else None
    if not answer.strip() and expected is None:
        raise ValueError("no 'answer', and no 'expect' to compare the files with")
    if expected is not None and not top:
        raise ValueError("'expect' wants 'top', the folder whose files it lists")
    if strange := [path for path in expected or {} if not path.startswith(f"{top}/")]:
        raise ValueError(f"'expect': {strange[0]!r} is not under {top!r}")
    job = Job(_files(row, "files"), str(row.get("setup", "")), answer, top, expected)
    gold = str(row.get("gold", ""))
    metadata = {"job": job, "needs": "", "gold": gold, "compare": "text"}
    return Task(str(row.get("id", default_id)), question, answer or None, str(row.get("kind", "")), metadata)


def _nl2bash(row: Mapping[str, Any], default_id: str) -> Task:
    gold = _text(row, "gold")
    needs = (
        "the file system that its command is about, which the row does not hold: give an image of it "
        "(sandbox.image, with sandbox.backend=docker), or a command that builds it (env.args.sandbox.setup)"
    )
    metadata = {"job": Job(truth=gold), "needs": needs, "gold": gold, "compare": "text"}
    question = f"{_text(row, 'query')}\nAnswer with what your command printed."
    return Task(default_id, question, None, "nl2bash", metadata)


def _agentbench(row: Mapping[str, Any], default_id: str) -> Task:
    question, evaluation = _text(row, "description"), row["evaluation"]
    if not isinstance(evaluation, Mapping):
        raise ValueError("'evaluation': expected an object")
    create = row.get("create") if isinstance(row.get("create"), Mapping) else {}
    init, start = _code((create or {}).get("init")), _code(row.get("start"))
    gold = _code(evaluation.get("example")) or _code(row.get("example"))
    match = evaluation.get("match")
    compare = _check_name(evaluation.get("check"))
    needs = ""
    if isinstance(match, Mapping):
        match = match.get("answer")
    if match is not None and not str(match).strip():
        raise ValueError("'evaluation': its 'match' is empty")
    if match is None and compare not in CHECKS:
        needs = f"the script {compare or 'of its check'}, which the row does not hold"
    elif match is None and not gold:
        needs = "the answer: it has no command in the row that finds it"
    needs = needs or _beyond(init, start, gold)
    job = Job(
        setup=f"bash -c {shlex.quote(init)}" if init else "",
        answer="" if match is None else str(match),
        truth=f"bash -c {shlex.quote(gold)}" if match is None and gold else "",
    )
    kind = (row.get("labels") or ["agentbench"])[0]
    metadata = {
        "job": job,
        "needs": needs,
        "gold": f"bash -c {shlex.quote(gold)}" if gold else "",
        "compare": "integer" if match is None and compare == CHECKS[0] else "text",
    }
    prompt = f"{question.strip()}\nYour last message is the answer alone."
    return Task(str(row.get("id", default_id)), prompt, job.answer or None, str(kind), metadata)


def _code(given: Any) -> str:
    """A script in a row: text, or an object with its `code`; one that names a file comes as `file:NAME`."""
    if isinstance(given, Mapping):
        return str(given["code"]) if "code" in given else f"file:{given.get('file', '?')}"
    return given if isinstance(given, str) else ""


def _check_name(check: Any) -> str:
    """The script that compares: the last of a list's, whose first entry is the answer itself."""
    last = check[-1] if isinstance(check, list) and check else check
    name = str(last.get("file", "")) if isinstance(last, Mapping) else ""
    return name.rpartition("/")[2] if isinstance(check, list) and len(check) == 2 and check[0] is None else name


def _beyond(init: str, start: str, gold: str) -> str:
    """What a row's scripts ask for that a sandbox without root and network has not; empty: nothing."""
    for script in (init, start, gold):
        if script.startswith("file:"):
            return f"the script {script.removeprefix('file:')}, which the row does not hold"
    both = f"{init}\n{start}\n{gold}"
    if start or (found := PROCESSES.search(_bare(both))):
        return f"processes of its machine ({start.split(chr(10))[0][:40] if start else found[0]!r})"  # type: ignore[index]
    if found := ROOT.search(_bare(both)):
        return f"root ({found[1]!r})"
    if found := ELSEWHERE.search(_bare(both)):
        return f"a file system of its own ({found[0]!r}; only the home and working folder and /tmp are there)"
    if found := CHANCE.search(_bare(gold)):
        return f"luck: its own answer is not the same twice ({found[0]!r})"
    return ""


def _bare(script: str) -> str:
    """A script without comments, and without what it redirects errors to."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\d?>&\d?|&>\S*|2>\s*/dev/null", " ", "\n".join(lines))
