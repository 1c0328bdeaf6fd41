"""How commands meet the terminal: a view of the run, and a clean word when something ends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from agentgym.config import Config
from agentgym.errors import UserError
from agentgym.protocols import Reporter
from agentgym.report.console import make_reporter
from agentgym.report.plain import PlainReporter


@contextmanager
def mendable() -> Iterator[None]:
    """What the user can mend is said in a sentence; what is our defect keeps its traceback."""
    try:
        yield
    except UserError as e:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(e)), soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt as e:
        Console(stderr=True).print(Text(f"interrupted{f': {e}' if str(e) else ''}"), soft_wrap=True)
        sys.exit(130)


def quiet_libraries() -> None:
    """Their bars would write across the view; HF_HUB_DISABLE_PROGRESS_BARS=0 brings them back."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def reporting(config: Config, title: str, quiet: bool = False) -> Iterator[Reporter]:
    """A reporter that says something at once and gives the terminal back whatever happens; quiet: on stderr."""
    quiet_libraries()
    reporter = PlainReporter(sys.stderr) if quiet else make_reporter(config.run.live)
    try:
        reporter.note(title)
        reporter.stage("load libraries")
        yield reporter
    finally:
        reporter.close()


@contextmanager
def resumable(path: str) -> Iterator[None]:
    """An interrupt says how to go on with the run in `path`."""
    try:
        yield
    except KeyboardInterrupt:
        begun = (Path(path) / "config.toml").is_file()
        raise KeyboardInterrupt(f"go on with agentgym train --resume {path}" if begun else "") from None
