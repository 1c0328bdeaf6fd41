"""docs/algorithms.md is true: each block is a config that trains, each row leads to one or says it is not there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.config import Config, load_config
from agentgym.trainers.annotators import make_annotator
from agentgym.trainers.batch import Row, build_rows
from agentgym.trainers.credit import make_credit
from agentgym.trainers.learner import Learner
from agentgym.trainers.losses import NAMES, make_loss, supervised_loss
from agentgym.trainers.losses.choice import LOSSES
from agentgym.trainers.policy import Policy
from agentgym.trainers.preparation import make_preparation
from agentgym.trainers.shaping import shaped
from agentgym.trainers.warm_start import rl_options, sft_options
from agentgym.types import Group
from tests.pretended_gpu import GPU, pretended_gpu
from tests.trainers.rows import tiny

CPU = torch.device("cpu")

MakeGroup = Callable[..., Group]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "algorithms.md").read_text()
QUOTE = '"'
BLOCKS = dict(re.findall(r"^### ([\w-]+)\n(?:(?!^### ).)*?^```toml\n(.*?)^```", PAGE, re.M | re.S))


def config_of(name: str, folder: Path, settings: Sequence[str] = ()) -> Config:
    """The block's, with further `section.key = value`."""
    (folder / f"{name}.toml").write_text(BLOCKS[name])
    pairs = [setting.split(" = ", 1) for setting in settings]
    return load_config(folder / f"{name}.toml", [f"--{key}={value.strip(QUOTE)}" for key, value in pairs])


def played(config: Config, groups: Sequence[Group], learner: Learner) -> list[Row]:
    """The groups' rows, as if versions of the model a few steps ago had sampled them."""
    noted = make_annotator(config, learner, None, {})(groups)
    credit = shaped(make_credit(config), config)(noted)
    batch = build_rows(noted, credit, version=2, max_staleness=4).rows
    rng = np.random.default_rng(0)
    return [
        replace(row, logprobs=(p + 0.05 * rng.normal(size=len(p)).astype(np.float32)) * row.mask)
        for row, p in zip(batch, learner.logprobs(batch), strict=True)
    ]


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in learner.model.parameters()])


def rows_of(section: str) -> list[list[str]]:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def mapped(section: str) -> list[tuple[str, str, list[str]]]:
    """Their name, our block and the settings that the row adds to it, of each row that leads to a block."""
    links = [(theirs, re.match(r"\[`([\w-]+)`\]\(#([\w-]+)\)", ours), ours) for theirs, ours in rows_of(section)]
    return [(theirs, link[1], re.findall(r"`(\w+\.\w+ = [^`]+)`", ours)) for theirs, link, ours in links if link]


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"sft"}))
def test_each_block_trains(name: str, make_group: MakeGroup, tmp_path: Path) -> None:
    trains(name, config_of(name, tmp_path), make_group)


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"sft"}))
def test_each_block_trains_on_a_gpu(name: str, make_group: MakeGroup, tmp_path: Path) -> None:
    """One that is pretended: nothing stays behind on the CPU."""
    with pretended_gpu():
        trains(name, config_of(name, tmp_path), make_group, GPU)


@pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param(*row[1:], id=row[0]) for section in ("AReaL", "TRL") for row in mapped(section) if row[2]],
)
def test_each_row_s_settings_train(name: str, settings: list[str], make_group: MakeGroup, tmp_path: Path) -> None:
    trains("", config_of(name, tmp_path, settings), make_group)


def trains(name: str, config: Config, make_group: MakeGroup, device: torch.device = CPU) -> None:
    config.learner.lr = 1e-3
    learner = Learner(tiny(), rl_options(config), device)
    learner.hold_here()
    if config.learner.kl:
        learner.reference = Policy(tiny(seed=1).to(device))
    groups = [make_group([1.0, 0.0, 0.5, 0.0], [2, 1, 3, 2]), make_group([0.0, 1.0, 1.0, None], [3, 2, 1, 2])]
    rows, figures = make_preparation(config)(played(config, groups, learner), learner)
    before = weights(learner)
    metrics = {**learner.train(rows, make_loss(config), seed=0), **figures}
    assert learner.skipped == 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert not torch.equal(weights(learner), before)
    assert ("kl_ref" in metrics) == bool(config.learner.kl)
    if name:
        _what_it_says(name, config, metrics)


def _what_it_says(name: str, config: Config, metrics: dict[str, float]) -> None:
    """What the block is for has been done."""
    assert (config.loss.kl_in == "reward") <= (rl_options(config).kl == 0)
    assert (rl_options(config).anchor == "behaviour") == ("correction/weight" not in metrics)
    if name == "m2po":
        assert "m2_dropped" in metrics
    if name == "off-policy-mask":
        assert "off_policy_frac" in metrics
    bounded = ("icepop", "tis", "trl-vllm", "sequence-mask", "grpo-areal", "ppo", "reinforce-pp")
    assert ("correction/cut" in metrics) == (name in bounded)


def test_the_supervised_block_trains(make_group: MakeGroup, tmp_path: Path) -> None:
    config = config_of("sft", tmp_path)
    learner = Learner(tiny(), sft_options(config))
    rows = played(config, [make_group([1.0, 0.0])], learner)
    shown = [replace(row, advantages=row.mask) for row in rows]
    losses = [learner.train(shown, supervised_loss, seed=i)["loss"] for i in range(3)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("section", ["AReaL", "TRL"])
def test_each_row_leads_to_a_block_or_says_that_it_is_not_there(section: str) -> None:
    found = rows_of(section)
    assert len(found) > 15
    for theirs, ours in found:
        link = re.match(r"\[`([\w-]+)`\]\(#([\w-]+)\)", ours)
        assert ours.startswith("not there: ") or (link and link[1] == link[2] and link[1] in BLOCKS), theirs


def test_every_loss_is_listed_with_its_arguments() -> None:
    import inspect

    listed = {row[0].strip("`"): row[-1].strip("| ") for row in rows_of("Losses")}
    assert tuple(listed) == NAMES
    for name, named in LOSSES.items():
        arguments: dict[str, Any] = dict(list(inspect.signature(named.function).parameters.items())[1:])
        told = listed["grpo"] if listed[name] == "as `grpo`" else listed[name]
        assert set(arguments) <= set(re.findall(r"`(\w+)`", told)), name


def test_the_code_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    namespace: dict[str, Any] = {}
    exec(compile(block, "docs/algorithms.md", "exec"), namespace)
    from agentgym.protocols import Tokens

    one = torch.ones(1)
    losses, metrics = namespace["mine"](Tokens(one.log(), one.log(), 2 * one, one), strength=3.0)
    assert losses.tolist() == [-6.0]
    assert metrics == {"mine/ratio": 1.0}
