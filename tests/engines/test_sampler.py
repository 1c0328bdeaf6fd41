"""Sampling by inversion: the right distribution, the right logprob, at small and large vocabularies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.engines.sampler import sample, uniforms


def draw(logits: torch.Tensor, temperature: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(u)
    return sample(logits.expand(n, -1), np.full(n, temperature, np.float32), u.astype(np.float32))


@settings(max_examples=40)
@given(st.integers(2, 5000), st.integers(0, 2**31), st.sampled_from([0.3, 1.0, 2.0]))
def test_inverts_the_cumulative_distribution(vocab: int, seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocab, generator=generator) * 3
    u = torch.rand(16, generator=generator).clamp(1e-6, 1 - 1e-6)
    tokens, logprobs = draw(logits, temperature, u.numpy())
    log_p = (logits.double() / temperature).log_softmax(-1)
    upper = log_p.exp().cumsum(-1)
    lower = upper - log_p.exp()
    picked = torch.from_numpy(tokens)
    # u lies inside the token's interval, up to float32 sums
    assert (lower[picked] - 1e-5 <= u).all()
    assert (u <= upper[picked] + 1e-5).all()
    np.testing.assert_allclose(logprobs, log_p[picked], atol=1e-5)


@pytest.mark.parametrize("vocab", [50, 150_000])
def test_frequencies_are_the_probabilities(vocab: int) -> None:
    logits = torch.full((vocab,), -30.0)
    support = torch.linspace(0, vocab - 1, 8).long()
    logits[support] = torch.arange(8) * 0.4
    n = 4000 if vocab == 50 else 400
    u = uniforms(np.full(n, 3, np.uint64), np.arange(n))
    tokens = np.concatenate([draw(logits, 1.0, part)[0] for part in np.array_split(u, 8)])
    expected = logits.softmax(-1)[support].numpy()
    observed = np.array([(tokens == int(t)).mean() for t in support])
    assert np.abs(observed - expected).max() < 4 * np.sqrt(0.25 / n)


def test_impossible_tokens_are_never_sampled() -> None:
    for vocab in (10, 5000):
        logits = torch.full((vocab,), float("-inf"))
        logits[7] = 0.0
        tokens, logprobs = draw(logits, 1.0, np.array([1e-7, 0.5, 1 - 1e-7]))
        assert tokens.tolist() == [7, 7, 7]
        assert logprobs.tolist() == [0, 0, 0]


def test_greedy_rows_stand_beside_sampled_ones() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]]).repeat(3, 1)
    tokens, logprobs = sample(logits, np.array([0.0, 1.0, 0.5], np.float32), np.full(3, 0.999, np.float32))
    assert tokens.tolist() == [1, 2, 2]
    assert logprobs[0] == pytest.approx(float(logits[0].log_softmax(-1)[1]), abs=1e-6)


def test_rows_that_are_no_distribution_are_marked() -> None:
    for bad in (float("nan"), float("inf")):
        _, logprobs = draw(torch.tensor([0.0, bad, 1.0]), 1.0, np.array([0.5]))
        assert np.isnan(logprobs).all()


def test_uniforms_depend_on_seed_and_position_alone() -> None:
    seeds = np.array([0, 0, 1, 2**64 - 1], np.uint64)
    u = uniforms(seeds, np.array([0, 1, 0, 5]))
    assert len(set(u.tolist())) == 4
    assert u[2] == uniforms(seeds[2:3], np.array([0]))[0]
    many = uniforms(np.repeat(np.arange(100, dtype=np.uint64), 100), np.tile(np.arange(100), 100))
    assert many.min() > 0
    assert many.max() < 1
    counts = np.histogram(many, bins=20, range=(0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001
