"""Scores of states: what envs report of their progress, when, and what it is worth as a reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentgym.envs.score import spoken_consistency
from agentgym.envs.script import call, say
from agentgym.envs.shipping import ShippingEnv, cheapest
from agentgym.envs.store import KINDS, StoreEnv, solve
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError, VerifierFault
from agentgym.protocols import Step
from agentgym.tools.driving import drive
from agentgym.tools.episode import Episode
from agentgym.types import Message, StopReason, Task


def scored(env: ToolEnv) -> ToolEnv:
    env.use_score("env")
    return env


def begin(env: ToolEnv, kind: str, seed: int = 0) -> float | None:
    task = next(task for task in env.tasks() if task.kind == kind)
    return drive(env.areset(seed=seed, options={"task": task})).score


def does(env: ToolEnv, message: Message) -> Step:
    step: Step = drive(env.astep(message))
    return step


def test_scores_are_reported_only_where_asked_for() -> None:
    for env in (StoreEnv(busy=0.0), ShippingEnv(busy=0.0)):
        assert begin(env, env.tasks()[0].kind) is None
        assert does(env, say("0")).score is None


def test_progress_in_the_store() -> None:
    env = scored(StoreEnv(busy=0.0))
    assert begin(env, "two_lookups") == 0
    assert env.episode is not None
    task, prices = env.episode.task, env.episode.state["prices"]
    a, _, b, _, c = task.metadata["terms"]
    assert does(env, call("lookup", item=a)).score == 0.25
    assert does(env, call("lookup", item=a)).score == 0.25, "once is enough"
    assert does(env, call("lookup", item="moon")).score == 0.25
    other = next(item for item in prices if item not in (a, c))
    assert does(env, call("lookup", item=other)).score == 0.25
    assert does(env, call("lookup", item=c)).score == 0.5
    assert does(env, call("calculator", expression=f"{prices[a]}+{b}")).score == 0.5, "another sum than the asked one"
    assert does(env, call("calculator", expression=f"{prices[a]}*{b}+{prices[c]}")).score == 0.75
    step = does(env, say(str(solve(task, prices))))
    assert (step.score, step.reward) == (1.0, 1.0)
    begin(env, "two_lookups")
    assert does(env, say(str(solve(task, prices)))).score == 1.0, "right, however it was found"
    begin(env, "two_lookups")
    assert does(env, say("0")).score == 0.0


def test_a_busy_tool_is_no_progress() -> None:
    env = scored(StoreEnv(busy=1.0))
    begin(env, "lookup")
    assert env.episode is not None
    assert does(env, call("lookup", item=env.episode.task.metadata["terms"][0])).score == 0
    assert drive(env.finish(StopReason.max_tokens)).score == 0, "also where a limit ends it"


@pytest.mark.parametrize("kind", KINDS)
def test_who_plays_right_comes_to_1_and_never_back(play: Callable[..., Any], kind: str) -> None:
    store, shipping = scored(StoreEnv()), scored(ShippingEnv())
    for env, tasks in ((store, [t for t in store.tasks() if t.kind == kind]), (shipping, shipping.tasks())):
        for task in list(tasks)[:15]:
            scores: list[float] = []
            player = env.expert(task, 0, "gold")
            assert player is not None
            start = drive(env.areset(seed=3, options={"task": task}))
            messages, done = list(start.messages), False
            while not done:
                messages.append(player(messages))
                step = does(env, messages[-1])
                messages += step.messages
                assert step.score is not None
                scores.append(step.score)
                done = step.done
            assert start.score == 0
            assert scores == sorted(scores)
            assert scores[-1] == pytest.approx(1.0)
            assert all(score < 1 for score in scores[:-1])


def test_progress_with_parcels() -> None:
    env = scored(ShippingEnv(busy=0.0))
    assert begin(env, "two_parcels") == 0
    assert env.episode is not None
    state, deadline = env.episode.state, env.episode.task.metadata["deadline"]
    (one, offers), (_, theirs) = state["offers"].items()
    assert does(env, call("list_carriers", city=one)).score == pytest.approx(1 / 7)
    kg = env.episode.task.metadata["parcels"][0].kg
    assert does(env, call("quote", kg=kg, carrier=offers[0].carrier)).score == pytest.approx((1 + 1 / 3) / 7)
    best = cheapest(offers, deadline)
    wrong = next(offer for offer in offers if offer != best)
    assert does(env, call("ship", carrier=wrong.carrier)).score == 0, "for good"
    assert does(env, call("ship", carrier=cheapest(theirs, deadline).carrier)).score == pytest.approx(3 / 7)
    told = " ".join(map(str, state["receipts"].values()))
    assert does(env, say(told)).score == pytest.approx(3 / 7), "telling the receipt of a wrong parcel is no step on"


def test_one_in_time_will_do() -> None:
    env = scored(ShippingEnv(busy=0.0))
    begin(env, "in_time")
    assert env.episode is not None
    task, [offers] = env.episode.task, env.episode.state["offers"].values()
    does(env, call("list_carriers", city=task.metadata["parcels"][0].city))
    best = cheapest(offers, task.metadata["deadline"])
    assert does(env, call("quote", kg=task.metadata["parcels"][0].kg, carrier=best.carrier)).score == 0.5


def test_progress_as_a_reward_is_paid_by_the_turn_and_decides_nothing() -> None:
    env = StoreEnv(busy=0.0)
    assert not env.pays_turns
    env.use_rewards(progress=0.5)
    assert env.pays_turns
    begin(env, "lookup")
    assert env.episode is not None
    a, _, b, _, c = env.episode.task.metadata["terms"]
    price = env.episode.state["prices"][a]
    assert does(env, call("lookup", item=a)).reward == pytest.approx(0.5 / 3)
    assert does(env, call("lookup", item=a)).reward == 0
    assert does(env, call("calculator", expression=f"{price}*{b}+{c}")).reward == pytest.approx(0.5 / 3)
    step = does(env, say("0"))
    assert step.reward == 0
    assert not step.outcome
    assert step.components == {"progress": pytest.approx(2 / 3), "reward": 0.0}
    begin(env, "lookup")
    step = does(env, say(str(price * int(b) + int(c))))
    assert step.reward == pytest.approx(1.5)
    assert step.outcome


def test_progress_as_a_reward_goes_on_in_a_fork() -> None:
    env = StoreEnv(busy=0.0)
    env.use_rewards(progress=1.0)
    begin(env, "lookup")
    assert env.episode is not None
    item = env.episode.task.metadata["terms"][0]
    does(env, call("lookup", item=item))
    (other,) = env.fork()
    assert does(other, call("lookup", item=item)).reward == 0, "what was paid before the fork is not paid again"


class Counter(ToolEnv):
    def progress(self, episode: Episode) -> Any:
        return episode.state.get("score", episode.turns / 4)


TASKS = [Task("t", "Say it.", "it")]


def test_an_env_without_progress_is_refused() -> None:
    plain = ToolEnv(TASKS)
    with pytest.raises(ConfigError, match=r"ToolEnv reports no progress.*progress\(self, episode\).*consistency"):
        plain.use_score("env")
    with pytest.raises(ConfigError, match=r"ToolEnv reports no progress"):
        plain.use_rewards(progress=0.5)
    with pytest.raises(ConfigError, match=r"unknown score 'gold': there are env, consistency"):
        plain.use_score("gold")
    plain.use_score("consistency")


@pytest.mark.parametrize("score", [None, float("nan"), "much"])
def test_a_score_that_is_none_is_a_fault_and_not_0(score: Any) -> None:
    env = Counter(TASKS)
    scored(env)
    drive(env.areset(seed=0))
    assert env.episode is not None
    env.episode.state["score"] = score
    with pytest.raises(VerifierFault, match="progress"):
        does(env, say("it"))


def test_spoken_consistency() -> None:
    def episode(*messages: Message) -> Episode:
        made = scored(Counter(TASKS))
        drive(made.areset(seed=0))
        assert made.episode is not None
        made.episode.messages[:] = [Message("user", "What is pear*47+12?"), *messages]
        return made.episode

    shown = (call("lookup", item="pear"), Message("tool", "31", tool_call_id=call("lookup").tool_calls[0].id))
    assert spoken_consistency(episode()) == 1, "who says nothing makes nothing up"
    assert spoken_consistency(episode(*shown)) == 1
    assert spoken_consistency(episode(*shown, call("calculator", expression="31*47+12"))) == 1
    assert spoken_consistency(episode(*shown, call("calculator", expression="88*47+12"))) == pytest.approx(2 / 3)
    assert spoken_consistency(episode(say("4711"))) == 0
    assert spoken_consistency(episode(*shown, call("calculator", expression="31*47"), say("4711"))) == 0.5
