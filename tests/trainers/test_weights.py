"""Shared memory carries weights to another process, bit for bit."""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
from types import SimpleNamespace

import pytest
import torch

from agentgym.errors import ConfigError
from agentgym.trainers.weights.shared import PLACE, SharedMemorySync

# a text, as a function of this file could only be found where the tests are on the path
READER = """
update = pipe.recv()
pipe.send((update.version, {name: float(tensor.double().sum()) for name, tensor in update.tensors.items()}))
"""


def test_another_process_reads_what_was_published() -> None:
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7, dtype=torch.bfloat16), "c": torch.tensor(2.0)}
    sync = SharedMemorySync(tensors)
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=exec, args=(READER, {"pipe": theirs}))
    process.start()
    theirs.close()  # so that a reader that has ended is seen
    try:
        update = sync.publish(3, tensors)
        ours.send(update)
        assert len(pickle.dumps(update)) < 1000  # only the name crosses
        assert ours.recv() == (3, {name: float(t.double().sum()) for name, t in tensors.items()})
    finally:
        process.join()
        sync.close()


def test_too_little_shared_memory_is_told_before_it_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    sync = SharedMemorySync({"w": torch.zeros(1024)})  # just fits
    sync.close()
    with pytest.raises(ConfigError, match=rf"{PLACE} has 0 MiB left.*--shm-size"):
        SharedMemorySync({"w": torch.zeros(1025)})
