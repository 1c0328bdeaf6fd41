"""Checkpoints are whole or not there, whatever happens while one is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.config import ModelConfig
from agentgym.errors import RunError
from agentgym.trainers.checkpoint import (
    list_checkpoints,
    load_state,
    save_checkpoint,
    write_folder,
)
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.tiny_model import build_model, build_tokenizer


@pytest.fixture
def parts() -> tuple[Learner, Any]:
    tokenizer = build_tokenizer(["a b"])
    model = build_model(len(tokenizer), ModelConfig(layers=1, width=32, heads=2), max_context=32, seed=0)
    return Learner(model, LearnerOptions()), tokenizer


def test_the_newest_are_kept_and_read_back(parts: tuple[Learner, Any], tmp_path: Path) -> None:
    learner, tokenizer = parts
    (tmp_path / "step-00000.tmp").mkdir()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, learner, tokenizer, {"tally": {"steps": step}}, keep=2)
    found = list_checkpoints(tmp_path)
    assert [path.name for path in found] == ["step-00002", "step-00003"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00002", "step-00003"]
    assert load_state(found[-1]) == {"step": 3, "tally": {"steps": 3}}
    learner.load_state(found[-1])


def test_a_kill_between_the_two_renames_leaves_the_former(parts: tuple[Learner, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, *parts, {}, keep=2)
    (tmp_path / "step-00001").rename(tmp_path / "step-00001.old")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00001.old"]


def test_half_a_checkpoint_is_none(parts: tuple[Learner, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, *parts, {}, keep=2)
    (tmp_path / "step-00001" / "state.json").unlink()
    (tmp_path / "step-00002.tmp").mkdir()
    assert list_checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        RuntimeError("write failed"),
        Exception("No space left on device (os error 28)"),
    ],
)
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, error: Exception) -> None:
    folder = tmp_path / "model"
    write_folder(folder, lambda path: (path.mkdir(), (path / "a").write_text("first"))[0])

    def fail(path: Path) -> None:
        path.mkdir()
        (path / "a").write_text("second")
        raise error

    reason = "write failed" if isinstance(error, RuntimeError) else "no disk space"
    with pytest.raises(RunError, match=f"model: cannot be written: {reason}"):
        write_folder(folder, fail)
    assert (folder / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_rename_that_fails_puts_the_former_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    folder = tmp_path / "model"
    write_folder(folder, lambda path: (path.mkdir(), (path / "a").write_text("first"))[0])
    if killed:  # between the two renames of an earlier write
        folder.rename(tmp_path / "model.old")
    real = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(source).suffix == ".tmp":
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match="earlier ones are intact"):
        write_folder(folder, lambda path: (path.mkdir(), (path / "a").write_text("second"))[0])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "a").read_text() == "first"


def test_optimizers_go_on_exactly(parts: tuple[Learner, Any], tmp_path: Path) -> None:
    learner, tokenizer = parts

    def step() -> None:
        loss = learner.model(torch.tensor([[5, 6, 7]])).logits.square().mean()
        torch.autograd.backward(loss)
        learner._update()

    step()
    saved = save_checkpoint(tmp_path, 1, learner, tokenizer, {}, keep=1)
    step()
    wanted = [p.detach().clone() for p in learner.model.parameters()]
    again = Learner(type(learner.model).from_pretrained(saved), LearnerOptions())
    again.load_state(saved)
    assert not all(torch.equal(a, b) for a, b in zip(wanted, again.model.parameters(), strict=True))
    learner = again
    step()
    assert all(torch.equal(a, b) for a, b in zip(wanted, again.model.parameters(), strict=True))
