"""The output of servers on other machines, written into the run's folder as their actors hand it over."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_SECONDS = 2.0
"""That replicas have, when the run ends, to tell what their servers wrote last."""


class ServerLogs:
    """A file `server-I.log` in `folder` for each replica; an actor is asked for what it has beyond `at`."""

    def __init__(self, ray: Any, folder: Path):
        self._ray, self._folder = ray, folder
        self._at: dict[int, int] = {}
        self._last: dict[int, Any] = {}

    def at(self, index: int) -> int:
        """Bytes that this replica's actor has told."""
        return self._at.get(index, 0)

    def begin(self, index: int) -> None:
        """Its actor is a new one, whose log begins anew."""
        self._at.pop(index, None)

    def write(self, index: int, written: bytes) -> None:
        """Add what it told."""
        if written:
            self._at[index] = self.at(index) + len(written)
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"server-{index}.log").open("ab") as file:
                file.write(written)

    def ask_for_the_last(self, actors: Mapping[int, Any]) -> None:
        """Before they are told to end; `take_the_last` then writes what has arrived."""
        with contextlib.suppress(Exception):  # the cluster may be gone
            for index, actor in actors.items():
                self._last[index] = actor.sign.remote(self.at(index))
            self._ray.wait(list(self._last.values()), num_returns=len(self._last), timeout=LOG_SECONDS)

    def take_the_last(self) -> None:
        for index, asked in self._last.items():
            with contextlib.suppress(Exception):
                if self._ray.wait([asked], timeout=0)[0]:
                    self.write(index, self._ray.get(asked).log)
