"""Training from Python: in a plain script, and inside a running event loop, as notebooks have it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.errors import ConfigError, ModelError, RunError
from agentgym.event_loop import outside_event_loop
from agentgym.trainers.api import sft

SMALL: dict[str, Any] = {
    "run": {"processes": 1, "live": "off"},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "sft": {"steps": 2, "examples": 16, "batch_size": 8},
    "trainer": {"steps": 1},
    "rollout": {"groups": 2, "group_size": 2, "max_tokens": 8},
    "eval": {"tasks": 2, "greedy": False},
}


def test_train_and_evaluate_inside_a_running_loop(tmp_path: Path) -> None:
    ticks: list[str] = []

    async def cell() -> tuple[dict[str, Any], dict[str, Any]]:
        asyncio.get_running_loop().call_soon(ticks.append, "the notebook's own")
        summary = ag.train(SMALL, run__dir=str(tmp_path / "run"))
        figures = ag.evaluate(str(tmp_path / "run"), tasks=3)
        assert not ticks, "its loop waits for the cell"
        await asyncio.sleep(0)
        return summary, figures

    summary, figures = asyncio.run(cell())
    assert ticks == ["the notebook's own"], "and goes on after it"
    assert (summary["steps"], summary["trajectories"], summary["sft"]["steps"]) == (1, 4, 2)
    assert figures["n"] == 3
    with pytest.raises(RunError, match="there already"):
        ag.train(SMALL, run__dir=str(tmp_path / "run"))


def test_sft_alone_keeps_to_its_steps(tmp_path: Path) -> None:
    summary = sft(SMALL, run__dir=str(tmp_path / "run"))
    assert (summary["sft"]["steps"], summary["steps"], summary["trajectories"]) == (2, 0, 0)
    with pytest.raises(ConfigError, match=r"sft\.steps = 0"):
        sft(SMALL, sft__steps=0)


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ModelError, match="there is no such folder"):
        ag.train(SMALL, model__path=str(tmp_path / "none"), run__dir=str(folder))
    assert not folder.exists()


def test_the_outer_loop_is_given_back_whatever_happens() -> None:
    @outside_event_loop()
    def fail() -> None:
        asyncio.run(asyncio.sleep(0))
        raise ZeroDivisionError

    async def cell() -> None:
        outer = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            fail()
        assert asyncio.get_running_loop() is outer

    asyncio.run(cell())
