"""Overrides beside options, and which settings a command plays with."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.arguments import config_rows, env_keys, settings, shorthand, split_overrides
from agentgym.config import Config, known_keys, load_config
from agentgym.errors import ConfigError
from agentgym.run_folder import RunFolder

OPTIONS = {"--seed", "--env", "--steps"}


@pytest.mark.parametrize(
    ("given", "left", "overrides"),
    [
        (["gsm8k", "--trainer.steps", "3"], ["gsm8k"], ["trainer.steps=3"]),
        (["--trainer.steps=3", "gsm8k"], ["gsm8k"], ["trainer.steps=3"]),
        (["--seed", "1", "--run.dir=a=b"], ["--seed", "1"], ["run.dir=a=b"]),
        (["--seed=1", "--learner.lr", "-1"], ["--seed=1"], ["learner.lr=-1"]),
        (["--run.dir="], [], ["run.dir="]),
        (["--", "--trainer.steps", "3"], ["--", "--trainer.steps", "3"], []),
        (["-h", "--help"], ["-h", "--help"], []),
    ],
)
def test_split(given: list[str], left: list[str], overrides: list[str]) -> None:
    assert split_overrides(given, OPTIONS) == (left, overrides)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--lr", "1"], "unknown option --lr; did you mean --learner.lr or --sft.lr"),
        (["--group-size=4"], "did you mean --rollout.group_size"),
        (["--sede=4"], "did you mean --seed"),
        (["--qqqqqq"], "unknown option --qqqqqq (see --help)"),
        (["--trainer.steps"], "--trainer.steps needs a value"),
        (["--eval.greedy", "--seed", "1"], "--eval.greedy needs a value"),
    ],
)
def test_split_refuses(given: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        split_overrides(given, OPTIONS)
    assert says in str(error.value)


def test_shorthand_leaves_out_what_was_not_given() -> None:
    assert shorthand({"run.seed": 0, "env.id": None, "env.data": "f.jsonl"}) == ["run.seed=0", "env.data=f.jsonl"]


def test_data_reward_and_tools_alone_are_an_env() -> None:
    assert env_keys(True, None, "f.jsonl", None, None)["env.id"] == ""
    assert env_keys(True, "E-v0", "f.jsonl", None, None)["env.id"] == "E-v0"
    assert env_keys(False, None, "f.jsonl", None, None)["env.id"] is None
    assert env_keys(True, None, None, None, None)["env.id"] is None


def chosen(model: str | None = None, env: str | None = None, *overrides: str, data: str | None = None) -> Config:
    return settings(model, None, env, data, None, None, overrides)


def test_a_model_needs_an_env() -> None:
    with pytest.raises(ConfigError, match="which environment"):
        chosen("some/model")
    assert chosen("some/model", "E-v0", "env.args.x=1").env.id == "E-v0"
    assert chosen("some/model", "E-v0", "env.args.x=1").env.args == {"x": 1}
    assert chosen("some/model", data="f.jsonl").env.id == ""


def test_a_run_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped run would else be answered with a question about environments."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no run 'runs/stroe' here; .*which environment"):
        chosen("runs/stroe")
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="other is no run folder"):
        chosen("other")
    (tmp_path / "other" / "config.json").write_text("{}")
    for model in ("other", "http://127.0.0.1:8000/v1"):
        with pytest.raises(ConfigError, match=r"^which environment"):
            chosen(model)


def test_a_run_brings_its_settings_and_env(tmp_path: Path) -> None:
    config = load_config("store", ["env.data=mine.jsonl", "engine.max_context=77"])
    run = str(RunFolder.create(tmp_path / "run", config).path)
    assert chosen(run).env == config.env
    assert chosen(run).engine.max_context == 77
    assert chosen(run, "agentgym/Store-v0").env.data == "mine.jsonl"
    assert chosen(run, "Other-v0").env.data == "", "another env does not inherit that one's data"
    assert chosen(run, "Other-v0", data="new.jsonl").env.data == "new.jsonl"
    assert chosen(run, None, "engine.max_context=99").engine.max_context == 99


def test_a_run_of_several_envs_needs_a_choice(tmp_path: Path) -> None:
    config = load_config(None, {"envs": [{"id": "A-v0", "data": "a.jsonl"}, {"id": "B-v0"}]})
    run = str(RunFolder.create(tmp_path / "run", config).path)
    with pytest.raises(ConfigError, match=r"several environments: choose by --env A-v0 \| B-v0"):
        chosen(run)
    found = chosen(run, "A-v0")
    assert (found.env.data, found.envs) == ("a.jsonl", [])


def test_every_key_is_explained() -> None:
    rows = {key: meaning for key, _, meaning in config_rows(load_config("store"))}
    assert set(rows) == {key for key in known_keys() if "." in key and not key.startswith("envs.")}
    assert all(rows.values()), [key for key, meaning in rows.items() if not meaning]
    assert rows["learner.optimizer"].endswith("(adamw | muon)")
