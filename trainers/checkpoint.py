"""Checkpoints: a folder with the model, the optimizers and the state of the run; written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.errors import RunError
from agentgym.rollout.record import read_groups, write_groups
from agentgym.trainers.learner import Learner
from agentgym.types import Group

BUFFER = "buffer.jsonl"
SCARCE = 1 << 20
"""Bytes free under which a failed write is put down to the disk."""


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:05d}"


def save_checkpoint(
    folder: Path,
    step: int,
    learner: Learner,
    tokenizer: Any,
    state: dict[str, Any],
    keep: int,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
    buffer: Sequence[Group] = (),
) -> Path:
    """Write `folder/step-NNNNN`, then remove all but the newest `keep`. The previous one stays until this is whole.

    beside: further states with tensors, by name; what is empty is left out. buffer: groups that wait to be trained.
    """
    import torch

    def fill(staging: Path) -> None:
        learner.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        learner.save_state(staging)
        for name, more in (beside or {}).items():
            if more:
                torch.save(dict(more), staging / f"{name}.pt")
        if buffer:
            (staging / BUFFER).write_bytes(write_groups(buffer))
        (staging / "state.json").write_text(json.dumps({"step": step, **state}))

    final = checkpoint_path(folder, step)
    write_folder(final, fill)
    for old in [*list_checkpoints(folder)[:-keep], *folder.glob("step-*.tmp")]:  # what a kill left half-written, too
        shutil.rmtree(old, ignore_errors=True)
    return final


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """A Hugging Face folder that AutoModelForCausalLM and AutoTokenizer load; `model` may be a learner."""

    def fill(staging: Path) -> None:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)

    write_folder(folder, fill)


def write_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a folder under a passing name, then put it in its place: whole or not at all.

    Raises `RunError`; what was there is then intact.
    """
    from safetensors import SafetensorError

    staging = final.with_name(f"{final.name}.tmp")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        fill(staging)
        replace_folder(staging, final)
    except Exception as e:  # torch.save tells a full disk by a RuntimeError, tokenizers by an Exception that is no more
        told = getattr(e, "errno", None) == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(e)
        full = told or shutil.disk_usage(final.parent).free < SCARCE
        shutil.rmtree(staging, ignore_errors=True)
        if not full and not isinstance(e, (OSError, SafetensorError, RuntimeError)):
            raise
        reason = "no disk space is left" if full else str(e)
        raise RunError(f"{final}: cannot be written: {reason}; earlier ones are intact") from None


def replace_folder(staging: Path, final: Path) -> None:
    """Put `staging` in the place of `final`; a failure or a kill in between leaves one of them whole."""
    old = final.with_name(final.name + ".old")
    if final.exists():  # else a kill has left the former one as `old`, to be kept until the new one is in place
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
    try:
        os.replace(staging, final)
    except OSError:
        if old.exists():
            os.replace(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [p for p in folder.glob("step-*") if p.name[5:].isdigit() and (p / "state.json").is_file()]
    # a kill between the two renames of replace_folder leaves the former one as `.old`
    spare = [p for p in folder.glob("step-*.old") if not p.with_suffix("").exists() and (p / "state.json").is_file()]
    return sorted(found + spare, key=lambda p: p.name)


def load_state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return state


def load_buffer(path: Path) -> list[Group]:
    """The groups that were waiting to be trained."""
    return read_groups(path / BUFFER) if (path / BUFFER).is_file() else []


def load_beside(path: Path, name: str) -> dict[str, Any]:
    """What a checkpoint holds under that name; empty where it has none."""
    import torch

    file = path / f"{name}.pt"
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True) if file.is_file() else {}
    return state
