"""The proximal policy's logprobs without a forward pass of their own."""

from __future__ import annotations

from typing import Literal

import torch


def approximate(
    method: Literal["loglinear", "linear"],
    behaviour: torch.Tensor,
    current: torch.Tensor,
    age: torch.Tensor,
    done: float,
) -> torch.Tensor:
    """The logprobs [N] of the weights that a step began with, between those that sampled and those of now.

    A token was sampled `age` [N] versions before the step began, and `done` (0 to 1) of the step has been done since:
    at a = age / (age + done) of the way, in logarithms (AReaL's "loglinear") or in probabilities ("linear"). With
    nothing done it is `current` itself. AReaL counts the step as a whole version throughout; counting its minibatches
    makes the first of them exact.
    """
    if not done:
        return current
    along = age / (age + done)
    if method == "loglinear":
        return behaviour + along * (current - behaviour)
    return torch.logaddexp(torch.log1p(-along) + behaviour, along.log() + current)
