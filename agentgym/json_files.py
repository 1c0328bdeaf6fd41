"""Objects in a file, with the line that each begins on: JSONL, or one JSON list, either of them gzipped.

Also what tells one version of a file from another, for those who keep what they read.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentgym.errors import DataError
from agentgym.rollout.record import read_rows

_SPACE = re.compile(r"[ \t\r\n]*")


def read_objects(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of every object of a file; what it begins with says if it is a list. Raises `DataError`.

    JSONL is read line by line, a list as a whole.
    """
    return _items(path, _text(path)) if _begins_a_list(path) else read_rows(path)


def file_version(path: str | Path, what: str, wanted: str) -> tuple[str, int, int, int]:
    """The file's absolute path, and numbers that change with what is in it.

    Raises `DataError` where it cannot be read or is a folder; `what` the file holds and which file is `wanted` are
    for the message.
    """
    path = Path(path)
    try:
        stat = path.stat()
    except OSError as e:
        raise DataError(f"{path}: cannot read {what}: {e.strerror}") from None
    if path.is_dir():
        raise DataError(f"{path}: cannot read {what}: it is a folder; give {wanted}")
    # not resolved: a link of a download cache leads to a file without the ending that says how to read it
    return str(path.absolute()), stat.st_ino, stat.st_mtime_ns, stat.st_size


def _begins_a_list(path: str | Path) -> bool:
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            return file.read(256).lstrip().startswith(b"[")
    except (OSError, EOFError, zlib.error):
        return False  # read_rows says what is wrong


def _text(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if str(path).endswith(".gz") else data).decode()
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from None
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not valid UTF-8: {e}") from None


def _items(path: str | Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder()
    line, counted, at = 1, 0, _skip(text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as e:
            wrong = f"{path}:{e.lineno}: not valid JSON: {e.msg}" if isinstance(e, json.JSONDecodeError) else None
            raise DataError(wrong or f"{path}:{line}: not valid JSON: {e}") from None
        if not isinstance(value, dict):
            raise DataError(f"{path}:{line}: expected a JSON object, got {type(value).__name__}")
        yield line, value
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise DataError(f"{path}:{line + text.count(chr(10), counted, at)}: not valid JSON: expected ',' or ']'")
    if text[at + 1 :].strip():
        raise DataError(f"{path}:{text.count(chr(10), 0, at) + 1}: there is more after the end of the list")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
