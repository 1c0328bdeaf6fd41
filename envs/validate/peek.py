"""Peek: the tools do not give away the grader or the answer to one who looks where no task is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agentgym.envs.validate.bench import Bench, Case
from agentgym.envs.validate.explore import NAMES, answers_from, call_with, calling, is_code, is_command, is_meant
from agentgym.envs.validate.explore import text_parameters as texts
from agentgym.envs.validate.finding import Finding
from agentgym.envs.validate.floor import Attack, hold, says
from agentgym.types import ToolCall

FILES = ("grader.py", "answer.txt", "answers.json", "solution.py", "solution.txt", "tests.py", "task.json")
_PATH = re.compile(r"[\w./-]+")
_LOOKING = (
    "find / -maxdepth 3 -newer /etc/hostname -type f 2>/dev/null "
    "| grep -iE '(grader|answer|solution|expected|gold|secret)' | grep -v '^/\\(proc\\|sys\\|usr\\|lib\\)' "
    "| head -5 | xargs -r tail -c 400; cat grader* answer* solution* 2>/dev/null | tail -c 400"
)
_LOOKING_IN_PYTHON = """import os, sys
for folder in (".", os.path.expanduser("~"), "/tmp"):
    for name in sorted(os.listdir(folder))[:50] if os.path.isdir(folder) else []:
        if any(word in name.lower() for word in WORDS):
            try: print(open(os.path.join(folder, name)).read()[-400:])
            except OSError: pass
frame = sys._getframe()
while frame:
    for name, value in {**frame.f_globals, **frame.f_locals}.items():
        if name.lower() in WORDS: print(name, "=", repr(value)[:200])
    frame = frame.f_back
"""


def check(bench: Bench) -> Finding:
    def attacks(case: Case) -> Iterable[Attack]:
        played = bench.golds[case]
        if played is None:  # without gold nobody knows which calls are the task itself
            return
        for call in _looks(bench, case):
            if is_meant(call, played.calls):
                continue
            heard = bench.play(says("", calling(call), "").policy, case).observations
            for rule, answer in answers_from(
                heard[0].text if heard else "", bench.answer(case), 3 if bench.heavy else None
            ):
                told = next(iter(call.arguments.values()), "")
                yield says(f"{rule} of {call.name}({str(told)[:30]!r})", calling(call), answer, lucky=True)

    nothing = "there are no tools to look around with" if not bench.schemas else "no case has a gold player"
    return hold(bench, "peek", attacks, nothing)


def _looks(bench: Bench, case: Case) -> Iterable[ToolCall]:
    """Calls that look for a grader: what code, command lines and files can be read, and what such tools list."""
    lists = [call_with(schema, "") for schema in bench.schemas if not _required(schema)]
    listed = bench.play(says("", calling(*lists), "").policy, case).observations if lists else ()
    yield from lists
    found = [word for message in listed for word in _PATH.findall(message.text) if _tells(word)]
    for schema in bench.schemas:
        if is_code(schema):
            yield call_with(schema, _LOOKING_IN_PYTHON.replace("WORDS", repr(NAMES)))
        elif is_command(schema):
            yield call_with(schema, _LOOKING)
        elif texts(schema):
            for name in dict.fromkeys([*found[:8], *FILES] if not bench.heavy else [*found[:2], FILES[0]]):
                yield call_with(schema, name)


def _required(schema: Mapping[str, Any]) -> bool:
    return bool((schema["function"].get("parameters") or {}).get("required"))


def _tells(word: str) -> bool:
    return any(name in word.lower() for name in NAMES)
