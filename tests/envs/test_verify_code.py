"""`verify_code`: what is right passes, what is wrong does not, and a program cannot talk its way through."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.envs.verifiers.code import CodeReport, check_code, verify_code
from agentgym.envs.verifiers.code.rows import read_problem
from agentgym.envs.verifiers.code.stdio import same_output
from agentgym.errors import SandboxUnavailable
from agentgym.execution import ExecResult, ExecStatus, SandboxLimits
from agentgym.sandboxes.fake import FakeBackend
from agentgym.tools.driving import drive
from agentgym.types import Outcome

DATA = Path(os.environ.get("AGENTGYM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def check(program: str, tests: Any, **options: Any) -> CodeReport:
    try:
        return drive(check_code(program, tests, **options))
    except SandboxUnavailable as e:
        pytest.skip(f"no local sandbox on this machine: {e}")


RIGHT = {
    "plain": ("def f(x):\n    return x + 1", "assert f(1) == 2\nassert f(0.5) == 1.5"),
    "imported names": ("import math\nfrom typing import List\ndef f(x): return x", "assert f(math.pi) > 3\nList[int]"),
    "changed in place": ("def f(x):\n    x.sort()", "a = [3, 1, 2]\nf(a)\nassert a == [1, 2, 3]"),
    "a dict changed": ("def f(x):\n    x['b'] = {1}", "a = {'a': 1}\nf(a)\nassert a == {'a': 1, 'b': {1}}"),
    "a callback": ("def f(g, x):\n    return [g(v) for v in x]", "assert f(lambda v: v * 2, [1, 2]) == [2, 4]"),
    "a generator": ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]\nassert sum(f(4)) == 6"),
    "a class": (
        "class P:\n    def __init__(self, a): self.a = a\n    def up(self):\n        self.a += 1\n        return self\n"
        "    def __eq__(self, other): return self.a == other.a\ndef f(p): return p.a",
        "p = P(3)\nassert p.up().a == 4\nassert p == P(4)\nassert not p == P(5)\nassert f(P(9)) == 9",
    ),
    "an error": (
        "class Own(ValueError): pass\ndef f(x):\n    raise Own('no') if x else KeyError(x)",
        "for x, kind in ((1, Own), (1, ValueError), (0, KeyError)):\n"
        "    try: f(x)\n    except kind: pass\n    else: raise 1",
    ),
    "a test's own class": (
        "def f(node): return node.left.value",
        "class N: pass\na = N()\na.left = N()\na.left.value = 5\nassert f(a) == 5",
    ),
    "every kind of value": (
        "def f(x): return x",
        "import math, collections, decimal, fractions, datetime\n"
        "for x in (None, True, 2 ** 70, -1, 1e300, float('inf'), 'a\\ud800', b'\\0', (1,), [()], {1: {2}}, {1, 'a'},\n"
        "          frozenset([1]), 1 + 2j, range(3), ..., decimal.Decimal('1.10'), fractions.Fraction(1, 3),\n"
        "          datetime.date(2020, 1, 2), collections.deque([1]), bytearray(b'a')):\n"
        "    assert f(x) == x and type(f(x)) is type(x), x\nassert math.isnan(f(float('nan')))\n",
    ),
    "check": ("def g(x): return x\ndef f(x): return g(x) * 2", "def check(candidate):\n    assert candidate(2) == 4"),
    "deep": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(800) == 800"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    report = check(*RIGHT[name])
    assert (report.outcome, report.detail) == (Outcome.correct, "")


WRONG = {
    "wrong": ("def f(x): return x", "assert f(1) == 2", "incorrect"),
    "equal to everything": (
        "class T:\n    def __eq__(self, other): return True\ndef f(x): return T()",
        "assert f(1) == 2",
        "incorrect",
    ),
    "a number equal to everything": (
        "class T(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef f(x): return T(7)",
        "assert f(1) == 2",
        "incorrect",
    ),
    "ends quietly": ("def f(x):\n    import os; os._exit(0)", "assert f(1) == 2", "error"),
    "says it passed": (
        "import sys\n"
        "def f(x):\n"
        "    frame, said = sys._getframe(), ''\n"
        "    while frame:\n"
        "        mark = getattr(frame.f_locals.get('self'), '_mark', '')\n"
        "        said = said or mark\n"
        "        frame = frame.f_back\n"
        "    sys.stdout = sys.__stdout__\n"
        "    import os\n"
        '    os.write(1, (\'\\n\' + said + \'{"value": [["correct", ""]]}\\n\').encode())\n'
        "    os._exit(0)\n",
        "assert f(1) == 2",
        "incorrect",
    ),
    "asks the tests for their code": (
        "def f(g):\n    return g.__globals__ or g.gi_frame",
        "def cb(): yield 5\nassert f(cb()) == 5",
        "error",
    ),
    "patches what is asked with": (
        "import builtins\nbuiltins.all = builtins.bool = lambda x: True\ndef f(x): return 2",
        "assert all([f(1) == 1])",
        "incorrect",
    ),
    "no function of that name": ("def g(x): return x", "assert f(1) == 1", "error"),
    "does not load": ("def f(x:", "assert f(1) == 1", "error"),
    "for ever": ("while True: pass", "assert True", "timeout"),
    "for ever when called": ("def f(x):\n    while True: pass", "f(1)", "timeout"),
    "too much memory": ("def f(x): return len(bytearray(1 << 30))", "f(1)", "error"),
    "too much to say": ("def f(x): return 'a' * (100 << 20)", "f(1)", "error"),
    "too deep to send": ("def f(x):\n    for _ in range(100000): x = [x]\n    return x", "f(1)", "error"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    program, tests, outcome = WRONG[name]
    seconds = 1.5 if outcome == "timeout" else 30.0
    report = check(program, tests, timeout=seconds, limits=SandboxLimits(memory=256 << 20, output=4 << 20))
    assert report.outcome == outcome
    assert report.detail


def test_each_piece_counts() -> None:
    report = check("def f(x): return x", ["assert f(1) == 1", "assert f(1) == 2", "assert f(3) == 3"])
    assert (report.passed, report.total, report.outcome) == (2, 3, Outcome.incorrect)
    assert report.told == ("", "AssertionError at: assert f(1) == 2", "")


def test_stdio() -> None:
    tests = [{"input": "1 3\n", "output": "0.333333"}, {"input": "4 2", "output": "2.0\n\n"}]
    program = "a, b = map(int, input().split())\nprint(a / b)"
    assert check(program, tests, kind="stdio").outcome is Outcome.correct
    wrong = check("print(input())", tests, kind="stdio")
    assert (wrong.outcome, wrong.passed, wrong.detail) == (Outcome.incorrect, 0, r"wrote '1 3\n' on input '1 3\n'")
    assert check("input(); input(); input()", tests, kind="stdio").detail.startswith("EOFError")
    assert check("while True: pass", tests, kind="stdio", timeout=0.5).outcome is Outcome.timeout


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("1 2 \n3\n\n", "1 2\n3", True),
        ("1  2", "1 2", True),
        ("1.0000001", "1.0", True),
        ("1.01", "1.0", False),
        ("1.0", "1", False),
        ("1\n2", "1 2", False),
        ("", "", True),
        ("x", "1.5", False),
    ],
)
def test_same_output(got: str, expected: str, same: bool) -> None:
    assert same_output(got, expected) is same


def test_pytest_files() -> None:
    program = "def add(a, b): return a + b\nclass Bad(ValueError): pass\ndef boom(): raise Bad('x')"
    tests = (
        "import pytest\nfrom solution import Bad, add, boom\n"
        "@pytest.mark.parametrize('a', [1, 2])\ndef test_add(a): assert add(a, 1) == a + 1\n"
        "def test_boom():\n    with pytest.raises(Bad, match='x'): boom()\n"
    )
    assert check(program, tests, kind="pytest").outcome is Outcome.correct
    wrong = check(program.replace("a + b", "a - b"), tests, kind="pytest")
    assert wrong.outcome is Outcome.incorrect
    assert "assert 0 == (1 + 1)" in wrong.detail


@pytest.mark.parametrize(
    ("tests", "outcome"),
    [
        ("import pytest\ndef test_a(): pytest.skip('not now')", "incorrect"),
        ("import unittest\ndef test_a(): assert f() == 1\ndef test_b(): raise unittest.SkipTest", "correct"),
        ("def test_a(): assert f() == 1", "correct"),
    ],
)
def test_a_file_of_which_nothing_is_tested_passes_nothing(tests: str, outcome: str) -> None:
    assert check("def f(): return 1", f"from solution import f\n{tests}", kind="pytest").outcome == outcome


def test_a_sandbox_that_fails_gives_no_verdict() -> None:
    failed = FakeBackend({"*": ExecResult(ExecStatus.infra_error, error="gone")})
    assert verify_code("x", "assert 1", backend=failed) is Outcome.unscored


@pytest.mark.parametrize(
    ("tests", "options", "text"),
    [
        ("", {}, "there are no tests"),
        ("assert 1", {"kind": "unit"}, "kind = 'unit': must be one of function, stdio, pytest"),
        ("assert 1", {"timeout": 0}, "timeout = 0"),
        ("assert 1", {"kind": "stdio"}, "mappings"),
        ([{"input": "1"}], {"kind": "stdio"}, "mappings"),
        (["a"], {"kind": "pytest"}, "one file"),
    ],
)
def test_tests_that_are_none(tests: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        agentgym.verify_code("x = 1", tests, **options)


ROWS = {
    "task_id": [{"task_id": "a", "prompt": "p", "test": "def check(c): pass", "entry_point": "f"}, "a"],
    "mbpp": [{"text": "p", "test_list": ["assert f(1)"], "code": "def f"}, "7"],
    "stdio": [{"problem": "p", "tests": '{"inputs": ["1"], "outputs": ["2"]}'}, "7"],
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    row, number = ROWS[name]
    problem = read_problem(row, "7")
    assert (problem.id, bool(problem.tests), "p" in problem.prompt) == (number, True, True)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "p"}, "has no tests"),
        ({"prompt": "p", "tests": "{"}, "no JSON"),
        ({"prompt": "p", "tests": []}, "must be a list"),
        ({"prompt": "p", "tests": {"inputs": ["1"], "outputs": []}}, "as many inputs"),
        ({"tests": [{"input": "1", "output": "1"}]}, "no prompt"),
        ({"text": "p", "test_list": "assert"}, "test_list must be"),
        ({"test": "x", "entry_point": "f"}, "prompt must be a text"),
        ({"prompt": "p", "tests": [{"input": 1, "output": "1"}]}, "no text 'input'"),
    ],
)
def test_rows_that_are_none(row: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_problem(row, "7")


def lines(name: str) -> Iterator[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no benchmark data: {path} (set AGENTGYM_DATA)")
    with gzip.open(path, "rt") as file:
        yield from map(json.loads, file)


@pytest.mark.parametrize("name", ["humaneval_qwen_7b", "mbpp_qwen_7b"])
def test_real_programs_get_their_labels(name: str) -> None:
    source = "HumanEval.jsonl.gz" if "human" in name else "MbppPlus-v0.1.0.jsonl.gz"
    problems = {row["task_id"]: read_problem(row, "") for row in lines(f"code/{source}")}
    labelled = list(lines(f"open/labelled_code_{name}.jsonl.gz"))[:40]
    for row in labelled:
        problem = problems[row["task_id"]]
        report = check(row["solution"], problem.tests, entry_point=problem.entry_point)
        assert bool(report.outcome) == (row["base_status"] == "pass"), (row["id"], report)
