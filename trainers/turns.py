"""Engine and learner in turn on one GPU: never both on it at once, whatever fails.

    generate -> engine.release_memory -> learner.onload -> learner's step
             -> learner.offload -> engine.resume_memory -> weight sync -> generate

Where each has GPUs of its own there is nothing to take turns at (`Apart`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

import torch

from agentgym.errors import RunError

Holder = Literal["engine", "learner", "nobody", "unknown"]
"""Whose memory is on the GPU; unknown where one of the two has failed to give or take it."""


class EngineMemory(Protocol):
    """An engine's, that can be given back while it plays nothing. What it has then is not kept: new weights have to
    follow when it is resumed."""

    def release_memory(self) -> None: ...

    def resume_memory(self) -> None: ...


class LearnerMemory(Protocol):
    """A learner's, that can be moved to the machine's and back."""

    def offload(self) -> None: ...

    def onload(self) -> None: ...


class Apart:
    """Engine and learner have memory of their own."""

    def learn(self) -> None:
        """The learner's turn begins, or goes on."""

    def play(self, sync: Callable[[], None]) -> None:
        """The engine's turn begins, with weights that `sync` brings it."""
        sync()

    def begin(self, start: Callable[[], EngineMemory | None]) -> None:
        """Start the engine, which takes its memory; then it is its turn."""
        start()

    def carried(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The learner's weights, so that they are there in the engine's turn."""
        return tensors


class Alternating(Apart):
    """Engine and learner share one GPU. It begins with the learner on it, and no engine.

    Each move is made whole or is the last: where one of the two fails to give or take its memory nobody knows what is
    on the GPU, and nothing is moved any more. A step of the learner that fails leaves the engine's memory released.
    """

    def __init__(self, learner: LearnerMemory):
        self._learner = learner
        self._engine: EngineMemory | None = None
        self._failed = ""
        self.holder: Holder = "learner"

    def learn(self) -> None:
        self._check()
        if self.holder == "engine":
            assert self._engine is not None
            with self._moving("the engine's memory could not be released"):
                self._engine.release_memory()
        if self.holder == "nobody":
            with self._moving("the learner could not be put on the GPU", "learner"):
                self._learner.onload()

    def play(self, sync: Callable[[], None]) -> None:
        self._check()
        assert self._engine is not None, "begin() comes first"
        self._vacate()
        if self.holder == "nobody":
            with self._moving("the engine's memory could not be resumed", "engine"):
                self._engine.resume_memory()
                sync()  # until then there is nothing in it to play with
            return
        sync()

    def begin(self, start: Callable[[], EngineMemory | None]) -> None:
        self._check()
        self._vacate()
        with self._moving("the engine could not be started", "engine"):
            self._engine = start()

    def carried(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return {name: tensor.detach().to("cpu") for name, tensor in tensors.items()}

    def _vacate(self) -> None:
        if self.holder == "learner":
            with self._moving("the learner could not be taken off the GPU"):
                self._learner.offload()

    @contextlib.contextmanager
    def _moving(self, what: str, to: Holder = "nobody") -> Iterator[None]:
        self.holder = "unknown"
        try:
            yield
        except BaseException as e:
            self._failed = f"{what}: {type(e).__name__}: {e}"
            raise
        self.holder = to

    def _check(self) -> None:
        if self.holder == "unknown":
            raise RunError(f"engine and learner can no longer take turns on their GPU ({self._failed}); use --resume")
