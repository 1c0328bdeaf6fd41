"""The grader's half of a function test: runs in the grading sandbox, as text, beside `peer`."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import random
import traceback
from typing import Any

from peer import Peer  # type: ignore[import-not-found]

FILE, TESTS = "<tests>", "tests"


class Seen:
    """What became of a file's tests while they ran."""

    passed = skipped = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call":
            self.passed += report.passed
            self.skipped += report.skipped


class Grader(Peer):  # type: ignore[misc]
    """Runs tests whose names are those of the program, which the other half holds."""

    tells_kinds = False  # the program is not led from what it is given to the tests' classes

    def do_take_names(self, found: Any, module: str) -> Any:
        self.tests = self.take_names(found, module)
        return {"value": None}

    def do_attribute(self, target: Any, name: str) -> Any:
        """The program may look into what the tests' own classes made, and into nothing that leads to the tests."""
        if name.startswith("_") or type(target).__module__ not in (TESTS, "test_solution"):
            raise AttributeError(f"{type(target).__name__!r} object has no attribute {name!r}")
        return super().do_attribute(target, name)

    def do_set_attribute(self, target: Any, name: str, value: Any) -> Any:
        """It may write there, too, and into no class or function: `N.__eq__ = always` would change what tests ask."""
        if name.startswith("_") or type(target).__module__ not in (TESTS, "test_solution"):
            raise AttributeError(f"{type(target).__name__!r} object has no attribute {name!r} to write")
        return super().do_set_attribute(target, name, value)

    def do_delete_attribute(self, target: Any, name: str) -> Any:
        """Nothing of the tests' is taken away."""
        raise AttributeError(f"{type(target).__name__!r} object has no attribute {name!r} to delete")

    def do_run_tests(self, tests: list[str], entry_point: str) -> Any:
        """Each of `tests` in turn; [[verdict, what was said of it]] in their order."""
        random.seed(0)
        hidden = self._hidden("\n".join(tests), entry_point)
        return {"value": [self._run(test, entry_point, hidden) for test in tests]}

    def _hidden(self, text: str, entry_point: str) -> set[str]:
        """Names of Python's own that stay so: a program's `abs` is for the tests only where it is what they test."""
        shadows = {key for key in self.tests if hasattr(builtins, key) and key != entry_point}
        try:
            asked = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        except (SyntaxError, ValueError, RecursionError):
            asked = set()
        others = asked & (self.given - shadows) or entry_point or "check" in text
        functions = {key for key in shadows & self.given if not isinstance(getattr(builtins, key), type)}
        return shadows if others else shadows - functions

    def _run(self, test: str, entry_point: str, hidden: set[str]) -> list[str]:
        mine = {key: value for key, value in self.tests.items() if key not in hidden}
        names = {"__name__": TESTS, **mine}
        try:
            exec(compile(test, FILE, "exec", dont_inherit=True), names)
            if "check" in names and names["check"] is not mine.get("check"):
                names["check"](self._candidate(entry_point))
        except BaseException as e:
            return ["incorrect" if isinstance(e, AssertionError) else "error", self._told(e, test)]
        return ["correct", ""]

    def _candidate(self, entry_point: str) -> Any:
        if entry_point:
            return self.tests[entry_point]
        made = [self.tests[key] for key in self.tests if key in self.given - {"check"} and callable(self.tests[key])]
        functions = [value for value in made if not isinstance(value, type)] or made
        if not functions:
            raise NameError("the program defines no function")
        return functions[-1]

    def do_run_pytest(self, test: str) -> Any:
        import pytest

        with open("/tmp/test_solution.py", "w") as file:
            file.write(test)
        said, seen = io.StringIO(), Seen()
        options = ["-q", "-x", "-s", "--no-header", "-p", "no:cacheprovider", "/tmp/test_solution.py"]
        with contextlib.redirect_stdout(said):
            code = pytest.main(options, plugins=[seen])
        verdict = {0: "correct", 1: "incorrect"}.get(int(code), "error")
        skips = any(word in test.lower() for word in ("skip", "xfail"))
        if verdict == "correct" and (not seen.passed or (seen.skipped and not skips)):
            verdict = "incorrect"  # the program has its tests skipped
        return {"value": [[verdict, said.getvalue()[-2000:]]]}

    def _told(self, error: BaseException, test: str) -> str:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
        source = test.splitlines()
        line = source[lines[-1] - 1].strip() if lines and lines[-1] and lines[-1] <= len(source) else ""
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return f"{said}{f' at: {line}' if line else ''}"[:1000]
