"""The probe of the logprob gap sees what it is for."""

from __future__ import annotations

import numpy as np
import torch

from agentgym.config import ModelConfig
from agentgym.trainers.batch import Row
from agentgym.trainers.gap import GapProbe
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.tiny_model import build_model


def rows_of(learner: Learner, version: int) -> list[Row]:
    """Rows whose logprobs are exactly the learner's present ones."""
    rng = np.random.default_rng(version)
    made = []
    for length in (9, 14):
        ids, mask = rng.integers(0, 40, length).astype(np.int32), np.ones(length, np.float32)
        mask[:3] = 0
        zeros = np.zeros(length, np.float32)
        row = Row(ids, mask, zeros, zeros, np.full(length, version, np.int32))
        (logprobs,) = learner.logprobs([row])
        made.append(Row(ids, mask, logprobs, zeros, row.versions))
    return made


def test_each_version_is_compared_with_its_own_weights() -> None:
    model = build_model(40, ModelConfig(layers=1, width=32, heads=2), max_context=32, seed=0)
    learner = Learner(model, LearnerOptions())
    probe = GapProbe(learner, keep=2)
    tensors = dict(model.named_parameters())
    probe.published(0, tensors)
    old = rows_of(learner, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    probe.published(1, tensors)
    new = rows_of(learner, 1)
    gap = probe.check([*old, *new])
    assert gap is not None
    assert gap < 1e-5
    # the same rows under the wrong version: what an engine with weights that never arrived would look like
    stale = [Row(r.ids, r.mask, r.logprobs, r.advantages, np.ones_like(r.versions)) for r in old]
    gap = probe.check(stale)
    assert gap is not None
    assert gap > 1e-2
    assert probe.largest > 1e-2


def test_versions_beyond_the_bound_are_forgotten() -> None:
    model = build_model(40, ModelConfig(layers=1, width=32, heads=2), max_context=32, seed=0)
    learner = Learner(model, LearnerOptions())
    probe = GapProbe(learner, keep=1)
    old = rows_of(learner, 0)
    for version in (0, 1):
        probe.published(version, dict(model.named_parameters()))
    assert probe.check(old) is None, "not measured"
    assert probe.tokens == 0
