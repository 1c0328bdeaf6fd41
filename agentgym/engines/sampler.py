"""Draws one token per row by inverting the cumulative distribution at one uniform number per row.

The uniform is a hash of (seed, position), not the state of a generator: a request samples the same tokens whatever else
is in its batch, up to the rounding of the logits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

_CHUNK = 1 << 20  # logits handled at once on a CPU, so that they stay in its cache
_BLOCK = 512  # vocabularies beyond a few blocks are searched in two levels: a running sum of 150k entries is slow


def uniforms(seeds: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Numbers in (0, 1), one per row: splitmix64 of seed and position. Both inputs have shape [n]."""
    with np.errstate(over="ignore"):
        z = _mix(_mix(seeds + np.uint64(0x9E3779B97F4A7C15)) ^ (positions.astype(np.uint64) + np.uint64(1)))
    # 24 bits, centred in their bins: exactly representable in float32, never 0 and never 1
    return ((z >> np.uint64(40)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-24)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sample(
    logits: torch.Tensor, temperature: npt.NDArray[np.float32], uniform: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Tokens and their logprobs from logits [n, vocab]; temperature and uniform have shape [n].

    Temperature 0 takes the largest logit and reports its logprob at temperature 1. A row without a finite
    distribution (NaN or infinite logits) gets a logprob of NaN.
    """
    n, vocab = logits.shape
    rows = n if logits.device.type != "cpu" else max(1, _CHUNK // vocab)
    if rows >= n:
        tokens, logprobs = _sample(logits, temperature, uniform)
    else:
        cuts = [slice(i, i + rows) for i in range(0, n, rows)]
        pairs = [_sample(logits[cut], temperature[cut], uniform[cut]) for cut in cuts]
        tokens, logprobs = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
    return tokens.cpu().numpy(), logprobs.cpu().numpy()


def _sample(
    logits: torch.Tensor, temperature: npt.NDArray[np.float32], uniform: npt.NDArray[np.float32]
) -> tuple[torch.Tensor, torch.Tensor]:
    x = logits.float()
    greedy = temperature == 0
    scale = np.where(greedy, np.float32(1), temperature)
    if not (scale == 1).all():
        x = x / torch.from_numpy(scale).to(x.device).unsqueeze(1)
    top = x.amax(dim=1, keepdim=True)
    weights = (x - top).exp_()  # [n, vocab]
    tokens, total = _invert(weights, torch.from_numpy(uniform).to(x.device).unsqueeze(1))
    if greedy.any():
        rows = torch.from_numpy(greedy).to(x.device)
        tokens = torch.where(rows, x.argmax(dim=1), tokens)
    chosen = x.gather(1, tokens.unsqueeze(1)) - top
    return tokens, chosen.squeeze(1) - total.log()


def _invert(weights: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first index of each row where the running sum passes u * total; returns (index [n], total [n])."""
    n, vocab = weights.shape
    if vocab <= 4 * _BLOCK:
        sums = weights.cumsum(dim=1)
        total = sums[:, -1:]
        index = torch.searchsorted(sums, u * total, right=True)
        return index.squeeze(1).clamp_(max=vocab - 1), total.squeeze(1)
    blocks = -(-vocab // _BLOCK)
    padded = torch.nn.functional.pad(weights, (0, blocks * _BLOCK - vocab)) if vocab % _BLOCK else weights
    grid = padded.view(n, blocks, _BLOCK)
    sums = grid.sum(dim=2).cumsum(dim=1)
    total = sums[:, -1:]
    target = u * total
    block = torch.searchsorted(sums, target, right=True).clamp_(max=blocks - 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp_(min=0)), torch.zeros_like(target))
    inner = grid.gather(1, block.unsqueeze(2).expand(n, 1, _BLOCK)).squeeze(1).cumsum(dim=1)
    offset = torch.searchsorted(inner, target - before, right=True).clamp_(max=_BLOCK - 1)
    return (block * _BLOCK + offset).squeeze(1).clamp_(max=vocab - 1), total.squeeze(1)
