"""Which loss a config asks for, and what is said where it cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.config import dump_toml, load_config
from agentgym.errors import ConfigError
from agentgym.protocols import Tokens
from agentgym.trainers.losses import NAMES, choose, make_loss
from agentgym.trainers.losses.correction import Corrected, OffPolicyMask
from agentgym.trainers.warm_start import rl_options


def tokens(*ratio: float) -> Tokens:
    logprobs = torch.tensor(ratio).log()
    zeros, ones = torch.zeros_like(logprobs), torch.ones_like(logprobs)
    return Tokens(logprobs, zeros, ones, ones, torch.zeros(len(ratio), dtype=torch.long), 1, zeros)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_makes_a_loss_and_its_config_survives_a_file(name: str, tmp_path: Path) -> None:
    config = load_config(None, [f"trainer.loss={name}"])
    losses, metrics = make_loss(config)(tokens(1.1, 0.9))
    assert losses.shape == (2,)
    assert {"clip_frac", "kl_old", "is_ratio/max"} <= set(metrics)
    (tmp_path / "config.toml").write_text(dump_toml(config))
    assert load_config(tmp_path / "config.toml") == config
    assert rl_options(config).aggregate == choose(config).aggregate


def test_an_unknown_name_names_the_nearest_and_all() -> None:
    with pytest.raises(
        ConfigError, match=r"trainer\.loss = 'grop': unknown; did you mean 'grpo'\?; known: grpo, .*gspo"
    ):
        make_loss(load_config(None, ["trainer.loss=grop"]))


def test_the_learners_range_is_the_clip_losses_own() -> None:
    asked = ["learner.clip_low=0.1", "learner.clip_high=0.5"]
    for name in ("grpo", "tis"):
        losses, _ = make_loss(load_config(None, [f"trainer.loss={name}", *asked]))(tokens(2.0))
        assert losses.tolist() == pytest.approx([-1.5])
    losses, _ = make_loss(load_config(None, ["trainer.loss=gspo", *asked]))(tokens(2.0))
    assert losses.tolist() == pytest.approx([-1.0004]), "a range of sequences is of another kind"


def test_arguments() -> None:
    config = load_config(None, {"trainer.loss": "gspo", "loss.args": {"clip_high": 0.5}})
    assert make_loss(config)(tokens(2.0))[0].tolist() == pytest.approx([-1.5])
    assert choose(load_config(None, {"trainer.loss": "m2po", "loss.args": {"threshold": 0.1}})).second_moment == 0.1
    with pytest.raises(
        ConfigError, match=r"'gspo' has no argument 'clip_hi'; did you mean 'clip_high'\?; it has: clip_low"
    ):
        choose(load_config(None, {"trainer.loss": "gspo", "loss.args": {"clip_hi": 0.5}}))
    with pytest.raises(ConfigError, match="'reinforce' has no argument 'tau'; it has none"):
        choose(load_config(None, {"trainer.loss": "reinforce", "loss.args": {"tau": 1}}))


def test_corrections() -> None:
    def loss(*asked: str) -> Any:
        return make_loss(load_config(None, asked))

    for name, kind, low, high in (("decoupled", "full", 0, 2), ("tis", "truncate", 0, 2), ("icepop", "mask", 0.5, 5)):
        found = loss(f"trainer.loss={name}")
        assert (found.kind, found.low, found.high) == (kind, low, high)
    assert loss("loss.anchor=loglinear").kind == "full", "another anchor is not had without its weight by accident"
    assert loss("loss.anchor=loglinear", "loss.correction=none").kind == "none"
    assert not isinstance(loss("trainer.loss=tis", "loss.anchor=behaviour", "loss.correction=none"), Corrected)
    assert isinstance(loss("loss.off_policy_mask=0.5"), OffPolicyMask)
    with pytest.raises(ConfigError, match=r"nothing to correct.*set loss\.anchor"):
        loss("loss.correction=mask")
    with pytest.raises(ConfigError, match=r"loss.correction_low = 3.0: must be below loss.correction_high = 2.0"):
        loss("trainer.loss=tis", "loss.correction_low=3")


def test_the_length_is_that_of_an_episode_where_none_is_given() -> None:
    assert choose(load_config(None, ["rollout.max_tokens=77"])).length == 77
    assert choose(load_config(None, ["rollout.max_tokens=77", "rollout.max_episode_tokens=900"])).length == 900
    assert choose(load_config(None, ["rollout.max_tokens=77", "loss.length=5"])).length == 5


def test_estimators_of_the_distance() -> None:
    assert choose(load_config(None)).kl_estimator == "k2"
    assert choose(load_config(None, ["loss.kl_in=reward"])).kl_estimator == "k1"
    wrong = ["learner.kl=0.1", "loss.kl_estimator=k1"]
    with pytest.raises(ConfigError, match="its gradient is 0 on average; take k2"):
        choose(load_config(None, wrong))
    assert choose(load_config(None, [*wrong, "loss.kl_correct=true"])).kl_estimator == "k1"
    assert rl_options(load_config(None, ["learner.kl=0.1"])).kl == 0.1
    assert rl_options(load_config(None, ["learner.kl=0.1", "loss.kl_in=reward"])).kl == 0, "it is in the advantages"


MINE = """
def mine(tokens, *, strength=1.0):
    return -strength * tokens.logprobs * tokens.advantages * tokens.mask, {"seen": float(tokens.mask.sum())}

def summed(tokens):
    return mine(tokens)[0].sum(), {}

def bare(tokens):
    return mine(tokens)[0]

def broken(tokens):
    return tokens.logprob, {}

constant = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my_loss.py"
    path.write_text(MINE)
    return path


def test_a_loss_of_ones_own(mine: Path) -> None:
    config = load_config(None, {"trainer.loss": f"{mine}:mine", "loss.args": {"strength": 2.0}})
    losses, metrics = make_loss(config)(tokens(1.0, 2.0))
    assert losses.tolist() == pytest.approx([0.0, -2 * 0.6931472])
    assert metrics == {"seen": 2.0}
    anchored = make_loss(load_config(None, {"trainer.loss": f"{mine}:mine", "loss.anchor": "recompute"}))
    assert isinstance(anchored, Corrected)
    assert choose(config).aggregate == "token"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("summed", r"must return the loss of each token, \[2\]; got shape \[\]"),
        ("bare", r"must return \(losses, metrics\), got Tensor"),
        ("broken", r"AttributeError: .*logprob.*my_loss.py, line 12"),
    ],
)
def test_what_a_loss_of_ones_own_does_wrong_is_named(mine: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.loss = .*:{name}'.*{said}"):
        make_loss(load_config(None, [f"trainer.loss={mine}:{name}"]))(tokens(1.0, 2.0))


def test_a_loss_that_is_not_there(mine: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no 'mein'.*did you mean 'mine'"):
        make_loss(load_config(None, [f"trainer.loss={mine}:mein"]))
    with pytest.raises(ConfigError, match=r"constant': not a function"):
        make_loss(load_config(None, [f"trainer.loss={mine}:constant"]))
