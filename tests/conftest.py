"""Which tests share a worker when they run on several: those that wait for the same thing to be made."""

from __future__ import annotations

from pathlib import Path

import pytest

DEAR = {"run": "a run", "steady": "a steady run", "whole": "an evaluation"}
"""Fixtures of a module or more that take seconds."""
MATHS = ("test_math.py", "test_math_tool.py")
"""They start processes that import sympy."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        groups = [DEAR[name] for name in getattr(item, "fixturenames", ()) if name in DEAR]
        if Path(item.path).name in MATHS:
            groups.append("maths")
        if groups:
            item.add_marker(pytest.mark.xdist_group(groups[0]))
