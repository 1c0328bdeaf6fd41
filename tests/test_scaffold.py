"""`agentgym new-env`: what it writes works at once, is short, and hides nothing that is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from agentgym.cli import main
from agentgym.envs.validate import validate
from agentgym.errors import ConfigError
from agentgym.scaffold import ENV, names, new_env


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["new-env", *arguments])
    return int(end.value.code or 0)


def test_what_it_writes_passes_its_own_test_and_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "envs"
    assert run("my-shop", "--dir", str(folder)) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["my_shop.py", "test_my_shop.py"]
    out = capsys.readouterr().out
    assert f"agentgym validate {folder / 'my_shop.py'}:my_shop" in out
    report = validate(f"{folder / 'my_shop.py'}:my_shop", strict=True)
    assert report.ok, report.told()
    assert all(finding.value is True for finding in report.findings.values())
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_it_is_at_most_15_lines_beside_the_tools() -> None:
    """The bar for a custom tool env: lines of code, without blank ones and without the tools."""
    source = ENV.replace("@MODULE@", "shop").replace("@CLASS@", "Shop")
    lines = {i for i, line in enumerate(source.splitlines(), 1) if line.strip()}
    for node in ast.parse(source).body:
        end = node.end_lineno or node.lineno
        if isinstance(node, ast.FunctionDef) and "ag.tool" in map(ast.unparse, node.decorator_list):
            lines -= set(range(node.decorator_list[0].lineno, end + 1))
    assert len(lines) <= 15, len(lines)


@pytest.mark.parametrize("taken", ["my_shop.py", "test_my_shop.py"])
def test_it_writes_over_nothing(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ConfigError, match=f"{taken} is there already"):
        new_env("my-shop", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [taken], "nor half of it"
    assert (tmp_path / taken).read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "module", "class_name"),
    [
        ("shop", "shop", "Shop"),
        ("my-shop", "my_shop", "MyShop"),
        ("MyShop", "my_shop", "MyShop"),
        ("my_shop2", "my_shop2", "MyShop2"),
        ("SQLDesk", "sql_desk", "SQLDesk"),
    ],
)
def test_names(name: str, module: str, class_name: str) -> None:
    assert names(name) == (module, class_name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "begins with a letter"),
        ("3d", "begins with a letter"),
        ("a b", "begins with a letter"),
        ("../x", "begins with a letter"),
        ("mine/Env-v0", "begins with a letter"),
        ("class", "a word of Python's"),
        ("match", "a word of Python's"),
        ("random", "would hide a module"),
        ("agentgym", "would hide a module"),
        ("task", "would hide a module"),
    ],
)
def test_bad_names_are_told(name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dir", str(tmp_path / "there"), "--", name) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "there").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        new_env("shop", tmp_path / "file" / "x")
