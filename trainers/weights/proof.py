"""What the learner says of its own weights, for the engines to be held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from agentgym.engines.sglang.proof import digests
from agentgym.trainers.learner import Learner
from agentgym.weights import WeightProof

Prover = Callable[[Mapping[str, torch.Tensor]], WeightProof]
PROBE_TOKENS = 24
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.1}
"""Nats that an engine's logprobs may be from the learner's for the same weights, by their type."""


class LearnerProof:
    """Checksums of the tensors, and the model's own logprobs of some fixed tokens."""

    def __init__(self, learner: Learner, *, seed: int = 0):
        self._learner = learner
        rng = torch.Generator().manual_seed(seed)
        vocabulary = int(learner.model.config.get_text_config().vocab_size)
        self._ids = tuple(torch.randint(0, vocabulary, (PROBE_TOKENS,), generator=rng).tolist())

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> WeightProof:
        dtype = next(iter(tensors.values())).dtype
        return WeightProof(digests(tensors), self._ids, self._learner.follow(self._ids), TOLERANCE.get(dtype, 0.2))


def checksums_only(tensors: Mapping[str, torch.Tensor]) -> WeightProof:
    """Without a model at hand."""
    return WeightProof(digests(tensors))
