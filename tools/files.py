"""File tools: read, write, edit and list files of the episode's sandbox."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable
from typing import TypeVar

from agentgym.errors import SandboxFileError
from agentgym.tools.decorator import ToolFailed, tool
from agentgym.tools.episode import Episode
from agentgym.tools.sandboxed import told

T = TypeVar("T")
MAX_FILE = 4 << 20
LINES = 200


@tool
async def read_file(path: str, episode: Episode, first: int = 1, lines: int = LINES) -> str:
    """Show lines of a text file, numbered.

    Args:
        path: the file
        first: the first line to show, from 1
        lines: how many lines to show
    """
    text = await _text(path, episode)
    if first < 1 or lines < 1:
        raise ToolFailed("error: first and lines must be 1 or more")
    every = text.splitlines()
    shown = [f"{i}\t{line}" for i, line in enumerate(every[first - 1 : first - 1 + lines], first)]
    left = len(every) - (first - 1) - len(shown)
    return "\n".join([*shown, *([f"[{left} more lines]"] if left > 0 else [])]) or "(empty)"


@tool
async def write_file(path: str, text: str, episode: Episode) -> str:
    """Write a text file, in place of what it held; its folders are made.

    Args:
        path: the file
        text: all of its content
    """
    data = text.encode(errors="replace")
    await _told((await episode.sandbox()).write_file(path, data))
    return f"wrote {len(data)} bytes to {path}"


@tool
async def edit_file(path: str, old: str, new: str, episode: Episode) -> str:
    """Replace a piece of a text file.

    Args:
        path: the file
        old: the piece as it is now; it has to be there exactly once
        new: what is to be there
    """
    text = await _text(path, episode)
    if not old or (found := text.count(old)) != 1:
        raise ToolFailed(f"error: {path}: the old text is there {found if old else 0} times, it must be there once")
    await _told((await episode.sandbox()).write_file(path, text.replace(old, new).encode(errors="replace")))
    return f"edited {path}"


@tool
async def list_files(episode: Episode, path: str = ".") -> str:
    """List a folder: names, folders with a slash at the end.

    Args:
        path: the folder
    """
    done = await (await episode.sandbox()).shell(f"ls -1Ap -- {shlex.quote(path)}")
    text = told(done)
    if not done.ok:
        raise ToolFailed(f"error: {text}")
    return text


async def _text(path: str, episode: Episode) -> str:
    data = await _told((await episode.sandbox()).read_file(path, MAX_FILE))
    return data.decode(errors="replace")


async def _told(work: Awaitable[T]) -> T:
    try:
        return await work
    except SandboxFileError as e:
        raise ToolFailed(f"error: {e}") from None
