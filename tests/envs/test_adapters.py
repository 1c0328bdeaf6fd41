"""reasoning-gym's generators as environments: only full marks are paid, and no answer is run as code."""

from __future__ import annotations

import time

import pytest

import agentgym as ag
from agentgym.adapters import reasoning_gym_names
from agentgym.envs.adapters.expressions import harmless
from agentgym.envs.adapters.reasoning_gym import final_answer
from agentgym.errors import ConfigError
from agentgym.protocols import Step
from agentgym.registry import adapter_ids, env_ids

installed = pytest.mark.skipif(
    not reasoning_gym_names(), reason="reasoning-gym is not installed: pip install 'agentgym-train[adapters]'"
)
SAFE = [
    "-12",
    "[1, 2, 3]",
    "[['a', 'b'], ['c']]",
    "(3 + 4) * 2",
    "x**2 + 3*x + 1",
    "2*sin(x) - exp(3*x)",
    "3^4",
    "abc",
    "R B, G",
]
UNSAFE = [
    "__import__('os').system('id')",
    "exec('1')",
    "().__class__",
    "[x for x in (1,)]",
    "(lambda: 1)()",
    "9**9**9",
    "x**(10**9)",
    "10**33",
    "(2**31)**31",
    "open('f')",
    "f'{1}'",
    "9" * 3000,
    "5!!!!",
]


@pytest.mark.parametrize("text", SAFE)
def test_what_only_computes_is_harmless(text: str) -> None:
    assert harmless(text)


@pytest.mark.parametrize("text", UNSAFE)
def test_what_may_do_more_is_not(text: str) -> None:
    assert not harmless(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("so <answer> 4 </answer>.", "4"),
        ("<answer>1</answer> or <answer>2</answer>", "2"),
        ("4", None),
        ("<answer></answer>", None),
        ("<answer>4", None),
        ("</answer>4<answer>", None),
        (f"<answer>{'1' * 30_000}</answer>", None),
    ],
)
def test_only_the_last_answer_counts(text: str, said: str | None) -> None:
    assert final_answer(text) == said


def answered(env_id: str, text: str, **args: object) -> Step:
    env = ag.make_env(env_id, args={"size": 6, **args})
    env._drive(env.areset(seed=0, options={"index": 0}))  # type: ignore[attr-defined]
    step: Step = env._drive(env.astep(ag.say(text)))  # type: ignore[attr-defined]
    return step


@pytest.mark.adapters
@installed
def test_every_generator_has_an_id() -> None:
    assert len(adapter_ids()) >= 95
    assert "agentgym/reasoning_gym.chain_sum-v0" in adapter_ids()
    assert not set(adapter_ids()) & set(env_ids())


@pytest.mark.adapters
@installed
def test_only_full_marks_are_paid() -> None:
    env = ag.make_env("agentgym/reasoning_gym.chain_sum-v0", args={"size": 6})
    gold = env.tasks()[0].answer
    assert answered("agentgym/reasoning_gym.chain_sum-v0", f"<answer>{gold}</answer>").reward == 1
    near = answered("agentgym/reasoning_gym.chain_sum-v0", f"<answer>The answer is {gold}</answer>")
    assert near.reward == 0
    assert answered("agentgym/reasoning_gym.chain_sum-v0", str(gold)).components == {
        "reward": 0,
        "score": 0,
        "answered": 0,
    }


@pytest.mark.adapters
@installed
@pytest.mark.parametrize("name", ["game_of_life_halting", "prime_factorization", "n_queens", "countdown"])
@pytest.mark.parametrize("text", ["garbage", "False", *UNSAFE[:8]])
def test_garbage_is_paid_nothing(name: str, text: str) -> None:
    env_id = f"agentgym/reasoning_gym.{name}-v0"
    gold = ag.make_env(env_id, args={"size": 6}).tasks()[0].answer
    step = answered(env_id, f"<answer>{text}</answer>")
    assert step.reward == float(text == str(gold))


@pytest.mark.adapters
@installed
def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="no generator 'nonsense'"):
        ag.make_env("agentgym/reasoning_gym.chain_sum-v0", args={"name": "nonsense"}).tasks()
    with pytest.raises(ConfigError, match="chain_sum: config = "):
        ag.make_env("agentgym/reasoning_gym.chain_sum-v0", args={"config": {"nonsense": 1}}).tasks()
    with pytest.raises(ConfigError, match="size = 1: must be 2 or more"):
        ag.make_env("agentgym/reasoning_gym.chain_sum-v0", args={"size": 1})


@pytest.mark.adapters
@installed
@pytest.mark.timeout(600)
def test_todays_tenth_passes_validation() -> None:
    from agentgym.envs.validate import validate

    for env_id in adapter_ids()[int(time.time() // 86_400) % 10 :: 10]:
        report = validate(env_id, tasks=6, args={"size": 8})
        assert report.ok, report.told()


@pytest.mark.adapters
@installed
def test_the_numbers_of_a_puzzle_have_to_be_those_that_were_given() -> None:
    env_id = "agentgym/reasoning_gym.puzzle24-v0"
    gold = ag.make_env(env_id, args={"size": 6}).tasks()[0]
    assert answered(env_id, f"<answer>{gold.answer}</answer>").reward == 1
    others = "6*4*1*1" if sorted(gold.metadata["entry"]["metadata"]["numbers"]) != [1, 1, 4, 6] else "8*3*1*1"
    assert answered(env_id, f"<answer>{others}</answer>").reward == 0
