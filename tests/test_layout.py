"""The folders at the top are sub-packages: as links for tools that read paths, and as modules in a wheel."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("envs", "tools", "sandboxes", "trainers")
MAPPED: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_link_points_to_the_top_folder(folder: str) -> None:
    link = ROOT / "agentgym" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
    assert (ROOT / folder / "__init__.py").is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_imported_as_a_sub_package(folder: str) -> None:
    module = importlib.import_module(f"agentgym.{folder}")
    assert Path(str(module.__file__)).resolve().parent == ROOT / folder


def test_every_folder_is_mapped() -> None:
    assert set(MAPPED) == {"agentgym", *(f"agentgym.{folder}" for folder in FOLDERS)}
    assert all(path == name.rpartition(".")[2] for name, path in MAPPED.items())


def test_every_code_folder_is_a_package() -> None:
    # a folder without __init__.py would be left out of the wheel without a word
    for top in ("agentgym", *FOLDERS):
        for file in (ROOT / top).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), f"{file.parent} has no __init__.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names inside a wheel built from a copy of what git would hand out."""
    work = tmp_path_factory.mktemp("wheel")
    copy = work / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    copy.mkdir()
    for name in ("agentgym", *FOLDERS):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    with zipfile.ZipFile(next(work.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_module_and_nothing_at_the_top(wheel: set[str]) -> None:
    expected = {
        str(Path("agentgym", *(() if top == "agentgym" else (top,)), file.relative_to(ROOT / top)))
        for top in ("agentgym", *FOLDERS)
        for file in (ROOT / top).rglob("*.py")
        if not any(parent.is_symlink() for parent in file.parents if parent != ROOT and ROOT in parent.parents)
    }
    assert expected <= wheel
    assert "agentgym/envs/tool_env.py" in wheel
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"agentgym"}


def test_wheel_holds_types_and_recipes(wheel: set[str]) -> None:
    assert "agentgym/py.typed" in wheel
    recipes = {f"agentgym/recipes/{path.name}" for path in (ROOT / "agentgym" / "recipes").glob("*.toml")}
    assert recipes
    assert recipes <= wheel
