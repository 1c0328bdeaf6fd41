"""Metrics reach the file exactly and TensorBoard as scalars."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.config import Config
from agentgym.report.metrics import MetricsWriter
from agentgym.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", Config())


def test_rows_and_scalars(folder: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(folder)
    writer.log({"eval": "before", "sampled": 0.25, "by_kind": {"calc": 0.5}}, 0)
    writer.log({"step": 1, "reward/mean": 0.5, "grad_norm": float("nan"), "who": "x", "none": None}, 1)
    writer.log({"step": 2, "reward/mean": 0.75}, 2)
    writer.close()
    assert folder.rows("metrics.jsonl") == [
        {"step": 0, "eval": "before", "sampled": 0.25, "by_kind": {"calc": 0.5}},
        {"step": 1, "reward/mean": 0.5, "grad_norm": None, "who": "x", "none": None},
        {"step": 2, "reward/mean": 0.75},
    ]
    board = EventAccumulator(str(folder.tensorboard)).Reload()
    assert {"reward/mean", "eval/before/sampled", "eval/before/by_kind/calc"} <= set(board.Tags()["scalars"])
    assert [(e.step, e.value) for e in board.Scalars("reward/mean")] == [(1, 0.5), (2, 0.75)]


def test_a_board_that_cannot_be_written_does_not_stop_the_run(folder: RunFolder) -> None:
    folder.tensorboard.write_text("in the way")
    writer = MetricsWriter(folder)
    writer.log({"reward/mean": 0.5}, 1)
    writer.log({"reward/mean": 0.6}, 2)
    writer.close()
    assert len(folder.rows("metrics.jsonl")) == 2


def test_without_tensorboard(folder: RunFolder) -> None:
    MetricsWriter(folder, tensorboard=False).log({"reward/mean": 0.5}, 1)
    assert not folder.tensorboard.exists()
