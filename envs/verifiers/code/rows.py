"""Rows of the known code benchmarks -> what `verify_code` takes."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

_CLOSE = """
import math
def same(got, gold, atol):
    if isinstance(gold, float) or isinstance(got, float):
        try:
            return got == gold or math.isclose(got, gold, rel_tol=1e-7, abs_tol=atol or 1e-6)
        except TypeError:
            return False
    if isinstance(gold, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(got) == len(gold) and all(same(a, b, atol) for a, b in zip(got, gold))
    if type(gold).__module__ == "re":  # a match: only whether there is one can be meant
        return bool(got)
    return got == gold
"""


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """One problem: what is asked, and its tests in the shape of `verify_code`."""

    id: str
    prompt: str
    tests: Sequence[Any]
    kind: Literal["function", "stdio", "pytest"] = "function"
    entry_point: str = ""
    solution: str = ""
    """A program that passes, where the row has one."""
    shown: str = field(default="")
    """A test that the agent may see."""


def read_problem(row: Mapping[str, Any], default_id: str) -> CodeProblem:
    """A row of HumanEval, MBPP, MBPP+ or of stdin/stdout tests; raises `ValueError` with what is wrong with it.

    Told apart by their keys: HumanEval has `test` and `entry_point`; MBPP `test_list`; MBPP+ `assertion` and
    `canonical_solution`; the last `tests`, a list of {"input", "output"} (or of two lists, or JSON of either).
    """
    number = str(row.get("task_id") or row.get("id") or default_id)
    if "assertion" in row and "canonical_solution" in row:
        tests = [with_reference(_text(row, "assertion"), _text(row, "canonical_solution"), row)]
        return CodeProblem(number, _text(row, "prompt"), tests, entry_point=str(row.get("entry_point", "")))
    if "test" in row and "entry_point" in row:
        prompt = _text(row, "prompt")
        whole = prompt + str(row.get("canonical_solution", ""))
        asked = f"Complete this function.\n\n{prompt}"
        return CodeProblem(number, asked, [_text(row, "test")], entry_point=str(row["entry_point"]), solution=whole)
    if "test_list" in row:
        return _mbpp(row, number)
    if "tests" in row:
        prompt = next((str(row[key]) for key in ("prompt", "question", "problem", "description") if row.get(key)), "")
        if not prompt:
            raise ValueError("has no prompt (prompt, question, problem or description)")
        runs = stdio_tests(row["tests"])
        return CodeProblem(number, prompt, runs, "stdio", solution=str(row.get("solution", "")))
    raise ValueError("has no tests: expected test and entry_point, test_list, assertion, or tests")


def _mbpp(row: Mapping[str, Any], number: str) -> CodeProblem:
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise ValueError("test_list must be a list of texts")
    setup = str(row.get("test_setup_code") or "\n".join(row.get("test_imports", [])))
    prompt = str(row.get("text") or row.get("prompt") or "")
    if not prompt:
        raise ValueError("has no prompt (text or prompt)")
    asked = f"{prompt}\nYour code should pass this test: {tests[0]}"
    solution = str(row.get("code", ""))
    return CodeProblem(number, asked, [f"{setup}\n{test}" for test in tests], solution=solution, shown=tests[0])


def stdio_tests(given: Any) -> list[dict[str, str]]:
    """[{"input", "output"}] of the shapes that stdin/stdout data sets come in."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise ValueError("tests is no JSON") from None
    if isinstance(given, Mapping):
        inputs, outputs = (given.get(key) or given.get(f"{key}s") for key in ("input", "output"))
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError("tests must have as many inputs as outputs")
        given = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
    if not isinstance(given, list) or not given:
        raise ValueError("tests must be a list of {input, output}")
    return [{key: _lines(test, key) for key in ("input", "output")} for test in given]


def _lines(test: Any, key: str) -> str:
    value = test.get(key) if isinstance(test, Mapping) else None
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if not isinstance(value, str):
        raise ValueError(f"a test has no text {key!r}")
    return value


def with_reference(assertions: str, reference: str, row: Mapping[str, Any]) -> str:
    """A test that compares with what the reference returns, on the arguments that the assertions use.

    MBPP+ keeps its inputs as JSON, where a tuple has become a list; in the assertions they are as they were.
    """
    name = _text(row, "entry_point")
    calls = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(assertions))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]
    if not calls:
        raise ValueError(f"assertion never calls {name}")
    pairs = "\n".join(f"    yield lambda {name}: {call}" for call in calls)
    return (
        f"{_CLOSE}\ngold = {{}}\nexec({reference!r}, gold)\n\ndef runs():\n{pairs}\n\n"
        f"def check(candidate):\n    for run in runs():\n"
        f"        expected, got = run(gold[{name!r}]), run(candidate)\n"
        f"        assert same(got, expected, {row.get('atol', 0)!r}), f'expected {{expected!r}}, got {{got!r}}'\n"
    )


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be a text")
    return value
