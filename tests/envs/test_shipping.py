"""Shipping-v0: what is drawn, what pays, how it is counted, and its demonstrations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from agentgym.envs.script import call, say
from agentgym.envs.shipping import CARRIERS, KINDS, OFFERED, Offer, ShippingEnv, cheapest, generate
from agentgym.errors import ConfigError
from agentgym.protocols import Step
from agentgym.tools.driving import drive


def begin(env: ShippingEnv, kind: str, seed: int = 0, number: int = 0) -> tuple[dict[str, list[Offer]], int]:
    """Start an episode of a kind: (offers by city, deadline)."""
    task = [task for task in env.tasks() if task.kind == kind][number]
    drive(env.areset(seed=seed, options={"task": task}))
    assert env.episode is not None
    return env.episode.state["offers"], task.metadata["deadline"]


@pytest.mark.parametrize("kind", KINDS)
def test_offers_are_drawn_anew_and_have_one_best(kind: str) -> None:
    env = ShippingEnv()
    places: Counter[int] = Counter()
    lures = 0
    for seed in range(200):
        offers, deadline = begin(env, kind, seed)
        carriers = [offer.carrier for of_city in offers.values() for offer in of_city]
        assert len(set(carriers)) == len(carriers)
        assert len(offers) == (2 if kind == "two_parcels" else 1)
        assert bool(deadline) == (kind != "cheapest")
        for of_city in offers.values():
            assert len(of_city) == OFFERED[kind]
            assert len({offer.price // 10 for offer in of_city}) == len(of_city)
            assert all(10 <= offer.price <= 99 and 1 <= offer.days <= 9 for offer in of_city)
            best = cheapest(of_city, deadline)
            assert not deadline or best.days <= deadline
            places[of_city.index(best)] += 1
            assert kind != "in_time" or sum(offer.days <= deadline for offer in of_city) == 1
            lures += best.price > min(offer.price for offer in of_city)
    assert max(places.values()) / places.total() < 1 / OFFERED[kind] + 0.08  # no place is a better guess
    assert not deadline or lures / places.total() > 0.25  # who forgets the deadline is often wrong


def sent(env: ShippingEnv, kind: str, *carriers: str, answer: str = "{}", seed: int = 0) -> Step:
    """The end of an episode that ships with these carriers and answers with the receipts."""
    begin(env, kind, seed)
    told = [drive(env.astep(call("ship", carrier=carrier))).messages[0].text for carrier in carriers]
    receipts = " ".join(text.removeprefix("receipt ") for text in told)
    return drive(env.astep(say(answer.format(receipts))))


def test_only_the_right_carrier_and_its_receipt_pay() -> None:
    env = ShippingEnv(busy=0.0)
    for seed in range(5):
        offers, deadline = begin(env, "deadline", seed)
        assert env.episode is not None
        [receipt] = env.episode.state["receipts"].values()
        [of_city] = offers.values()
        best = cheapest(of_city, deadline)
        for answer, reward in (("{}", 1.0), (" {}.\n", 1.0), ("done", 0.0), ("{0} {0}", 0.0), ("1{}", 0.0), ("", 0.0)):
            assert sent(env, "deadline", best.carrier, answer=answer, seed=seed).reward == reward, answer
        assert sent(env, "deadline", answer=str(receipt), seed=seed).reward == 0  # never shipped
        for offer in of_city:
            step = sent(env, "deadline", offer.carrier, seed=seed)
            assert step.reward == (offer is best)
            assert (step.components["forgot_deadline"] > 0) == (offer.days > deadline)
            assert (step.components["dearer"] > 0) == (offer.days <= deadline and offer is not best)
            assert step.tags == ("unquoted",)


def test_two_parcels_are_both_to_be_right_and_told_in_order() -> None:
    env = ShippingEnv(busy=0.0)
    offers, deadline = begin(env, "two_parcels")
    one, two = (cheapest(of_city, deadline).carrier for of_city in offers.values())
    other = next(offer.carrier for offer in next(iter(offers.values())) if offer.carrier != one)
    assert sent(env, "two_parcels", one, two).reward == 1
    assert sent(env, "two_parcels", two, one).reward == 0  # sent right, told in the other order
    assert sent(env, "two_parcels", one).reward == 0
    assert sent(env, "two_parcels", other, two).reward == 0


def test_tools() -> None:
    env = ShippingEnv(busy=0.0)
    offers, _ = begin(env, "cheapest")
    [(city, of_city)] = offers.items()
    assert env.episode is not None
    kg = env.episode.task.metadata["parcels"][0].kg

    def told(name: str, **arguments: Any) -> str:
        return drive(env.astep(call(name, **arguments))).messages[0].text

    assert told("list_carriers", city=city).split() == [offer.carrier for offer in of_city]
    assert told("list_carriers", city="Atlantis") == "error: no parcel of yours goes to 'Atlantis'"
    first = of_city[0]
    assert told("quote", kg=kg, carrier=first.carrier) == f"{first.carrier}: {first.days} days for {first.price}"
    assert told("quote", kg=2 * kg, carrier=first.carrier).split()[-1] == str(2 * first.price)
    assert told("quote", kg=0, carrier=first.carrier).split()[-1] == "1"
    foreign = next(name for name in CARRIERS if name not in [offer.carrier for offer in of_city])
    for name in ("quote", "ship"):
        arguments = {"kg": kg} if name == "quote" else {}
        assert told(name, carrier=foreign, **arguments) == f"error: there is no carrier {foreign!r} for your parcels"
    assert told("ship", carrier=first.carrier) == f"receipt {env.episode.state['receipts'][city]}"
    assert told("ship", carrier=of_city[1].carrier) == f"the parcel to {city} is already on its way"
    assert env.episode.state["shipped"] == {city: first}


def test_who_asked_every_carrier_is_not_tagged() -> None:
    env = ShippingEnv(busy=0.0)
    offers, _ = begin(env, "cheapest")
    assert env.episode is not None
    kg = env.episode.task.metadata["parcels"][0].kg
    for offer in next(iter(offers.values())):
        drive(env.astep(call("quote", kg=kg, carrier=offer.carrier)))
    assert drive(env.astep(say("none"))).tags == ()


def test_the_busy_rate() -> None:
    env = ShippingEnv(max_turns=0, busy=0.3)
    begin(env, "cheapest")
    city = env.episode.task.metadata["parcels"][0].city  # type: ignore[union-attr]
    busy = sum(drive(env.astep(call("list_carriers", city=city))).messages[0].text == "busy" for _ in range(1000))
    end = drive(env.astep(say("?")))
    assert end.metrics["busy"] == busy
    assert busy / 1000 == pytest.approx(0.3, abs=0.05)
    assert "after_busy" in end.tags


def test_who_asks_one_carrier_and_takes_it_is_at_the_floor(play: Callable[..., Any]) -> None:
    lazy = ShippingEnv(busy=0.0, demo_mistakes=0.0, demo_hasty=1.0)
    right: Counter[str] = Counter()
    for seed in range(800):
        start, step, _ = play(lazy, "demo", seed=seed, index=seed)
        right[start.task.kind] += step.reward
    shares = {kind: right[kind] / 160 for kind in KINDS}
    assert shares["cheapest"] == pytest.approx(1 / 3, abs=0.1)
    assert all(share < 0.43 for share in shares.values()), shares
    assert shares["two_parcels"] < 0.22


def test_tasks() -> None:
    train, test = generate("train"), generate("test")
    assert all(task.kind == KINDS[i % 5] for split in (train, test) for i, task in enumerate(split))
    prompts = [task.prompt for split in (train, test) for task in split]
    assert len(set(prompts)) == len(prompts) == 8_400
    assert {task.kind for task in ShippingEnv(kinds=["many"]).tasks()} == {"many"}


@pytest.mark.parametrize("kinds", [["fast"], [], "many"])
def test_kinds_that_are_none(kinds: Any) -> None:
    with pytest.raises(ConfigError, match=r"kinds = .*give a list of some of in_time, cheapest"):
        ShippingEnv(kinds=kinds)


def test_demonstrations_are_imperfect_as_asked(play: Callable[..., Any]) -> None:
    env = ShippingEnv(kinds=["cheapest", "deadline"])
    asked = gave_up = retried = busy = 0
    for seed in range(1000):
        _, _, messages = play(env, "demo", seed=seed, index=seed)
        asked += 1
        gave_up += len(messages) == 2
        for before, after in pairwise(messages):
            if before.text == "busy":
                busy += 1
                retried += bool(after.tool_calls)
    assert gave_up / asked == pytest.approx(env.demo_mistakes, abs=0.06)
    assert retried / busy == pytest.approx(env.demo_retry, abs=0.07)
