"""What README and CONTRIBUTING show is true: code runs, commands and options exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from agentgym import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str) -> None:
    found = blocks(page, "python")
    assert found
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in found:  # a later block may use what an earlier one made
        exec(compile(block, page, "exec"), namespace)


def test_a_demo_of_the_readme_solves_its_task() -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(blocks("README.md", "python")[0], namespace)
    env = namespace["ag"].make("Parts-v0")
    env.reset(seed=0, options={"task_id": "nuts"})
    for message in namespace["demo"]("nuts"):
        _, reward, done, *_ = env.step(message)
    assert (reward, done) == (1.0, True)


def lines(page: str) -> list[str]:
    text = "\n".join(blocks(page, "bash"))
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_commands_and_options_exist() -> None:
    commands: Any = typer.main.get_command(cli.app)
    seen = 0
    for line in [line for page in PAGES for line in lines(page)]:
        words = shlex.split(line, comments=True)
        if words[0].rpartition("/")[2] != "agentgym":
            continue
        assert words[1] in commands.commands, line
        cli._split(words[1:])  # raises for an option that neither the command nor the configuration knows
        seen += 1
    assert seen >= 10


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {name for page in PAGES for name in re.findall(r"\bmake ([a-z-]+)\b", (ROOT / page).read_text())}
    assert {"train", "test", "check"} <= named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"<!--.*?-->", "", (ROOT / page).read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target
