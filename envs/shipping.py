"""`agentgym/Shipping-v0`: list carriers, get their quotes, keep to the deadline, ship with the cheapest."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from agentgym.envs.busy import may_be_busy, served, set_busy
from agentgym.envs.script import call, say
from agentgym.envs.tasks import Drawn, TaskSet, chosen_kinds, generated_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.protocols import Policy
from agentgym.tools.arguments import BadArguments
from agentgym.tools.decorator import ToolFailed, tool
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

KINDS = ("in_time", "cheapest", "deadline", "many", "two_parcels")
CITIES = (
    *("Athens", "Bergen", "Berlin", "Bern", "Boston", "Cairo", "Delhi", "Dublin", "Geneva", "Hanoi", "Kyoto", "Lagos"),
    *("Lima", "London", "Lyon", "Madrid", "Milan", "Osaka", "Oslo", "Paris", "Porto", "Prague", "Quito", "Riga"),
    *("Rome", "Seoul", "Sofia", "Tokyo", "Tunis", "Vienna"),
)
CARRIERS = (
    *("badger", "bison", "comet", "crane", "falcon", "fox", "gull", "heron", "lynx", "otter", "raven", "robin"),
    *("seal", "stork", "swift", "tiger"),
)
OFFERED = {"in_time": 3, "cheapest": 3, "deadline": 3, "many": 5, "two_parcels": 3}
"""Carriers that serve a city, by kind."""
KG = range(1, 100)
DAYS = range(1, 10)
DEADLINES = range(2, 7)
SIZES = {"train": 7_200, "test": 1_200}
HOLDOUT = 1 / 6
GIVES_UP = "none"
_WORDS = re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True, slots=True)
class Parcel:
    kg: int
    city: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a carrier asks for the parcel to its city."""

    carrier: str
    price: int
    days: int


@tool
def list_carriers(city: str, episode: Episode) -> str:
    """The names of the carriers that serve a city. A busy tool should be called again.

    Args:
        city: the city's name, such as Oslo
    """
    may_be_busy(episode)
    offers = episode.state["offers"].get(city)
    if offers is None:
        raise BadArguments(f"no parcel of yours goes to {city!r}")
    return " ".join([offer.carrier for offer in offers])


@tool
def quote(kg: int, carrier: str, episode: Episode) -> str:
    """What a carrier asks for a parcel to the city that it serves, and its days. A busy tool should be called again.

    Args:
        kg: weight of the parcel
        carrier: the carrier's name, such as otter
    """
    may_be_busy(episode)
    city, offer = _find(carrier, episode)
    parcel = next(parcel for parcel in episode.task.metadata["parcels"] if parcel.city == city)
    if kg == parcel.kg:
        episode.state["quoted"].add(carrier)
    return f"{carrier}: {offer.days} days for {_price_of(offer, kg, parcel)}"


@tool
def ship(carrier: str, episode: Episode) -> str:
    """Send the parcel to the city that a carrier serves with that carrier, for good. Answer with the number of the
    receipt alone (two parcels: both, in the order asked). A busy tool should be called again.

    Args:
        carrier: the carrier's name, such as otter
    """
    may_be_busy(episode)
    city, offer = _find(carrier, episode)
    if city in episode.state["shipped"]:
        raise ToolFailed(f"the parcel to {city} is already on its way")
    episode.state["shipped"][city] = offer
    return f"receipt {episode.state['receipts'][city]}"


def _find(carrier: str, episode: Episode) -> tuple[str, Offer]:
    """The city that a carrier serves, and what it asks."""
    for city, offers in episode.state["offers"].items():
        for offer in offers:
            if offer.carrier == carrier:
                return city, offer
    raise BadArguments(f"there is no carrier {carrier!r} for your parcels")


def _tells(answer: str, receipts: Mapping[str, int]) -> bool:
    """Whether an answer is the receipts' numbers, in order, and nothing else."""
    return _WORDS.findall(answer) == [str(receipt) for receipt in receipts.values()]


def _price_of(offer: Offer, kg: int, parcel: Parcel) -> int:
    """Another weight is quoted too, at another price: in proportion."""
    return max(1, round(offer.price * kg / parcel.kg))


class ShippingEnv(ToolEnv):
    """Parcels to send as cheaply as possible, with carriers whose prices and days only a tool knows.

    ## Description
    "Ship 7 kg to Oslo within 3 days, as cheap as possible.": which carriers go there, what each asks and how long it
    takes are drawn anew for each episode. The agent lists the carriers, gets the quotes, drops those that are too
    late, compares, ships with the cheapest, once and for all, and says the number of the receipt. Each call is
    answered "busy" with probability `busy` and must be made again.

    ## Kinds
    `in_time`: 3 carriers, one of which meets the deadline. `cheapest`: 3 carriers, no deadline. `deadline`: 3 carriers,
    a deadline. `many`: 5 carriers, a deadline. `two_parcels`: two cities of 3 carriers each, and one deadline.

    ## Tools
    `list_carriers(city)` -> names. `quote(kg, carrier)` -> "otter: 2 days for 34". `ship(carrier)` -> "receipt 4821".
    Each may say `busy`.

    ## Starting state
    For each city its carriers, each with a price of 10 to 99 and 1 to 9 days, and a receipt of four digits, drawn
    from the episode's generator. No two prices for a city share their tens, so there is no tie; at least one carrier
    is in time. No system message.

    ## Reward
    `reward`: 1 if every parcel is on its way with the cheapest carrier that is in time, and the agent's own last
    message is the receipt's number (two: in the order asked) and nothing else; else 0. Tags: `after_busy`, a call was
    answered busy; `unquoted`, not every carrier was asked (not in `in_time`, where one may stop). Metrics, 1 or 0:
    `forgot_deadline`, a parcel was sent too late; `dearer`, one in time, but not with the cheapest; and `busy`,
    `tool_calls`, `tool_errors`.

    Guessing: who ships nothing has no receipt to tell (1 in 9,000). Who ships with any carrier, or with the first that
    it asked, is right in 1/3 of the kinds with 3 carriers, 1/5 of `many`, 1/9 of `two_parcels`.

    Progress, which is paid only where it is asked for: the share that is done of listing the carriers, getting the
    quotes and shipping with the right one, for each parcel, and of telling the receipts. `in_time`: the quote of the
    one in time will do. A parcel that is on its way with a wrong carrier loses its part.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 24 messages.

    ## Tasks
    7,200 generated train tasks and 1,200 test tasks; task i is of kind i % 5. A question is held out by its hash.

    ## Arguments
    busy: probability that a call is answered "busy". kinds: those to play, default all.
    demo_mistakes: probability that the `demo` expert answers "none" straight away.
    demo_retry: probability that it calls a busy tool again; else it answers "none".
    demo_hasty: probability, after each quote that is not the last, that it asks no further and ships.
    demo_careless: probability that it ships with the carrier it asked last, whatever that costs and takes.

    ## Versions
    v0: first.
    """

    tools = (list_carriers, quote, ship)
    weights = {"forgot_deadline": 0.0, "dearer": 0.0}  # noqa: RUF012 - read-only
    max_turns = 24

    def __init__(
        self,
        *args: Any,
        busy: float = 0.15,
        kinds: Sequence[str] = KINDS,
        demo_mistakes: float = 0.3,
        demo_retry: float = 0.2,
        demo_hasty: float = 0.08,
        demo_careless: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.busy = busy
        self.kinds = chosen_kinds("Shipping-v0", kinds, KINDS)
        self.demo_mistakes = demo_mistakes
        self.demo_retry = demo_retry
        self.demo_hasty = demo_hasty
        self.demo_careless = demo_careless

    def make_tasks(self, split: str) -> TaskSet:
        return TaskSet(task for task in generate(split) if task.kind in self.kinds)

    def setup(self, episode: Episode) -> None:
        task = episode.task
        names = iter(episode.rng.permutation(len(CARRIERS)).tolist())
        offers = {
            parcel.city: _draw_offers(task.kind, task.metadata["deadline"], names, episode.rng)
            for parcel in task.metadata["parcels"]
        }
        receipts = dict(zip(offers, episode.rng.integers(1000, 10_000, size=len(offers)).tolist(), strict=True))
        episode.state = {"offers": offers, "receipts": receipts, "quoted": set(), "shipped": {}}
        set_busy(episode, self.busy)

    def reward(self, task: Task, answer: str, episode: Episode) -> dict[str, float]:
        offers: Mapping[str, Sequence[Offer]] = episode.state["offers"]
        shipped: Mapping[str, Offer] = episode.state["shipped"]
        deadline = task.metadata["deadline"]
        best = {city: cheapest(of_city, deadline) for city, of_city in offers.items()}
        if task.kind != "in_time" and not all(
            offer.carrier in episode.state["quoted"] for of_city in offers.values() for offer in of_city
        ):
            episode.tag("unquoted")
        late = {city for city, offer in shipped.items() if deadline and offer.days > deadline}
        told = _tells(answer, episode.state["receipts"])
        return {
            "reward": float(shipped == best and told),
            "forgot_deadline": float(bool(late)),
            "dearer": float(any(offer != best[city] for city, offer in shipped.items() if city not in late)),
        }

    def progress(self, episode: Episode) -> float:
        task, state = episode.task, episode.state
        listed = {result.call.arguments["city"] for result in served(episode, "list_carriers")}
        right, done = True, 0.0
        for city, offers in state["offers"].items():
            best = cheapest(offers, task.metadata["deadline"])
            if city in state["shipped"]:
                done += 3.0 * (state["shipped"][city] == best)
                right = right and state["shipped"][city] == best
                continue
            right = False
            quoted = [offer for offer in offers if offer.carrier in state["quoted"]]
            enough = task.kind == "in_time" and best in quoted
            done += (city in listed) + (1.0 if enough else len(quoted) / len(offers))
        told = right and _tells(episode.answer, state["receipts"])
        return (done + told) / (3 * len(state["offers"]) + 1)

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """`gold` asks every carrier, retries and chooses right; `demo` is the imperfect play of warm starts."""
        return Sender(task, None if style == "gold" else self, random.Random(seed))


class Sender:
    """Plays by what it reads: lists each city's carriers, gets their quotes, drops those too late, ships the cheapest.

    With `habits` (an env's demo_* numbers) it makes the mistakes that they ask for.
    """

    def __init__(self, task: Task, habits: ShippingEnv | None, rng: random.Random):
        self._parcels: Sequence[Parcel] = task.metadata["parcels"]
        self._deadline: int = task.metadata["deadline"]
        self._one_will_do = task.kind == "in_time"
        self._habits = habits
        self._rng = rng

    def __call__(self, conversation: Sequence[Message]) -> Message:
        listed: dict[str, list[str]] = {}
        quoted: dict[str, Offer] = {}
        receipts: list[str] = []
        calls: list[tuple[str, Mapping[str, Any]]] = []
        busy = False
        for message in conversation:
            if message.role == "assistant":
                calls += [(made.name, made.arguments) for made in message.tool_calls]
            elif message.role == "tool":
                busy = message.text == "busy"
                name, arguments = calls[-1]
                words = message.text.split()
                if not busy and name == "list_carriers":
                    listed[arguments["city"]] = words
                elif not busy and name == "quote":
                    quoted[arguments["carrier"]] = Offer(arguments["carrier"], int(words[4]), int(words[1]))
                elif not busy:
                    receipts.append(words[1])
        if self._gives_up(bool(calls), busy):
            return say(GIVES_UP)
        if busy:
            name, arguments = calls[-1]
            return call(name, f"call_{len(calls)}", **arguments)
        if len(receipts) == len(self._parcels):
            return say(" ".join(receipts))
        return self._send(self._parcels[len(receipts)], listed, quoted, f"call_{len(calls)}")

    def _send(
        self, parcel: Parcel, listed: Mapping[str, Sequence[str]], quoted: Mapping[str, Offer], call_id: str
    ) -> Message:
        if parcel.city not in listed:
            return call("list_carriers", call_id, city=parcel.city)
        carriers = listed[parcel.city]
        known = [quoted[carrier] for carrier in carriers if carrier in quoted]
        enough = bool(known) and ((self._one_will_do and known[-1].days <= self._deadline) or self._is("demo_hasty"))
        if len(known) < len(carriers) and not enough:
            return call("quote", call_id, kg=parcel.kg, carrier=carriers[len(known)])
        chosen = known[-1] if self._is("demo_careless") else cheapest(known, self._deadline)
        return call("ship", call_id, carrier=chosen.carrier)

    def _gives_up(self, begun: bool, busy: bool) -> bool:
        if busy:
            return self._habits is not None and not self._is("demo_retry")
        return not begun and self._is("demo_mistakes")

    def _is(self, habit: str) -> bool:
        return self._habits is not None and self._rng.random() < getattr(self._habits, habit)


def cheapest(offers: Sequence[Offer], deadline: int) -> Offer:
    """The cheapest offer that is in time (deadline 0: any is); the cheapest of all where none is."""
    in_time = [offer for offer in offers if not deadline or offer.days <= deadline]
    return min(in_time or offers, key=lambda offer: offer.price)


def _draw_offers(kind: str, deadline: int, names: Iterator[int], rng: np.random.Generator) -> list[Offer]:
    count = OFFERED[kind]
    tens = rng.permutation(9)[:count] + 1
    prices = tens * 10 + rng.integers(10, size=count)
    days = rng.integers(deadline + 1 if kind == "in_time" else DAYS.start, DAYS.stop, size=count)
    if deadline and days.min() > deadline:
        days[rng.integers(count)] = rng.integers(1, deadline + 1)
    drawn = zip(prices.tolist(), days.tolist(), strict=True)
    return [Offer(CARRIERS[next(names)], price, days) for price, days in drawn]


@lru_cache(maxsize=len(SIZES))
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 5, no question twice, each split by the question's hash."""
    return generated_tasks(split, SIZES[split], HOLDOUT, {kind: _tasks(kind) for kind in KINDS})


def _tasks(kind: str) -> Iterator[Drawn]:
    rng = random.Random(f"Shipping-v0 {kind}")
    while True:
        cities = rng.sample(CITIES, 2 if kind == "two_parcels" else 1)
        parcels = tuple(Parcel(rng.choice(KG), city) for city in cities)
        deadline = 0 if kind == "cheapest" else rng.choice(DEADLINES)
        what = " and ".join(f"{parcel.kg} kg to {parcel.city}" for parcel in parcels)
        aim = "" if kind == "in_time" else ", as cheap as possible"
        prompt = f"Ship {what}{f' within {deadline} days' if deadline else ''}{aim}."
        yield prompt, {"parcels": parcels, "deadline": deadline}
