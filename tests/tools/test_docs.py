"""The page on tools is true: its code runs, its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agentgym.tools import FunctionTool
from agentgym.tools.toolset import BUILT_IN, ToolSet

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tools.md").read_text()


def test_the_code_runs() -> None:
    pytest.importorskip("mcp", reason="the mcp extra is not installed")
    found = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(found) >= 4
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in found:
        exec(compile(block, "docs/tools.md", "exec"), namespace)


def test_the_built_in_tools_are_named() -> None:
    section = PAGE.partition("\n## Built in\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in section.splitlines() if "|" in line)))
    assert set(BUILT_IN) <= named
    assert all(isinstance(one, FunctionTool) for one in ToolSet(BUILT_IN))


def test_the_options_are_named() -> None:
    section = PAGE.partition("\n## The decorator\n")[2].partition("\n## ")[0]
    options = set(FunctionTool.__init__.__annotations__) - {"fn", "return"}
    assert options <= set(re.findall(r"`(\w+)`", section))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
