"""Processes that code in a sandbox has started, found by a word of their command line."""

from __future__ import annotations

import glob
import time
from pathlib import Path


def running(word: str) -> list[int]:
    found = []
    for name in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if word.encode() in Path(name).read_bytes().split(b"\0"):
                found.append(int(name.split("/")[2]))
        except OSError:
            continue
    return found


def gone(word: str) -> bool:
    deadline = time.monotonic() + 20
    while running(word) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not running(word)


def there(word: str) -> bool:
    deadline = time.monotonic() + 20
    while len(running(word)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(running(word)) == 3
