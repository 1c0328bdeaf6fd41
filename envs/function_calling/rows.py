"""BFCL's files as tasks: rows, their answers (`answers_X` beside `X`, or `possible_answer/X`), and the APIs' docs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentgym.envs.data_files import find_files, rows_of
from agentgym.envs.function_calling.apis import api_class
from agentgym.envs.function_calling.apis.base import Api
from agentgym.envs.function_calling.conversation import Scenario
from agentgym.envs.function_calling.docs import Function, read_functions
from agentgym.envs.function_calling.matching import check_answer
from agentgym.envs.function_calling.one_shot import ANY_CALL
from agentgym.envs.function_calling.world import read_call
from agentgym.errors import DataError
from agentgym.json_files import file_version
from agentgym.types import Message, Task


def load_rows(data: str, answers: str = "", docs: str = "") -> tuple[Task, ...]:
    """The tasks of a BFCL file; raises `DataError` naming file and row.

    answers: the file of the answers, where the rows have no `ground_truth` of their own and it does not lie beside
    them. docs: the folder of the function docs of multi-turn rows, by default that of the file.
    """
    found = find_files(data)
    paths = (*found.train, *found.test)
    files = [path for path in (*paths, *([answers] if answers else [])) if Path(path).exists()]
    version = tuple([file_version(path, "the rows", "a file of JSON lines") for path in files])
    return _load(paths, answers, docs, version)


@lru_cache(maxsize=8)
def _load(paths: tuple[str, ...], answers: str, docs: str, version: Any) -> tuple[Task, ...]:
    tasks: list[Task] = []
    seen: dict[str, str] = {}
    for path in paths:
        found = answers or _beside(path)
        known = _answers(found) if found else {}
        for where, row in rows_of(path):
            try:
                task = _task(row, known, found, docs or str(Path(path).parent))
            except ValueError as e:
                raise DataError(f"{where}: {e}") from None
            if task.id in seen:
                raise DataError(f"{where}: the id {task.id!r} is that of {seen[task.id]} too; ids must differ")
            seen[task.id] = where
            tasks.append(task)
    if not tasks:
        raise DataError(f"{paths[0]}: no rows in it")
    return tuple(tasks)


def _beside(path: str) -> str:
    rows = Path(path)
    for place in (rows.with_name(f"answers_{rows.name}"), rows.parent / "possible_answer" / rows.name):
        if place.exists():
            return str(place)
    return ""


def _answers(path: str) -> Mapping[str, Any]:
    answers: dict[str, Any] = {}
    for where, row in rows_of(path):
        if not isinstance(row.get("id"), str) or "ground_truth" not in row:
            raise DataError(f"{where}: expected an object with 'id' and 'ground_truth'")
        if row["id"] in answers:
            raise DataError(f"{where}: there is an answer to {row['id']!r} before it")
        answers[row["id"]] = row["ground_truth"]
    return answers


def _task(row: Mapping[str, Any], answers: Mapping[str, Any], source: str, docs: str) -> Task:
    name = row.get("id")
    if not isinstance(name, str) or not name:
        raise ValueError(f"'id': expected text, got {name!r}")
    kind = re.sub(r"_\d+(-\d+)*$", "", name)
    turns = _turns(row.get("question"))
    answer = row.get("ground_truth", answers.get(name))
    if answer is None and "relevance" in kind:
        answer = [] if "irrelevance" in kind else ANY_CALL
    if answer is None:
        place = f"in {source}" if source else "and no file answers_... beside it; give answers="
        raise ValueError(
            f"no answer to {name!r}: no 'ground_truth' in the row, none {place}".replace("none and", "and")
        )
    if "initial_config" in row or "involved_classes" in row:
        return _conversation(row, name, kind, turns, answer, docs)
    if len(turns) != 1 or not turns[0]:
        raise ValueError(f"'question': expected one turn, got {len(turns)}: rows of several need 'involved_classes'")
    functions = read_functions(row.get("function"), _language(kind))
    if answer != ANY_CALL:
        answer = check_answer(answer, functions)
    return Task(name, turns[0], answer, kind, {"form": "one_shot", "functions": functions})


def _language(kind: str) -> str:
    return "javascript" if "javascript" in kind else "java" if "java" in kind else "python"


def _turns(question: Any) -> tuple[tuple[Message, ...], ...]:
    if not isinstance(question, list) or not question or not all(isinstance(turn, list) for turn in question):
        raise ValueError("'question': expected a list of turns, each a list of messages")
    turns = []
    for i, turn in enumerate(question):
        messages = []
        for message in turn:
            if not isinstance(message, Mapping):
                raise ValueError(f"'question'[{i}]: expected messages")
            messages.append(Message.from_openai(message))
        turns.append(tuple(messages))
    return tuple(turns)


def _conversation(
    row: Mapping[str, Any], name: str, kind: str, turns: tuple[tuple[Message, ...], ...], answer: Any, docs: str
) -> Task:
    apis, config = row.get("involved_classes"), row.get("initial_config") or {}
    if not isinstance(apis, list) or not apis or not isinstance(config, Mapping):
        raise ValueError("expected 'involved_classes', a list of APIs, and 'initial_config', their state by name")
    functions: dict[str, Function] = {}
    for api in apis:
        documented = _documented(api_class(api).docs, docs)
        for function in documented:
            if hasattr(Api, function) or not callable(getattr(api_class(api), function, None)):
                raise ValueError(f"the function {function!r} of {api} is documented, but not written here")
        functions |= documented
    excluded = set(row.get("excluded_function") or ())
    functions = {key: one for key, one in functions.items() if key not in excluded}
    held = {int(turn): tuple(names) for turn, names in (row.get("missed_function") or {}).items()}
    for names in held.values():
        if unknown := [one for one in names if one not in functions]:
            raise ValueError(f"'missed_function': there is no function {unknown[0]!r}")
    if not isinstance(answer, list) or len(answer) != len(turns):
        raise ValueError(f"answer: expected the calls of each of the {len(turns)} turns")
    right = tuple(tuple(read_call(text, functions) for text in calls) for calls in answer)
    scenario = Scenario(tuple(apis), config, functions, turns, held)
    scenario.world()  # a configuration that an API cannot start from is told now
    for i, turn in enumerate(turns):
        if not turn and i not in held:
            raise ValueError(f"'question'[{i}]: the user says nothing")
    return Task(name, scenario.opening(0), right, kind, {"form": "conversation", "scenario": scenario})


def _documented(stem: str, folder: str) -> Mapping[str, Function]:
    for place in (
        Path(folder) / f"func_doc_{stem}.jsonl",
        Path(folder) / "multi_turn_func_doc" / f"{stem}.json",
        Path(folder) / f"{stem}.json",
    ):
        if place.exists():
            return _read_docs(str(place), place.stat().st_mtime_ns)
    raise ValueError(f"there are no docs of its functions: no func_doc_{stem}.jsonl in {folder}; give docs= the folder")


@lru_cache(maxsize=32)
def _read_docs(path: str, version: int) -> Mapping[str, Function]:
    return {one.own_name: one for one in _functions(path)}


def _functions(path: str) -> Iterator[Function]:
    for where, doc in rows_of(path):
        try:
            yield from read_functions([doc])
        except ValueError as e:
            raise DataError(f"{where}: {e}") from None
