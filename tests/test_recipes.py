"""The built-in recipes, and which one a command takes that names none."""

from __future__ import annotations

import pytest

from agentgym.config import load_config, recipe_for, recipes
from agentgym.errors import ConfigError
from agentgym.registry import spec


@pytest.mark.parametrize("name", recipes())
def test_recipes_load_and_name_a_known_env(name: str) -> None:
    for env in load_config(name).all_envs:
        assert spec(env.id)


def test_no_recipe_builds_a_tiny_model() -> None:
    assert recipe_for(None, ["env.id=mine.py:env"]) == "store"
    assert recipe_for(None, {}) == "store"
    assert recipe_for("gsm8k", ["model.path=there"]) == "gsm8k"


@pytest.mark.parametrize("overrides", [["model.path=there"], {"model": {"path": "there"}}, {"model.path": "there"}])
def test_a_model_that_is_given_is_not_overrun_by_a_tiny_models_rates(overrides: list[str] | dict[str, object]) -> None:
    config = load_config(recipe_for(None, overrides), overrides)
    assert config.sft.steps == 0
    assert config.learner.optimizer == "adamw"
    assert config.learner.lr <= 1e-5
    assert config.sft.lr <= 1e-4
    assert config.rollout.max_tokens >= 256


def test_agreement_needs_minibatches_to_compare() -> None:
    with pytest.raises(ConfigError, match=r"learner.agreement = 0.5.*set learner.minibatches to 2"):
        load_config(None, ["learner.agreement=0.5"])


def test_another_env_inherits_nothing_that_a_recipe_says_of_its_own() -> None:
    assert load_config("store").env.demo_args
    assert load_config("store", ["env.args.busy=0.2", "env.id=agentgym/Store-v0"]).env.demo_args
    given = ["env.args.size=3", "env.id=mine.py:env"]  # in either order
    for overrides in (given, given[::-1], {"env": {"id": "mine.py:env", "args": {"size": 3}}}):
        config = load_config("store", overrides)
        assert (config.env.args, config.env.demo_args) == ({"size": 3}, {})
        assert (load_config("store").learner.agreement, config.learner.agreement) == (0.5, 0.0)
        assert config.learner.lr == load_config("store").learner.lr


def test_a_loss_that_is_named_has_its_own_anchor() -> None:
    """The recipe chose one for its own."""
    assert load_config("store").loss.anchor == "loglinear"
    assert load_config("store", ["trainer.loss=dppo"]).loss.anchor == "auto"
    assert load_config("store", ["trainer.loss=dppo", "loss.anchor=linear"]).loss.anchor == "linear"
