"""Which view of a run a console gets: live where there is a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Literal

from agentgym.protocols import Reporter
from agentgym.report.plain import PlainReporter


def make_reporter(live: Literal["auto", "on", "off"] = "auto") -> Reporter:
    """The reporter for this console. auto: live on a terminal that can do it (not TERM=dumb, not CI)."""
    if live == "on" or (live == "auto" and _is_terminal()):
        from agentgym.report.live import LiveReporter

        return LiveReporter()
    return PlainReporter()


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb") and not os.environ.get("CI")
