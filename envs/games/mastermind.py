"""`agentgym/Mastermind-v0`: a hidden code, guesses, and what each of them tells."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from agentgym.envs.script import call, say
from agentgym.envs.tasks import Drawn, TaskSet, chosen_kinds, generated_tasks
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError
from agentgym.protocols import Policy
from agentgym.tools.arguments import BadArguments
from agentgym.tools.decorator import ToolFailed, tool
from agentgym.tools.episode import Episode
from agentgym.types import Message, Task

SHAPES = {"short": (3, 6), "classic": (4, 6), "wide": (4, 8)}
"""Places of the code, and colours it may use, by kind."""
COLOURS = (
    *("amber", "black", "blue", "brown", "cyan", "gold", "green", "grey", "indigo", "ivory", "lime"),
    *("orange", "pink", "purple", "red", "silver", "violet", "white", "yellow"),
)
SIZES = {"train": 3_000, "test": 600}
HOLDOUT = 1 / 6
GIVES_UP = "unknown"


@tool
def guess(code: str, episode: Episode) -> str:
    """Try a code. Tells how many colours stand in their place, and how many more are in the code, but elsewhere.

    Args:
        code: the colours in order, such as red blue red
    """
    secret: tuple[str, ...] = episode.state["secret"]
    palette: tuple[str, ...] = episode.task.metadata["palette"]
    tried = tuple(code.replace(",", " ").lower().split())
    if len(tried) != len(secret) or (strange := set(tried) - set(palette)):
        wrong = f"no {sorted(strange)[0]!r} among the colours" if len(tried) == len(secret) else f"{len(tried)} colours"
        raise BadArguments(f"code: {wrong}; give {len(secret)} of {', '.join(palette)}")
    if episode.metrics["guesses"] >= episode.state["tries"]:
        raise ToolFailed("no guess is left; answer with the code")
    past: list[tuple[tuple[str, ...], tuple[int, int]]] = episode.state["past"]
    if any(marks(tried, earlier) != told for earlier, told in past):
        episode.tag("inconsistent")
        episode.count("inconsistent")
    told = marks(secret, tried)
    past.append((tried, told))
    episode.count("guesses")
    return f"{told[0]} in place, {told[1]} elsewhere"


def marks(secret: Sequence[str], tried: Sequence[str]) -> tuple[int, int]:
    """(colours in their place, further ones that are elsewhere); each colour of the code counts once."""
    common = sum(min(secret.count(colour), tried.count(colour)) for colour in set(tried))
    placed = sum(a == b for a, b in zip(secret, tried, strict=True))
    return placed, common - placed


class MastermindEnv(ToolEnv):
    """A code of colours to be found by guesses.

    ## Description
    "Find the code: 4 of red, blue, gold, lime, pink, cyan; a colour may come again." Each guess is answered with the
    number of colours in place and the number elsewhere. What is known has to be put together: a guess that cannot be
    right any more tells little, and guesses are few.

    ## Kinds
    `short`: 3 places, 6 colours (216 codes). `classic`: 4 places, 6 colours (1,296). `wide`: 4 places, 8 colours
    (4,096).

    ## Tools
    `guess(code)` -> "2 in place, 1 elsewhere".

    ## Starting state
    A code drawn from the episode's generator, every one as likely. No system message.

    ## Reward
    `reward`: 1 if the agent's own last message is the code and nothing else (commas aside), else 0. Naming a code
    without a guess is right once in as many as there are codes. Tag and metric `inconsistent`: guesses that what was
    told before had ruled out. Metrics: `guesses`, `tool_calls`, `tool_errors`.

    ## Episode end
    Terminated by an answer (or 3 malformed messages in a row), truncated after `max_turns` = 20 messages.

    ## Tasks
    3,000 generated train tasks and 600 test tasks; task i is of kind i % 3. A question is held out by its hash.

    ## Arguments
    tries: guesses of an episode. kinds: those to play, default all.
    demo_mistakes: probability that the `demo` expert answers "unknown" straight away.
    demo_careless: probability, at each guess, that it tries any code, whatever it was told.

    ## Versions
    v0: first.
    """

    tools = (guess,)
    max_turns = 20

    def __init__(
        self,
        *args: Any,
        tries: int = 12,
        kinds: Sequence[str] = tuple(SHAPES),
        demo_mistakes: float = 0.3,
        demo_careless: float = 0.5,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if tries < 1:
            raise ConfigError(f"Mastermind-v0: tries = {tries!r}: give 1 or more")
        self.tries = tries
        self.kinds = chosen_kinds("Mastermind-v0", kinds, SHAPES)
        self.demo_mistakes = demo_mistakes
        self.demo_careless = demo_careless

    def make_tasks(self, split: str) -> TaskSet:
        return TaskSet(task for task in generate(split) if task.kind in self.kinds)

    def setup(self, episode: Episode) -> None:
        palette = episode.task.metadata["palette"]
        places, _ = SHAPES[episode.task.kind]
        secret = tuple(palette[i] for i in episode.rng.integers(len(palette), size=places).tolist())
        episode.state = {"secret": secret, "past": [], "tries": self.tries}
        episode.metrics |= {"guesses": 0, "inconsistent": 0}

    def reward(self, task: Task, answer: str, episode: Episode) -> float:
        return float(answer.replace(",", " ").lower().split() == list(episode.state["secret"]))

    def expert(self, task: Task, seed: int, style: str = "gold") -> Policy:
        """`gold` guesses what can still be right; `demo` is the imperfect play of warm starts."""
        return Solver(task, None if style == "gold" else self, random.Random(seed))


class Solver:
    """Plays by what it reads: guesses a code that agrees with every answer so far, until one is right.

    With `habits` (an env's demo_* numbers) it makes the mistakes that they ask for.
    """

    def __init__(self, task: Task, habits: MastermindEnv | None, rng: random.Random):
        self._palette: tuple[str, ...] = task.metadata["palette"]
        self._places = SHAPES[task.kind][0]
        self._habits = habits
        self._rng = rng

    def __call__(self, conversation: Sequence[Message]) -> Message:
        past = _past(conversation)
        if past and past[-1][1][0] == self._places:
            return say(past[-1][0])
        if not past and self._is("demo_mistakes"):
            return say(GIVES_UP)
        codes = _codes(self._places, len(self._palette))
        if past and not self._is("demo_careless"):
            codes = self._possible(codes, past)
        if len(past) >= (self._habits.tries if self._habits else 1 << 30):
            return say(GIVES_UP)
        chosen = codes[self._rng.randrange(len(codes))]
        return call("guess", f"call_{len(past)}", code=" ".join(self._palette[i] for i in chosen))

    def _possible(self, codes: npt.NDArray[np.int64], past: Sequence[tuple[str, tuple[int, int]]]) -> Any:
        """The codes [N, places] that agree with everything told."""
        colours = range(len(self._palette))
        for tried, (placed, elsewhere) in past:
            code = np.array([self._palette.index(colour) for colour in tried.split()])
            in_place = (codes == code).sum(1)
            common = sum(np.minimum((codes == colour).sum(1), int((code == colour).sum())) for colour in colours)
            codes = codes[(in_place == placed) & (common == placed + elsewhere)]
        return codes

    def _is(self, habit: str) -> bool:
        return self._habits is not None and self._rng.random() < getattr(self._habits, habit)


def _past(conversation: Sequence[Message]) -> list[tuple[str, tuple[int, int]]]:
    """(code, (in place, elsewhere)) of every guess so far."""
    codes: list[str] = []
    told: list[tuple[int, int]] = []
    for message in conversation:
        if message.role == "assistant":
            codes += [str(made.arguments["code"]) for made in message.tool_calls]
        elif message.role == "tool":
            placed, elsewhere = (int(part.split()[0]) for part in message.text.split(", "))
            told.append((placed, elsewhere))
    return list(zip(codes, told, strict=True))


@lru_cache(maxsize=len(SHAPES))
def _codes(places: int, colours: int) -> npt.NDArray[np.int64]:
    """Every code, as numbers of colours [colours ** places, places]."""
    return np.array(list(itertools.product(range(colours), repeat=places)), np.int64)


@lru_cache(maxsize=len(SIZES))
def generate(split: str) -> TaskSet:
    """The tasks of a split, always the same ones: kind i % 3, no question twice, each split by the question's hash."""
    return generated_tasks(split, SIZES[split], HOLDOUT, {kind: _palettes(kind) for kind in SHAPES})


def _palettes(kind: str) -> Iterator[Drawn]:
    rng = random.Random(f"Mastermind-v0 {kind}")
    places, colours = SHAPES[kind]
    while True:
        palette = tuple(rng.sample(COLOURS, colours))
        prompt = f"Find the code: {places} of {', '.join(palette)}; a colour may come again."
        yield prompt, {"palette": palette}
