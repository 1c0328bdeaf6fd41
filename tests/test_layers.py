"""The arrows of the architecture: core -> sandboxes -> tools -> envs, and trainers on the core only."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UPPER = ("sandboxes", "tools", "envs", "trainers")
MAY_IMPORT = {
    "agentgym": (),
    "sandboxes": (),
    "tools": ("sandboxes",),
    "envs": ("sandboxes", "tools"),
    "trainers": (),
}
INSIDE = ROOT / "sandboxes" / "local" / "jail"  # also loaded by an interpreter that knows nothing of the package
COMPOSITION_ROOTS = {
    "agentgym/__init__.py",
    "agentgym/cli.py",
    "agentgym/cluster_commands.py",
    "agentgym/gym_commands.py",
    "agentgym/run_commands.py",
    "agentgym/sandbox_commands.py",
}  # they know everyone, lazily


def modules(layer: str) -> Iterator[Path]:
    for path in sorted((ROOT / layer).rglob("*.py")):
        links = [parent for parent in path.parents if ROOT in parent.parents and parent.is_symlink()]
        if not links and str(path.relative_to(ROOT)) not in COMPOSITION_ROOTS:
            yield path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions too; a relative one starts with a dot."""
    gc.disable()  # Python 3.11 cannot parse where a finalizer that it runs parses too, as a printed traceback does
    try:
        tree = ast.parse(path.read_text(), str(path))
    finally:
        gc.enable()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield node.lineno, base
            # `from agentgym import envs` names a layer too
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_lower_layers_never_import_upper_ones(layer: str) -> None:
    allowed = {layer, *MAY_IMPORT[layer]}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(layer)
        for line, name in imports(path)
        for upper in UPPER
        if upper not in allowed and (name == f"agentgym.{upper}" or name.startswith(f"agentgym.{upper}."))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_are_absolute_and_through_agentgym(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(layer)
        for line, name in imports(path)
        if (name.startswith(".") and path.parent != INSIDE) or name.partition(".")[0] in UPPER
    ]
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_code() -> None:
    """Guards the tests above against passing because they looked at nothing."""
    assert all(list(modules(layer)) for layer in MAY_IMPORT)
    assert any(name == "agentgym.types" for path in modules("envs") for _, name in imports(path))
