"""From Python too, a run's own lines are all that it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RUN = """
import sys
import agentgym as ag

ag.train(
    run={"dir": sys.argv[1], "live": "off", "processes": 1},
    model={"layers": 1, "width": 16},
    sft={"steps": 1, "examples": 8},
    trainer__steps=1,
    rollout={"groups": 1, "group_size": 2, "max_tokens": 4, "max_turns": 1, "max_staleness": 0},
    eval__tasks=0,
)
ag.evaluate(sys.argv[1], tasks=1)
"""


def test_no_librarys_bars_among_a_runs_lines(tmp_path: Path) -> None:
    """In a process of its own: a library reads once, when it is loaded, whether it may draw bars."""
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    line = [sys.executable, "-c", RUN, str(tmp_path / "run")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert "it/s]" not in done.stderr + done.stdout
