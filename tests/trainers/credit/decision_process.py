"""A decision process so small that everything about it can be counted out: episodes, values, gradients.

Episodes have one to three turns, and the policy decides how many; turns have one or two tokens; a tool answers in
between, now and then "busy". The policy is a softmax at each place where a token is sampled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agentgym.types import Completion, Floats, Group, Message, Outcome, StopReason, Trajectory, Turn

Array: TypeAlias = npt.NDArray[np.float64]
Estimator: TypeAlias = Callable[[Group], list[list[Floats]]]

THETA = np.array([[0.3, -0.2], [0.4, -0.5], [0.1, 0.6], [-0.3, 0.2], [0.5, -0.1]])
"""Logits of the two tokens at each place: first word, argument, after busy, after x, after y."""


@dataclass(frozen=True)
class Move:
    """One message of the agent: the tokens it takes, (place, token); its pay; and what may come of it: (probability,
    what the tool says, next state), or none where it ends the episode."""

    tokens: tuple[tuple[int, int], ...]
    reward: float
    then: tuple[tuple[float, str, str], ...] = ()


MOVES: dict[str, tuple[Move, ...]] = {
    "start": (
        Move(((0, 1),), 0.3),
        Move(((0, 0), (1, 0)), -0.1, ((0.3, "busy", "again"), (0.7, "x", "seen_x"))),
        Move(((0, 0), (1, 1)), 0.1, ((1.0, "y", "seen_y"),)),
    ),
    "again": (Move(((2, 1),), 0.0), Move(((2, 0),), -0.1, ((1.0, "x", "seen_x"),))),
    "seen_x": (Move(((3, 0),), 1.0), Move(((3, 1),), 0.0)),
    "seen_y": (Move(((4, 0),), 0.5), Move(((4, 1),), -0.1, ((1.0, "x", "seen_x"),))),
}
SCORES = {"start": 0.1, "again": 0.05, "seen_x": 0.6, "seen_y": 0.3, "end": 0.8}
"""Any numbers: an estimator that is free of bias is so whatever they are."""


def policy(place: int, token: int) -> float:
    logits = THETA[place]
    return math.exp(logits[token]) / sum(math.exp(logit) for logit in logits)


def score_function(place: int, token: int) -> Array:
    """The gradient of log policy, in the shape of THETA."""
    gradient = np.zeros_like(THETA)
    for other in range(THETA.shape[1]):
        gradient[place, other] = float(other == token) - policy(place, other)
    return gradient


@dataclass(frozen=True)
class Played:
    """An episode, its probability, and the path through states and moves that it took."""

    probability: float
    path: tuple[tuple[str, Move, str], ...]

    @property
    def rewards(self) -> list[float]:
        return [move.reward for _, move, _ in self.path]

    def gradients(self) -> list[list[Array]]:
        """Of log policy: one a token, turn by turn."""
        return [[score_function(*token) for token in move.tokens] for _, move, _ in self.path]

    def trajectory(self, name: str = "t") -> Trajectory:
        turns = []
        for k, (_, move, said) in enumerate(self.path):
            ids = np.array([2 * place + token + 100 for place, token in move.tokens], np.int32)
            completion = Completion(ids, np.zeros(len(ids), np.float32), np.zeros(len(ids), np.int32))
            message = Message("assistant", str(move.tokens))
            answers = (Message("tool", said),) if said else ()
            context = np.array([1, 2, 3] if k else [1], np.int32)  # the prompt; later what the tool said
            then = self.path[k + 1][0] if k + 1 < len(self.path) else "end"
            values = np.array([value(*at) for at in prefixes(self.path[k][0], move)], np.float32)
            parent = k - 1 if k else None
            turns.append(
                Turn(k, parent, context, completion, message, answers, move.reward, score=SCORES[then], values=values)
            )
        prompt = (Message("user", "go"),)
        reward = float(sum(self.rewards))
        return Trajectory(
            name,
            "task",
            "env",
            tuple(turns),
            prompt,
            reward,
            {},
            Outcome.incorrect,
            StopReason.completed,
            start_score=SCORES["start"],
        )


def _from(state: str) -> Iterator[Played]:
    for move in MOVES[state]:
        chance = math.prod(policy(*token) for token in move.tokens)
        if not move.then:
            yield Played(chance, ((state, move, ""),))
        for likely, said, then in move.then:
            for rest in _from(then):
                yield Played(chance * likely * rest.probability, ((state, move, said), *rest.path))


EPISODES = tuple(_from("start"))
"""All there are."""


def prefixes(state: str, move: Move) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    """Where each of a move's tokens is sampled: the state and the tokens before."""
    return [(state, move.tokens[:i]) for i in range(len(move.tokens))]


def value(state: str, said: tuple[tuple[int, int], ...] = ()) -> float:
    """The expected return from a state in which these tokens are already said."""
    moves = [move for move in MOVES[state] if move.tokens[: len(said)] == said]
    chances = [math.prod(policy(*token) for token in move.tokens[len(said) :]) for move in moves]
    worth = [move.reward + sum(likely * value(then) for likely, _, then in move.then) for move in moves]
    return sum(chance * each for chance, each in zip(chances, worth, strict=True))


def expectation(of: Callable[[Played], Array]) -> Array:
    """Over all episodes."""
    return np.sum([episode.probability * of(episode) for episode in EPISODES], axis=0)


def weighted(episode: Played, weights: Sequence[float]) -> Array:
    """Sum over turns of weight times the gradient of the log probability of the whole turn."""
    return np.sum([w * np.sum(g, axis=0) for w, g in zip(weights, episode.gradients(), strict=True)], axis=0)


def true_gradient(worth: Callable[[Played], float] = lambda episode: sum(episode.rewards)) -> Array:
    """Of the expected worth of an episode, by default its reward; `worth` must not depend on the policy."""
    return expectation(lambda episode: weighted(episode, [worth(episode)] * len(episode.path)))


def expected_gradient(
    estimator: Estimator, size: int, change: Callable[[Trajectory], Trajectory] = lambda t: t
) -> Array:
    """E over groups of `size` of 1/size sum over trajectories and sampled tokens of advantage times gradient."""
    total = np.zeros_like(THETA)
    played = [change(episode.trajectory()) for episode in EPISODES]
    gradients = [episode.gradients() for episode in EPISODES]
    for members in itertools.product(range(len(EPISODES)), repeat=size):
        group = Group("0:task", "task", "env", tuple(played[m] for m in members))
        chance = math.prod(EPISODES[m].probability for m in members)
        for m, advantages in zip(members, estimator(group), strict=True):
            for of_turn, of_tokens in zip(advantages, gradients[m], strict=True):
                for advantage, gradient in zip(of_turn, of_tokens, strict=True):
                    total += chance / size * float(advantage) * gradient
    return total


def rewritten(trajectory: Trajectory) -> Trajectory:
    """As where a template rewrites its past: every turn begins a branch."""
    return replace(trajectory, turns=tuple(replace(turn, parent=None) for turn in trajectory.turns))


def forked(trajectory: Trajectory) -> Trajectory:
    """As where a program goes on from the first turn again and again: a tree of many leaves."""
    return replace(trajectory, turns=tuple(replace(turn, parent=0 if turn.id else None) for turn in trajectory.turns))
