"""Credit chosen by name, and a user's own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from agentgym.config import load_config
from agentgym.errors import ConfigError
from agentgym.trainers.credit import NAMES, make_credit
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.credit.rloo import rloo
from agentgym.types import Group
from tests.trainers.credit.builders import firsts, group, played, told


def credit_of(*keys: str, of: Group | None = None) -> list[list[float]]:
    given = of or group(told(played([0, 1]), "a"), told(played([0, 0]), "a"), played([0.5]))
    return firsts(make_credit(load_config(None, [f"--{key}" for key in keys]))([given])[0])


def test_names_and_their_settings() -> None:
    given = group(told(played([0, 1]), "a"), told(played([0, 0]), "a"), played([0.5]))
    assert credit_of() == firsts(grpo(given))
    assert credit_of("learner.std=false") == firsts(grpo(given, std=False))
    assert credit_of("trainer.credit=rloo") == firsts(rloo(given))
    discounted = credit_of("trainer.credit=turn", "credit.discount=0.5")
    assert discounted == [[0.25, 1], [-0.5, -0.5], [0.25]]
    assert credit_of("trainer.credit=gigpo", "credit.step_weight=0") == credit_of()
    early = group(played([1, 0]), played([0, 0]))
    by_batch = credit_of("trainer.credit=reinforce_pp", of=early)
    assert by_batch == [[1.73205, -0.57735], [-0.57735, -0.57735]]  # returns 1 0 0 0
    assert credit_of("trainer.credit=reinforce_pp", "credit.baseline=group", of=early) == [[1, 1], [-1, -1]]


@pytest.mark.parametrize(("name", "nearest"), [("gpro", "grpo"), ("gigpro", "gigpo"), ("turns", "turn")])
def test_an_unknown_name_is_refused_with_the_nearest_and_all(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as e:
        make_credit(load_config(None, [f"--trainer.credit={name}"]))
    text = str(e.value)
    assert f"trainer.credit = {name!r}: unknown; did you mean {nearest!r}?" in text
    assert all(known in text for known in (*NAMES, "path.py:function"))


def test_gae_without_a_value_head() -> None:
    with pytest.raises(ConfigError, match=r"needs a value head: set credit\.critic = 'head'"):
        make_credit(load_config(None, ["--trainer.credit=bilevel_gae"]))


OWN = """
import numpy as np

def by_turn(group):
    return [[turn.id + 1.0 for turn in t.turns] for t in group.trajectories]

def by_token(group):
    return [[np.arange(len(turn.completion.ids)) for turn in t.turns] for t in group.trajectories]

def over_all(groups):
    best = max(t.reward or 0.0 for g in groups for t in g.trajectories)
    return [[[(t.reward or 0.0) / best for _ in t.turns] for t in g.trajectories] for g in groups]

def too_few(group):
    return [[0.0 for _ in t.turns] for t in group.trajectories][1:]

def too_few_turns(group):
    return [[0.0 for _ in t.turns][1:] for t in group.trajectories]

def too_long(group):
    return [[np.zeros(len(turn.completion.ids) + 1) for turn in t.turns] for t in group.trajectories]

def not_finite(group):
    return [[float("nan") for _ in t.turns] for t in group.trajectories]

def words(group):
    return [["much" for _ in t.turns] for t in group.trajectories]

def nothing(group):
    return None

def raises(group):
    return group.trajectory

number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return str(file)


def test_one_s_own(own: str) -> None:
    config = load_config(None, [f"--trainer.credit={own}:by_token"])
    unscored = played([0, 0], scored=False)
    tokens = make_credit(config)([group(played([0, 1]), unscored)])[0]
    assert [row.tolist() for row in tokens[0]] == [[0, 1], [0, 1]]
    assert tokens[0][0].dtype == np.float32
    assert [row.tolist() for row in tokens[1]] == [[0, 0], [0, 0]], "nothing is owed to an episode without a score"
    assert credit_of(f"trainer.credit={own}:by_turn") == [[1, 2], [1, 2], [1]]


def test_one_s_own_over_the_batch(own: str) -> None:
    credit = make_credit(load_config(None, [f"--trainer.credit={own}:over_all"]))
    both = credit([group(played([4])), group(played([1]))])
    assert [firsts(one) for one in both] == [[[1]], [[0.25]]]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("too_few", r"too_few'.*group 0:task: 2 items for 3 trajectories"),
        ("too_few_turns", r"0:task/0: 1 items for 2 turns"),
        ("too_long", r"0:task/0, turn 0: advantages of shape \(3,\) for 2 sampled tokens"),
        ("not_finite", r"0:task/0, turn 0: an advantage is not a finite number"),
        ("words", r"0:task/0, turn 0: expected 2 numbers"),
        ("nothing", r"expected a list, one item for each of 3 trajectories, got None"),
        ("raises", r"AttributeError: .*own\.py, line \d+"),
        ("number", r"int is no function"),
        ("by_turns", r"there is no 'by_turns' in .*; did you mean 'by_turn'"),
    ],
)
def test_what_does_not_fit_is_said(own: str, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        credit_of(f"trainer.credit={own}:{name}")


def test_the_page_s_settings_are_ones() -> None:
    """Every TOML block of docs/credit.md is a configuration, and those that name a credit make one."""
    page = (Path(__file__).parents[3] / "docs" / "credit.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    named = set()
    for block in blocks:
        config = load_config(None, tomllib.loads(block))
        make_credit(config)
        named.add(config.trainer.credit)
    assert named == set(NAMES) - {"rloo"}
    assert all(f"| `{name}` |" in page for name in NAMES)
