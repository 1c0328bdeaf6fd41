"""Objects named by text: `path.py:name` and `package.module:name`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from agentgym.errors import AgentGymError, ConfigError

_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


def is_reference(text: str, *, file_only: bool = False) -> bool:
    """Whether a text names an object in a file (`path.py:name`) or module (`package.module:name`), not an id."""
    where, colon, name = text.rpartition(":")
    if where.endswith(".py") or text.endswith(".py"):
        return True
    return bool(colon) and not file_only and name.isidentifier()  # `module:Env-v0` is an id, as Gymnasium has it


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """What code given by the user raises inside becomes a `ConfigError`: `what`, the error, its file and line."""
    try:
        yield
    except AgentGymError:
        raise
    except Exception as e:
        frames = traceback.extract_tb(e.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)] or frames
        raise ConfigError(f"{what}: {type(e).__name__}: {e} ({own[-1].filename}, line {own[-1].lineno})") from e


def load_object(reference: str, what: str = "object") -> Any:
    """The object that `path.py:name` or `package.module:name` names.

    A file is run once a process. Raises `ConfigError` naming `what`, the file or the name that is missing.
    """
    where, colon, name = reference.rpartition(":")
    if not colon or not name or not where:
        raise ConfigError(f"{what} {reference!r}: expected path.py:name")
    module = _place(where, reference, what)
    try:
        return getattr(module, name)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        close = difflib.get_close_matches(name, public, n=1, cutoff=0.5)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{what} {reference!r}: there is no {name!r} in {where}{nearest}") from None


def load_several(references: str, what: str = "tools", known: Collection[str] = ()) -> list[Any]:
    """`path.py:a,b` -> two objects; a name without a file, such as `calculator`, stays a name. So does one of `known`
    after a file that has nothing of that name: `path.py:a,calculator`."""
    found: list[Any] = []
    where = ""
    for item in filter(None, (part.strip() for part in references.split(","))):
        before, colon, name = item.rpartition(":")
        where = before or where
        named = not colon and (not where or (name in known and not _has(where, name, what)))
        found.append(name if named else load_object(f"{where}:{name}", what))
    if not found:
        raise ConfigError(f"{what} {references!r}: expected path.py:a,b")
    return found


def _has(where: str, name: str, what: str) -> bool:
    return hasattr(_place(where, f"{where}:{name}", what), name)


def _place(where: str, reference: str, what: str) -> ModuleType:
    return _file(where, what) if where.endswith(".py") else _module(where, reference, what)


def module_name(path: str | Path) -> str:
    """What a file that is loaded is called in `sys.modules`."""
    file = Path(path).expanduser().resolve()
    return f"agentgym_file_{hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()}"


def _module(name: str, reference: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        raise ConfigError(f"{what} {reference!r}: {e}") from None


def _file(path: str, what: str) -> ModuleType:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"{what} {path!r}: there is no such file")
    file = file.resolve()
    name = module_name(file)
    if name in sys.modules:
        return sys.modules[name]
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # a script can import its neighbours; so can this
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{what} {path!r}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as e:
        del sys.modules[name]
        if isinstance(e, AgentGymError) or not isinstance(e, Exception):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == str(file)]
        at = f", line {lines[-1]}" if lines else f", line {e.lineno}" if isinstance(e, SyntaxError) else ""
        raise ConfigError(f"{what} {path!r}{at}: {type(e).__name__}: {e}") from e
    return module
