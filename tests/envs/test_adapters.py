"""reasoning-gym's generators as environments: only full marks are paid, and no answer is run as code."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import agentgym as ag
from agentgym.adapters import reasoning_gym_names
from agentgym.envs.adapters.expressions import plain_data, small_arithmetic
from agentgym.envs.adapters.reasoning_gym import _guards, final_answer
from agentgym.errors import ConfigError
from agentgym.protocols import Step
from agentgym.registry import adapter_ids, env_ids

installed = pytest.mark.skipif(
    not reasoning_gym_names(), reason="reasoning-gym is not installed: pip install 'agentgym-train[adapters]'"
)
DATA = [
    "-12",
    "[1, -2, 3.5]",
    "[['a', 'b'], ['c']]",
    "{'a': (1, 2)}",
    "R B, G",
    "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _",
    "(P \u2192 Q)",
    "9" * 1900,
]
ARITHMETIC = [
    "-12",
    "(3 + 4) * 2",
    "x**2 + 3*x + 1",
    "2*sin(x) - exp(3*x)",
    "-4*(-2*x - 8)**(3/2)/3 + C",
    "(x**2 + 1)**3 / 6 + x**0.5",
    "x**(n + 1)/(n + 1)",
    "3*cos(3*x + 6)**5/5 + pi*E",
]
CODE = [
    "__import__('os').system('id')",
    "exec('1')",
    "().__class__",
    "[x for x in (1,)]",
    "(lambda: 1)()",
    "9**9**9",
    "x**(10**9)",
    "10**-9**9",
    "(2**31)**31**2",
    "open('f')",
    "f'{1}'",
    "9" * 3000,
    "[" + "-" * 1500 + "1]",
]
ONLY_SYMPYS = [
    '\'__import__("os").system("id")\'',
    "['x']",
    "5!!!!",
    "lambda x",
    "0.1[2]",
    "2 x",
    "3^4",
    "sin(y=1)",
    "sin(*x)",
    "diff(x)",
    "__doc__ + 1",
    "exp(exp(exp(30)))",
    "2**(32//1e-9)",
    "2**(32/(1/32/32/32/32))",
    "2**exp(30)",
    "1e999",
]


@pytest.mark.parametrize("text", DATA)
def test_what_eval_only_builds_is_plain_data(text: str) -> None:
    assert plain_data(text)


@pytest.mark.parametrize("text", CODE)
def test_what_eval_would_run_is_not(text: str) -> None:
    assert not plain_data(text)


@pytest.mark.parametrize("text", ARITHMETIC)
def test_what_sympy_only_computes_is_small_arithmetic(text: str) -> None:
    assert small_arithmetic(text)


@pytest.mark.parametrize("text", [*CODE, *ONLY_SYMPYS])
def test_what_sympy_would_run_or_grow_is_not(text: str) -> None:
    assert not small_arithmetic(text)


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


def paid(env_id: str, place: int, text: str) -> float:
    env = ag.make_env(env_id)
    env._drive(env.areset(seed=0, options={"index": place}))  # type: ignore[attr-defined]
    return float(env._drive(env.astep(ag.say(f"<answer>{text}</answer>"))).reward)  # type: ignore[attr-defined]


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
@pytest.mark.parametrize("text", ["garbage", "False", *CODE[:8]])
def test_garbage_is_paid_nothing(name: str, text: str) -> None:
    env_id = f"agentgym/reasoning_gym.{name}-v0"
    gold = ag.make_env(env_id, args={"size": 6}).tasks()[0].answer
    step = answered(env_id, f"<answer>{text}</answer>")
    assert step.reward == float(text == str(gold))


@pytest.mark.adapters
@installed
def test_a_solution_beside_the_gold_one_is_paid() -> None:
    env_id = "agentgym/reasoning_gym.n_queens-v0"
    boards = [(str(task.answer), task.metadata["entry"]["metadata"]) for task in ag.make_env(env_id).tasks()]
    place, others = next(
        (i, [other for other in told["valid_answers"] if other != gold])
        for i, (gold, told) in enumerate(boards)
        if len(told["valid_answers"]) > 1
    )
    assert paid(env_id, place, others[0]) == 1
    assert paid(env_id, place, others[0].replace("Q", "_")) == 0


@pytest.mark.adapters
@installed
def test_a_conclusion_of_logic_is_paid_but_not_a_premise_said_again() -> None:
    env_id = "agentgym/reasoning_gym.propositional_logic-v0"
    told = ag.make_env(env_id).tasks()[0].metadata["entry"]["metadata"]
    assert paid(env_id, 0, told["example_answer"]) == 1
    premise = next(premise for premise in told["premises"] if "(" in premise)
    assert paid(env_id, 0, premise) == paid(env_id, 0, f"({premise})") == 0


@pytest.mark.adapters
@installed
@pytest.mark.parametrize("name", ["simple_integration", "intermediate_integration", "countdown", "string_insertion"])
def test_no_answer_runs(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    code = f"__import__('pathlib').Path({str(made)!r}).touch()"
    for text in (code, repr(code), f"[{code}]"):
        assert paid(f"agentgym/reasoning_gym.{name}-v0", 0, text) == 0
        assert not made.exists()


@pytest.mark.adapters
@installed
def test_the_generators_that_evaluate_answers_are_guarded() -> None:
    guarded = {name: _guards(name) for name in reasoning_gym_names()}
    assert guarded["n_queens"] == guarded["spiral_matrix"] == (plain_data,)
    assert guarded["countdown"] == guarded["simple_integration"] == (small_arithmetic,)
    assert guarded["chain_sum"] == guarded["codeio"] == ()


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
