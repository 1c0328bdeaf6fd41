"""The reporters: plain lines for pipes, and a live view that fits any terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agentgym.protocols import Reporter
from agentgym.report.console import make_reporter
from agentgym.report.frame import View, draw, resample
from agentgym.report.live import LiveReporter
from agentgym.report.plain import PlainReporter
from agentgym.report.progress import Progress, duration, figure
from agentgym.types import Completion, Message, Outcome, StopReason, ToolCall, Trajectory, Turn


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def episode(reward: float | None = 1.0) -> Trajectory:
    none = np.array([], np.int32)
    sampled = Completion(none, np.array([], np.float32), none)
    call = Message("assistant", tool_calls=(ToolCall("c", "lookup", {"item": "pear"}),))
    turns = (
        Turn(0, None, none, sampled, call, (Message("tool", "42"),)),
        Turn(1, 0, none, sampled, Message("assistant", "42 it is")),
    )
    prompt = (Message("system", "be good"), Message("user", "What is a pear?"))
    outcome = Outcome.unscored if reward is None else Outcome.correct
    stop = StopReason.fault if reward is None else StopReason.completed
    error = "env_error: boom" if reward is None else None
    return Trajectory("t", "k", "E-v0", turns, prompt, reward, {}, outcome, stop, "calc", error=error)


ROW = {"trajectories": 256, "reward/mean": 0.5, "success": 0.5, "success/calc": 0.75, "success/after_busy": 0.25}


def run(reporter: Reporter, clock: Clock) -> None:
    """A run of 100 seconds."""
    reporter.stage("build model")
    clock.now += 4
    reporter.note("0.54 M parameters")
    reporter.stage("train", 50, "steps")
    for step in range(1, 25):
        clock.now += 4
        reporter.metrics({**ROW, "reward/mean": step / 50}, step)
        reporter.episode(episode())
        reporter.advance(step, reward=step / 50, loss=-0.012)


def test_plain_lines() -> None:
    out, clock = io.StringIO(), Clock()
    reporter = PlainReporter(out, clock)
    run(reporter, clock)
    reporter.result("trained", {"after": {"sampled": 0.95}, "env": "E-v0", "gap": 1.2e-6, "none": None})
    reporter.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "[  0.0s] build model"
    assert lines[1] == "[  4.0s]   0.54 M parameters"
    assert lines[2] == "[  4.0s] train: 50 steps"
    assert lines[3] == (
        "[   12s] train 2/50 steps · reward 0.04 · loss -0.012 · calc 0.75 · after_busy 0.25 · 64 trajectories/s"
        " · 3m12s to go"
    )
    assert len([line for line in lines if " to go" in line]) == 12, "a line of progress each 5 s, here each second step"
    assert lines[-6].endswith("· took 1m36s")
    assert lines[-5:] == [
        "trained",
        "  after.sampled  0.95",
        "  env            E-v0",
        "  gap            1.2e-06",
        "  none           -",
    ]


def test_plain_reporter_outlives_its_reader() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    clock = Clock()
    reporter = PlainReporter(Gone(), clock)
    run(reporter, clock)
    reporter.close()


def frame(progress: Progress, width: int, height: int, shown: Trajectory | None) -> list[str]:
    return draw(View(progress, shown, width, height)).plain.splitlines()


def trained(clock: Clock, rewards: Mapping[int, float]) -> Progress:
    progress = Progress(clock)
    progress.begin("build model", None, "")
    clock.now += 4
    progress.begin("train", 50, "steps")
    for step, reward in rewards.items():
        clock.now += 4
        progress.metrics({**ROW, "reward/mean": reward}, step)
        progress.advance(step, {"reward": reward})
    return progress


def test_live_frame_shows_stage_curve_kinds_and_episode() -> None:
    progress = trained(Clock(), {step: step / 50 for step in range(1, 26)})
    lines = frame(progress, 100, 35, episode())
    text = "\n".join(lines)
    assert lines[0].startswith("✓ build model        4.0s")
    assert "25/50 steps  1m40s to go" in lines[1]
    assert "speed 64 trajectories/s" in lines[2]
    assert "reward 0.50 (step 25)" in text
    assert re.search(r"calc       ━{13}┄{4} 0\.75", text)
    assert "calls  lookup(item='pear')" in text
    assert "end    reward 1.00 · correct" in text
    assert "be good" not in text


def test_live_frame_of_an_unscored_episode() -> None:
    lines = frame(trained(Clock(), {1: 0.5}), 100, 35, episode(None))
    assert "end    unscored: env_error: boom" in lines


@given(st.integers(10, 200), st.integers(2, 60), st.dictionaries(st.integers(1, 300), st.floats(-5, 5), max_size=30))
@settings(max_examples=60)
def test_live_frame_fits_every_terminal(width: int, height: int, rewards: dict[int, float]) -> None:
    progress = trained(Clock(), dict(sorted(rewards.items())))
    lines = frame(progress, width, height, episode())
    assert len(lines) < max(height, 4)
    assert max(map(len, lines)) <= max(width, 20)


def test_curve_of_a_resumed_run_stands_at_its_steps() -> None:
    progress = trained(Clock(), {26: 1.0, 27: 0.5})
    assert progress.rewards == [*[None] * 25, 1.0, 0.5]
    columns = resample(progress.rewards, 50, 50)
    assert columns[:25] == [None] * 25
    assert columns[25:28] == [1.0, 0.5, None]
    assert progress.current is not None
    assert progress.current.eta(progress.now()) == pytest.approx(8 * 23 / 2)


def test_live_reporter_draws_and_gives_the_terminal_back() -> None:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=True, width=100, height=35, color_system=None)
    reporter = LiveReporter(console, clock, period=0.01)
    run(reporter, clock)
    reporter.result("trained", {"sampled": 0.95})
    reporter.close()
    reporter.close()
    text = out.getvalue()
    assert "0.54 M parameters" in text
    assert "24/50 steps" in text
    assert text.rstrip().endswith("sampled  0.95")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"


SCRIPT = "from agentgym.report.console import make_reporter; print(type(make_reporter('{}')).__name__)"


def printed_on_a_terminal(live: str, **env: str) -> str:
    master, slave = pty.openpty()
    environ: dict[str, Any] = {k: v for k, v in os.environ.items() if k not in ("CI", "TERM")}
    subprocess.run([sys.executable, "-c", SCRIPT.format(live)], stdout=slave, env={**environ, **env}, check=True)
    os.close(slave)
    return os.read(master, 10_000).decode()


def test_auto_is_live_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(make_reporter("auto"), PlainReporter)  # pytest's stdout is no terminal
    assert "LiveReporter" in printed_on_a_terminal("auto", TERM="xterm")
    assert "PlainReporter" in printed_on_a_terminal("auto", TERM="dumb")
    assert "PlainReporter" in printed_on_a_terminal("off", TERM="xterm")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (9.94, "9.9s"), (59.4, "59s"), (75, "1m15s"), (3660, "1h01m")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.50"),
        (0.1234, "0.123"),
        (12345, "12,345"),
        (12345.6, "12,346"),
        (3e-7, "3e-07"),
        (None, "-"),
        ("x", "x"),
    ],
)
def test_figure(value: object, text: str) -> None:
    assert figure(value) == text
