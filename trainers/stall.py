"""Says what a run waits for, where it has waited for long: what waits on what, and for how long.

waiting 62 s for a batch: 12 of 16 groups are there; 31 episodes under way: 20 in tool `search` (longest 58 s),
11 at the engine (longest 40 s); the engine has 96 slots, 31 used
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from agentgym.rollout.situation import Situation

Asked = Callable[[], Situation | None]
"""What the workers are at; None where they do not say."""
UNHEARD = "nothing is heard of it (it may be loading, or something holds up its whole process)"
SILENCE = 600.0
"""Seconds without a sign of life after which a worker is given up."""


class StallWatch:
    """Whoever waits tells it so every now and then (`waiting`); whoever knows what for sets `about`.

    `seconds`: of waiting until the first word; then after twice as long, four times, ... 0: it says nothing.
    """

    def __init__(
        self,
        seconds: float,
        note: Callable[[str], None] = lambda text: None,
        record: Callable[[Mapping[str, Any]], None] = lambda row: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.seconds = seconds
        self.about = ""
        """What is there already, as `12 of 16 groups are there`."""
        self.told = 0
        """Times that it has spoken."""
        self._note, self._record, self._clock = note, record, clock
        self._since: float | None = None
        self._next = seconds

    def over(self) -> None:
        """Something came."""
        self._since, self._next = None, self.seconds

    def waiting(self, what: str, ask: Asked) -> None:
        """Still nothing of `what`. Looks at the clock; after so long it asks, and says what it hears."""
        if not self.seconds:
            return
        now = self._clock()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited < self._next:
            return
        self._next = 2 * waited
        situation = ask()
        self.told += 1
        about = f": {self.about}" if self.about else ""
        self._note(f"waiting {waited:.0f} s for {what}{about}; {situation.told() if situation else UNHEARD}")
        self._record(
            {
                "time": time.time(),
                "waited_s": round(waited, 3),
                "for": what,
                "about": self.about,
                "situation": situation.row() if situation else None,
            }
        )


NOBODY = StallWatch(0.0)
"""Says nothing."""
