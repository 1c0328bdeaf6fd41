"""Store-v0: its rules, its rates and its demonstrations."""

from collections import Counter
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any

import pytest

from agentgym.envs.script import call, say
from agentgym.envs.store import CHATTER, HOLDOUT, ITEMS, KINDS, StoreEnv, generate
from agentgym.envs.tasks import held_out
from agentgym.errors import ConfigError
from agentgym.tools.driving import drive


def test_tasks() -> None:
    train, test = generate("train"), generate("test")
    assert (len(train), len(test)) == (20_000, 3_000)
    for split, tasks in (("train", train), ("test", test)):
        assert all(task.kind == KINDS[i % 3] for i, task in enumerate(tasks))
        assert len({task.prompt for task in tasks}) == len(tasks)
        for task in tasks[:300]:
            text = str(task.prompt).removeprefix("What is ").removesuffix("?")
            assert held_out(text, HOLDOUT) == (split == "test")
            assert sum(item in text.replace("*", " ").replace("+", " ").split() for item in ITEMS) == KINDS.index(
                task.kind
            )


def test_prices_are_drawn_anew_and_shown_by_no_prompt() -> None:
    env = StoreEnv()
    seen = set()
    for seed in range(50):
        start = drive(env.areset(seed=seed, options={"index": 1}))
        assert env.episode is not None
        seen.add(tuple(env.episode.state["prices"].values()))
        assert [m.role for m in start.messages] == ["user"]
        assert all(2 <= price <= 99 for price in env.episode.state["prices"].values())
    assert len(seen) == 50


def test_answers_are_too_many_to_guess(play: Callable[..., Any]) -> None:
    env = StoreEnv()
    answers = Counter(play(env, "gold", seed=i, index=i, split="test")[2][-1].text for i in range(600))
    assert answers.most_common(1)[0][1] / 600 < 0.02


def test_only_the_exact_bare_number_pays() -> None:
    env = StoreEnv(busy=0.0)
    for index in range(3):
        drive(env.areset(seed=5, options={"index": index, "split": "test"}))
        assert env.episode is not None
        prices = env.episode.state["prices"]
        expression = str(env.episode.task.prompt).removeprefix("What is ").removesuffix("?")
        value = eval(expression, {"__builtins__": {}}, prices)
        for text, reward in (
            (f"{value}", 1.0),
            (f" {value}\n", 1.0),
            (f"{value}.", 0.0),
            (f"It is {value}", 0.0),
            (f"{value} {value + 1}", 0.0),
            (f"{value + 1}", 0.0),
        ):
            drive(env.areset(seed=5, options={"index": index, "split": "test"}))
            assert drive(env.astep(say(text))).reward == reward


def test_the_busy_rate_tag_and_metric() -> None:
    env = StoreEnv(max_turns=0)
    drive(env.areset(seed=0))
    for _ in range(2000):
        [message] = drive(env.astep(call("calculator", expression="1+1"))).messages
        assert message.text in ("busy", "2")
    end = drive(env.astep(say("?")))
    assert end.metrics["busy"] / 2000 == pytest.approx(0.15, abs=0.025)
    assert end.metrics["tool_calls"] == 2000
    assert end.tags == ("after_busy",)
    never = StoreEnv(busy=0.0)
    drive(never.areset(seed=0))
    drive(never.astep(call("lookup", item="pear")))
    end = drive(never.astep(say("?")))
    assert (end.tags, end.metrics["busy"]) == ((), 0)


def test_lookup_of_something_else() -> None:
    env = StoreEnv(busy=0.0)
    drive(env.areset(seed=0))
    assert drive(env.astep(call("lookup", item="Pear"))).messages[0].text == "error: the store has no 'Pear'"


def test_demonstrations_are_imperfect_as_asked(play: Callable[..., Any]) -> None:
    env = StoreEnv(demo_mistakes=0.5, demo_retry=0.1, demo_two_lookups=0.08)
    tasks = env.demo_tasks(2000, seed=3)
    share = Counter(task.kind for task in tasks)
    assert share["two_lookups"] / 2000 == pytest.approx(0.08, abs=0.02)
    assert share["calc"] / 2000 == pytest.approx(0.46, abs=0.04)
    retried, busy, wrong = 0, 0, Counter[str]()
    for seed, task in enumerate(tasks):
        _, step, messages = play(env, "demo", seed=seed, task=task)
        made: list[tuple[str, dict[str, Any]]] = []
        for before, after in pairwise(messages):
            calls = [(c.name, dict(c.arguments)) for c in after.tool_calls]
            if before.text == "busy":
                busy += 1
                retried += bool(calls)
                assert calls in ([], made[-1:])  # that call and no other, also where it was made to be sure
            made += calls
        wrong[messages[-1].text] += step.terminated and step.reward == 0
    assert retried / busy == pytest.approx(0.1, abs=0.06)
    assert wrong["0"] == wrong.total()  # one mode, never a spread of guesses
    assert wrong.total() / 2000 == pytest.approx(0.6, abs=0.08)


def test_demo_numbers_are_arguments(play: Callable[..., Any]) -> None:
    perfect = StoreEnv(demo_mistakes=0.0, demo_retry=1.0, demo_repeats=0.0)
    assert all(play(perfect, "demo", seed=i, index=i)[1].reward == 1 for i in range(60))
    unsure = StoreEnv(demo_repeats=0.5, demo_mistakes=0.0, busy=0.0)
    repeated = 0
    for seed in range(30):
        made = [
            str((c.name, c.arguments))
            for message in play(unsure, "demo", seed=seed, index=seed)[2]
            for c in message.tool_calls
        ]
        needed = [call for call, _ in groupby(made)]
        assert len(needed) == len(set(needed))  # a call is made again at once or never
        repeated += len(made) - len(needed)
    assert repeated > 20


def test_chatter_is_said_before_calls_and_changes_nothing_else(play: Callable[..., Any]) -> None:
    """What is said is longer, and so costs more; the calls, the answers and the reward are those of quiet play."""
    perfect = {"demo_mistakes": 0.0, "demo_retry": 1.0, "demo_repeats": 0.0, "busy": 0.0}
    said: Counter[int] = Counter()
    for seed in range(60):
        _, step, chatty = play(StoreEnv(**perfect, demo_chatter=4), "demo", seed=seed, index=seed)
        quiet = play(StoreEnv(**perfect), "demo", seed=seed, index=seed)[2]
        assert step.reward == 1
        assert [m.tool_calls for m in chatty] == [m.tool_calls for m in quiet]
        assert chatty[-1].text == quiet[-1].text
        said.update(sum(sentence in m.text for sentence in CHATTER) for m in chatty if m.tool_calls)
        assert not any(m.text for m in quiet if m.tool_calls)
    assert set(said) == {0, 1, 2, 3, 4}


def test_some_kinds_only(play: Callable[..., Any]) -> None:
    env = StoreEnv(kinds=["two_lookups"])
    assert {task.kind for task in (*env.tasks("train"), *env.tasks("test"))} == {"two_lookups"}
    assert {task.kind for task in env.demo_tasks(20)} == {"two_lookups"}
    assert play(env, "gold", seed=1)[1].reward == 1.0
    two = StoreEnv(kinds=["two_lookups", "calc"], demo_two_lookups=0.25)
    share = Counter(task.kind for task in two.demo_tasks(1000))
    assert set(share) == {"calc", "two_lookups"}
    assert share["two_lookups"] / 1000 == pytest.approx(0.25, abs=0.05)
    assert {task.kind for task in StoreEnv(kinds=["calc", "lookup"]).demo_tasks(50)} == {"calc", "lookup"}
    every = StoreEnv(kinds=list(reversed(KINDS)))
    assert [t.id for t in every.demo_tasks(50, 3)] == [t.id for t in StoreEnv().demo_tasks(50, 3)]
    with pytest.raises(ConfigError, match="kinds = 'calc': give a list of some of calc, lookup, two_lookups"):
        StoreEnv(kinds="calc")
