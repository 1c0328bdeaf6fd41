"""Environments by name: ids, files, shorthand, vectors, and messages for what is not there."""

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import agentgym
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError, ToolError
from agentgym.loading import load_object, load_several
from agentgym.tools.driving import drive
from agentgym.types import Message

EXAMPLE = Path(__file__).parents[1] / "examples" / "01_custom_tool_env.py"

SHOP = '''
import agentgym as ag
import shop_prices

@ag.tool
def price(item: str) -> int:
    """Price of an item, in cents."""
    return shop_prices.PRICES[item]

@ag.tool
def name_it(word: str) -> str:
    """Say it."""
    return word

def exact(task, answer, episode):
    return answer == str(task.answer)

class Shop(ag.ToolEnv):
    tools = (price,)
    def make_tasks(self, split):
        return [ag.Task("0", "Tea?", 250)]

class Shut(Shop):
    def __init__(self):
        raise OSError("no database")

instance = Shop(max_turns=3)

def factory(size: int = 1, **kw):
    return Shop(max_turns=size, **kw)

@ag.register("FileShop-v0", tools=[price], tasks=[("Tea?", 250)])
def scored(task, answer, episode):
    return answer == "250"

number = 3
'''


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "shop_prices.py").write_text("PRICES = {'tea': 250}\n")
    (tmp_path / "tasks.jsonl").write_text('{"question": "Tea?", "answer": 250}\n')
    before = list(sys.path)
    yield str(tmp_path / "shop.py")
    sys.path[:] = before
    sys.modules.pop("shop_prices", None)
    gymnasium.registry.pop("FileShop-v0", None)


def answered(env: Any, text: str = "250") -> float:
    drive(env.areset(seed=0))
    reward: float = drive(env.astep(Message("assistant", text))).reward
    return reward


def test_importing_is_light_and_registers() -> None:
    code = (
        "import sys, agentgym, gymnasium;"
        "heavy = {'torch', 'transformers', 'pydantic', 'sympy'} & set(sys.modules);"
        "assert not heavy, heavy; assert 'agentgym/Store-v0' in gymnasium.registry;"
        "agentgym.ToolEnv; agentgym.make('agentgym/Store-v0'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lazy_names() -> None:
    assert agentgym.ToolEnv is ToolEnv
    assert {"tool", "make", "register", "train", "evaluate"} <= set(dir(agentgym))
    with pytest.raises(AttributeError, match="no attribute 'tols'"):
        agentgym.tols  # noqa: B018


def test_gymnasium_finds_them_by_module() -> None:
    env = gymnasium.make("agentgym:agentgym/Store-v0", busy=0.5)
    assert env.unwrapped.busy == 0.5  # type: ignore[attr-defined]
    assert env.spec is not None
    assert env.spec.id == "agentgym/Store-v0"
    assert agentgym.make_env("agentgym:agentgym/Store-v0").busy == 0.15  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="No module named 'nowhere'"):
        agentgym.make_env("nowhere:Store-v0")


@pytest.mark.parametrize("given", ["agentgym/Stoer-v0", "Store-v0", "store", "agentgym:agentgym/Store-v1"])
def test_an_unknown_id_names_the_nearest(given: str) -> None:
    for build in (agentgym.make, agentgym.make_env, agentgym.spec):
        with pytest.raises(ConfigError, match=r"did you mean 'agentgym/Store-v0'\?") as caught:
            build(given)
        assert given in str(caught.value)


def test_the_nearest_id_is_the_one_whose_name_was_typed_without_its_namespace() -> None:
    agentgym.register("Stork-v0", tools=[], tasks=[agentgym.Task("t", "?", 1)], reward=lambda task, answer: 1.0)
    with pytest.raises(ConfigError, match=r"did you mean 'agentgym/Store-v0'\?"):
        agentgym.make_env("Store-v0")
    with pytest.raises(ConfigError, match=r"did you mean 'Stork-v0'\?"):
        agentgym.make_env("Storks-v0")


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"agentgym/Store-v0 cannot be made: .*unexpected keyword argument 'bussy'"):
        agentgym.make_env("agentgym/Store-v0", args={"bussy": 1})


def test_vectors() -> None:
    for mode in ("sync", "async"):
        envs = agentgym.make_vec("agentgym/Store-v0", num_envs=2, vectorization_mode=mode)
        texts, _ = envs.reset(seed=3)
        alone = [agentgym.make("agentgym/Store-v0").reset(seed=seed)[0] for seed in (3, 4)]
        assert list(texts) == alone
        _, rewards, terminated, _, info = envs.step(("0", '<tool_call>{"name": "lookup"}</tool_call>'))
        assert list(rewards) == [0, 0]
        assert list(terminated) == [True, False]
        assert info["stop_reason"][0] == "completed"
        envs.close()


# -- registering ----------------------------------------------------------------------------------------------------


@pytest.fixture
def mine() -> Iterator[str]:
    yield "Mine-v0"
    gymnasium.registry.pop("Mine-v0", None)


def test_as_a_call(mine: str) -> None:
    agentgym.register(mine, tools=["calculator"], tasks=[("1+1?", 2)], reward=lambda task, answer, episode: 0.5)
    assert answered(agentgym.make_env(mine)) == 0.5
    assert mine in agentgym.env_ids()
    assert agentgym.make(mine).spec.id == mine  # type: ignore[union-attr]
    agentgym.register(mine, tasks=[("1+1?", 2)], reward=lambda task, answer, episode: 0.25)  # as notebooks do
    assert answered(agentgym.make_env(mine)) == 0.25


def test_as_a_decorator_of_a_reward(mine: str) -> None:
    @agentgym.register(mine, tasks=[("1+1?", 2)], max_turns=3)
    def score(task: Any, answer: str, episode: Any) -> float:
        return 0.75

    assert score(None, "", None) == 0.75
    env = agentgym.make_env(mine)
    assert answered(env) == 0.75
    assert env.max_turns == 3  # type: ignore[attr-defined]


def test_as_a_decorator_of_a_class_or_factory(mine: str) -> None:
    @agentgym.register(mine, max_turns=3)
    class Own(ToolEnv):
        def make_tasks(self, split: str) -> Any:
            return [agentgym.Task("0", "1+1?", 250)]

    env = agentgym.make_env(mine, args={"system": "S"})
    assert isinstance(env, Own)
    assert (env.max_turns, env.system, answered(env)) == (3, "S", 1.0)
    agentgym.register(mine, lambda turns=1, **kw: Own(max_turns=turns, **kw))
    assert agentgym.make_env(mine, args={"turns": 9}).max_turns == 9  # type: ignore[attr-defined]


def test_as_text(mine: str, shop: str) -> None:
    agentgym.register(mine, "agentgym.envs.store:StoreEnv", busy=0.0)
    env = agentgym.make(mine)
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))  # type: ignore[union-attr]
    assert again.unwrapped.busy == 0.0  # type: ignore[attr-defined]
    agentgym.register(mine, f"{shop}:Shop")
    assert answered(agentgym.make_env(mine)) == 1.0


def test_bad_ids() -> None:
    for bad in ("a:b-v0", "", "what is this?"):
        with pytest.raises(ConfigError, match="env id"):
            agentgym.register(bad, ToolEnv)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Shop", "instance", "factory", "scored"])
def test_path_and_name(shop: str, name: str) -> None:
    one, two = agentgym.make_env(f"{shop}:{name}"), agentgym.make_env(f"{shop}:{name}")
    assert one is not two
    assert answered(one) == answered(two) == 1.0
    assert agentgym.make(f"{shop}:{name}").reset(seed=0)[0] == "Tea?"


def test_data_reward_and_tools_without_a_class(shop: str, tmp_path: Path) -> None:
    data = str(tmp_path / "tasks.jsonl")
    env = agentgym.make_env("", data=data, reward=f"{shop}:exact", tools=f"calculator,{shop}:price,name_it")
    assert env.toolset.names == ("calculator", "price", "name_it")  # type: ignore[attr-defined]
    assert (answered(env), answered(env, "25")) == (1.0, 0.0)
    env = agentgym.make_env(f"{shop}:exact", data=data)
    assert answered(env) == 1.0
    env = agentgym.make_env("agentgym/Store-v0", reward=f"{shop}:exact", data=data)
    assert answered(env) == 1.0


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("{shop}:Shopp", r"there is no 'Shopp' in .*shop\.py; did you mean 'Shop'\?"),
        ("{shop}", "expected path.py:name"),
        ("nowhere.py:x", r"env 'nowhere\.py': there is no such file"),
        ("no.such.module:x", "No module named 'no'"),
        ("{shop}:number", "is a int: expected an env class"),
        ("{shop}:price", "cannot be made: missing a required argument: 'item'"),
        ("{shop}:Shut", r"Shut cannot be made: OSError: no database \(.*shop\.py, line \d+\)"),
    ],
)
def test_what_is_not_there_is_named(shop: str, reference: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        agentgym.make_env(reference.format(shop=shop))


def test_arguments_that_make_no_sense(shop: str) -> None:
    with pytest.raises(ConfigError, match="is an instance and takes no arguments"):
        agentgym.make_env(f"{shop}:instance", args={"max_turns": 3})
    with pytest.raises(ConfigError, match="no env: give an id"):
        agentgym.make_env("", reward=f"{shop}:exact")
    with pytest.raises(ConfigError, match=r"no areset and astep"):
        agentgym.make_env("CartPole-v1")


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("x = 1\ny = x / 0\n", ConfigError, r"broken\.py', line 2: ZeroDivisionError"),
        ("def f(:\n", ConfigError, r"broken\.py', line 1: SyntaxError"),
        ("import agentgym\n@agentgym.tool\ndef t(x): ...\n", ToolError, "argument 'x' has no type hint"),
    ],
)
def test_a_file_that_fails_says_where(tmp_path: Path, source: str, error: type[Exception], text: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(error, match=text):
        load_object(f"{tmp_path}/broken.py:x")


def test_several(shop: str) -> None:
    assert [getattr(t, "name", t) for t in load_several(f"{shop}:price,name_it")] == ["price", "name_it"]
    assert load_several("calculator") == ["calculator"]
    mine, *others = load_several(f"{shop}:price,calculator,think", known=("calculator", "think"))
    assert (mine.name, others) == ("price", ["calculator", "think"])
    with pytest.raises(ConfigError, match="there is no 'calculator' in"):
        load_several(f"{shop}:price,{shop}:calculator", known=("calculator",))
    with pytest.raises(ConfigError, match=r"expected path\.py:a,b"):
        load_several(" , ")


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    env = agentgym.make_env(f"{EXAMPLE}:bookings")
    assert answered(env) == 0.0
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "reward: 1.0" in capsys.readouterr().out
    assert len(EXAMPLE.read_text().splitlines()) <= 40
