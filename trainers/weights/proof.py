"""What the learner says of its own weights, for the engines to be held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from agentgym.engines.sglang.proof import digests
from agentgym.types import WeightProof

Prover = Callable[[Mapping[str, torch.Tensor]], WeightProof]
PROBE_TOKENS = 24
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.1}
"""Nats that an engine's logprobs may be from the learner's for the same weights, by their type."""


class LearnerProof:
    """Checksums of the tensors, and the model's own logprobs of some fixed tokens."""

    def __init__(self, model: Any, *, seed: int = 0):
        self._model = model
        rng = torch.Generator().manual_seed(seed)
        vocabulary = int(model.config.get_text_config().vocab_size)
        self._ids = tuple(torch.randint(0, vocabulary, (PROBE_TOKENS,), generator=rng).tolist())

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> WeightProof:
        dtype = next(iter(tensors.values())).dtype
        return WeightProof(digests(tensors), self._ids, self._logprobs(), TOLERANCE.get(dtype, 0.2))

    @torch.no_grad()
    def _logprobs(self) -> tuple[float, ...]:
        device = next(self._model.parameters()).device
        ids = torch.tensor([self._ids], device=device)
        logits = self._model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        chosen = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return tuple(chosen.tolist())


def checksums_only(tensors: Mapping[str, torch.Tensor]) -> WeightProof:
    """Without a model at hand."""
    return WeightProof(digests(tensors))
