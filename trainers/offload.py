"""A learner's tensors to another device and back: weights, the reference, what the optimizers keep."""

from __future__ import annotations

import torch

from agentgym.trainers.learner import Learner


def move(learner: Learner, device: torch.device) -> None:
    """Between steps: there are no gradients. What is left on the GPU is CUDA's own."""
    learner.agreement.begin_batch()  # a gradient of the batch before, which nothing is compared with any more
    learner.policy.to(device)
    if learner.reference is not None:
        learner.reference.to(device)
    for optimizer in learner.optimizers:
        for state in optimizer.state.values():
            for key, value in state.items():
                if torch.is_tensor(value) and value.dim():  # counts of steps stay where they are
                    state[key] = value.to(device)
    if learner.device.type == "cuda":
        torch.cuda.empty_cache()  # else torch keeps for itself what it has given back
