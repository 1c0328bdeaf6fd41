"""The world that SearchQA's own questions are about: made-up people, towns and firms, always the same ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice, product

from agentgym.tools.corpus import Corpus, Document

FIRST_NAMES = (
    *("Abel", "Ada", "Amos", "Anya", "Boris", "Cleo", "Dara", "Edith", "Elena", "Emil", "Fiona", "Georg"),
    *("Hanna", "Igor", "Ines", "Jonas", "Karin", "Lars", "Leila", "Marta", "Milan", "Nadia", "Olga", "Omar"),
    *("Petra", "Quinn", "Rosa", "Selma", "Stefan", "Tomas", "Vera", "Yusuf"),
)
SURNAMES = (
    *("Adler", "Berg", "Costa", "Dahl", "Egger", "Falk", "Garcia", "Haas", "Ivanov", "Jansen", "Keller", "Lund"),
    *("Moreau", "Novak", "Okoye", "Patel", "Quist", "Rossi", "Sato", "Tanaka", "Ulrich", "Vogel", "Weber", "Young"),
)


def _joined(beginnings: str, endings: str) -> tuple[str, ...]:
    return tuple(map("".join, product(beginnings.split(), endings.split())))


TOWNS = _joined("Alder Brom Cald Dun Elm Fern Gren Hol", "by ford ham")
FIRMS = _joined("Acti Bova Ciro Delta Euro Flexi Gala Hexa", "corp tech works")


@dataclass(frozen=True, slots=True)
class Fact:
    """A question that names the first of `hops`; the document of each names the next, that of the last the answer."""

    kind: str
    question: str
    hops: tuple[str, ...]
    answer: str


class World:
    """Everyone's town and firm, the firms' towns, and who leads towns and firms; drawn once, by a fixed seed.

    What a question of two hops asks for is of a sort that those of one hop name too (a town, a firm, a person): a tiny
    model learns to copy a name from where it has copied such names before, and hardly where it has not.
    """

    def __init__(self) -> None:
        rng = random.Random("SearchQA-v0")
        self.people = [f"{first} {last}" for first, last in product(FIRST_NAMES, SURNAMES)]
        self.home = _dealt(self.people, TOWNS, rng)
        self.employer = _dealt(self.people, FIRMS, rng)
        self.seat = _dealt(FIRMS, TOWNS, rng)
        led = TOWNS + FIRMS
        self.leader = dict(zip(led, rng.sample(self.people, len(led)), strict=True))

    def documents(self) -> Iterator[Document]:
        """One a person, town and firm; its title is its id."""
        for name in self.people:
            yield Document(name, name, f"Lives in {self.home[name]}, works for {self.employer[name]}.")
        for name in TOWNS:
            yield Document(name, name, f"Town led by {self.leader[name]}.")
        for name in FIRMS:
            yield Document(name, name, f"Firm in {self.seat[name]}, led by {self.leader[name]}.")

    def facts(self) -> Iterator[Fact]:
        """Every question, in a fixed order, but those that name their answer."""
        return (fact for name in self.people for fact in self._facts_of(name) if fact.answer != name)

    def _facts_of(self, name: str) -> tuple[Fact, ...]:
        town, firm = self.home[name], self.employer[name]
        return (
            Fact("one_hop", f"Where does {name} live?", (name,), town),
            Fact("one_hop", f"Who employs {name}?", (name,), firm),
            Fact("two_hops", f"Who leads the home of {name}?", (name, town), self.leader[town]),
            Fact("two_hops", f"Who leads the employer of {name}?", (name, firm), self.leader[firm]),
            Fact("two_hops", f"Where is the employer of {name}?", (name, firm), self.seat[firm]),
        )


def _dealt(to: Sequence[str], names: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Each of `to` with one of the names, all of which come as often: no answer is a better guess than another."""
    dealt = list(islice(cycle(names), len(to)))
    rng.shuffle(dealt)
    return dict(zip(to, dealt, strict=True))


@cache
def world() -> World:
    """The world, made at the first use."""
    return World()


@cache
def world_corpus() -> Corpus:
    """Its documents, indexed once for all envs and episodes of a process."""
    return Corpus(world().documents())
