"""The study of credit: what it runs is a configuration, and how it sums up."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import load_config
from agentgym.rollout.worker import env_factory
from agentgym.trainers.credit import make_credit
from agentgym.trainers.credit.needs import check_needs


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("credit_study")
    for name in ("credit_study", "report", "runs"):
        sys.modules.pop(name, None)


def test_every_credit_fits_every_task(study: Any) -> None:
    for name, studied in study.TASKS.items():
        for keys in study.CREDITS.values():
            config = load_config(studied.recipe, [*studied.changes, *keys])
            make_credit(config)
            env = env_factory(config)(config.env.label)
            check_needs(config, config.env.label, env)
            kinds = {task.kind for task in env.tasks()}
            assert studied.kind in {None, *kinds}
            assert (kinds == {"two_lookups"}) == (name == "two_lookups_alone")


def test_figures_over_seeds(study: Any) -> None:
    found = study.over_seeds([0.6, 0.7, 0.8])
    assert found["mean"] == pytest.approx(0.7)
    half = 4.303 * 0.1 / 3**0.5
    assert found["interval"] == pytest.approx([0.7 - half, 0.7 + half])
    assert study.over_seeds([0.5]) == {"mean": 0.5, "interval": None, "low": 0.5, "high": 0.5}


def test_gains_are_on_the_same_seed(study: Any) -> None:
    runs = {0: {"grpo": {"after": 0.5}, "turn": {"after": 0.6}}, 1: {"grpo": {"after": 0.8}, "turn": {"after": 0.9}}}
    report = study.compared(runs)
    assert report["turn"]["less_grpo"]["interval"] == pytest.approx([0.1, 0.1])
    assert "less_grpo" not in report["grpo"]
