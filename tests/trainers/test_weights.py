"""Shared memory carries weights to another process, bit for bit."""

from __future__ import annotations

import multiprocessing as mp
import pickle
from typing import Any

import torch

from agentgym.trainers.weights.shared import SharedMemorySync
from agentgym.types import WeightUpdate


def _sums(pipe: Any) -> None:
    update: WeightUpdate = pipe.recv()
    assert update.tensors is not None
    pipe.send((update.version, {name: float(t.double().sum()) for name, t in update.tensors.items()}))


def test_another_process_reads_what_was_published() -> None:
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7, dtype=torch.bfloat16), "c": torch.tensor(2.0)}
    sync = SharedMemorySync(tensors)
    try:
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_sums, args=(theirs,))
        process.start()
        update = sync.publish(3, tensors)
        ours.send(update)
        assert len(pickle.dumps(update)) < 1000  # only the name crosses
        version, sums = ours.recv()
        process.join()
        assert version == 3
        assert sums == {name: float(t.double().sum()) for name, t in tensors.items()}
    finally:
        sync.close()
