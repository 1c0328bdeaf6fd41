"""Which tests share a worker when they run on several: those that wait for the same thing to be made."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

DEAR = {
    ("trainers/test_session.py", "run"): "a run",
    ("trainers/test_session.py", "steady"): "a steady run",
    ("evaluation/test_playing.py", "whole"): "an evaluation",
    ("trainers/test_check_run.py", ""): "a checked run",
    ("test_layout.py", "wheel"): "a wheel",
    ("envs/verifiers/test_math.py", ""): "maths",  # their processes import sympy
    ("envs/test_math_tool.py", ""): "maths",
    ("envs/verifiers/test_math_compare.py", ""): "maths in the tests' own process",
    ("envs/verifiers/test_math_workers.py", ""): "maths in the tests' own process",
}
"""By file and fixture (any where it is empty): what takes seconds to be made."""
HERE = Path(__file__).parent

settings.register_profile("any machine", deadline=None)  # a busy one is slow, and that is no finding
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file = str(Path(item.path).relative_to(HERE))
        for fixture in ("", *getattr(item, "fixturenames", ())):
            if (file, fixture) in DEAR:
                item.add_marker(pytest.mark.xdist_group(DEAR[file, fixture]))
                break
