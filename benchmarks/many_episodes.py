"""What do ten thousand episodes cost that are played at once in one process, the engine aside?

    python benchmarks/many_episodes.py --json FILE [--episodes 10000] [--rounds 3]

Each is an episode of an ordinary `ToolEnv` in the worker's own collector: three calls of a typed tool, checked by its
schema, and an answer; 4 turns of 64 sampled tokens, with logprobs and versions. Parsing, validation, rewards, deadlines
and the record (the trajectory, and its line of JSON) are the real ones. The engine is scripted and waits for all others
before it answers, so that all episodes are under way at every turn; its own CPU time is taken off. There is no
tokenizer and no chat template: a token is a character of a small alphabet.

us_per_turn: CPU-microseconds of the process for each turn, without the engine's. record_us_per_turn: of those, the
writing of the JSON lines. kib_per_episode: resident memory that grew from before the first episode to when the last
turn of all was being waited for, an episode: env, conversation, tasks of the event loop and turns so far.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, spread, versions, write

import agentgym as ag
from agentgym.protocols import Rendered
from agentgym.rollout.agent import Agent
from agentgym.rollout.collector import Collector
from agentgym.rollout.episode import Limits
from agentgym.rollout.parsers import get_parser
from agentgym.rollout.record import write_lines
from agentgym.types import Completion, Group, GroupRequest, SamplingParams

TURNS, TOKENS, SIZE = 4, 64, 8
END = 0


@ag.tool
def cost(item: str, shop: int = 1) -> int:
    """The price of an item.

    Args:
        item: what it is called
        shop: number of the shop
    """
    return len(item) * 7 + shop


TASKS = [ag.Task(str(i), f"Price of {i} pears?", "45") for i in range(64)]


class Prices(ag.ToolEnv):
    """Three prices, and their sum."""

    tools = (cost,)

    def __init__(self, **options: Any):
        super().__init__(tasks=TASKS, holdout=0, **options)

    def reward(self, task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(answer.split()[-1] == task.answer)


def padded(text: str) -> np.ndarray[Any, Any]:
    """TOKENS ids that read as the text with blanks before it, the last one the end of the turn."""
    return np.array([*(ord(c) for c in text.rjust(TOKENS - 1)[: TOKENS - 1]), END], np.int32)


CALLS = [padded(f'<tool_call>{{"name":"cost","arguments":{{"item":"{x}"}}}}</tool_call>') for x in ("a", "b", "c")]
REPLIES = [*CALLS, padded("It is 45")]
CONTEXT = np.arange(1, 25, dtype=np.int32)


class Characters:
    """Renders without a template: a prompt is 24 ids, whatever it says, and so is what a tool answered."""

    stop_ids = (END,)

    def start(self, messages: Any, tools: Any = ()) -> Rendered:
        return Rendered(CONTEXT.copy())

    def extend(self, history: Any, completion: Any, added: Any, tools: Any = ()) -> Rendered:
        return Rendered(CONTEXT.copy())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids[:-1]).decode("ascii")

    def branches(self, messages: Any, tools: Any = ()) -> Any:
        raise NotImplementedError


class Together:
    """A scripted engine that answers when all episodes have asked: none is ahead of the others."""

    version = 0
    stats: dict[str, float] = {}  # noqa: RUF012 - it counts nothing

    def __init__(self, episodes: int):
        self._episodes = episodes
        self._waiting: list[tuple[asyncio.Future[Completion], int]] = []
        self.seconds = 0.0
        """CPU-seconds of its own."""
        self.most = 0.0
        """Resident KiB at the last turn."""

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        began = time.thread_time()
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        turn = (len(ids) - len(CONTEXT)) // (len(CONTEXT) + TOKENS)
        self._waiting.append((future, turn))
        if len(self._waiting) == self._episodes:
            waiting, self._waiting = self._waiting, []
            if turn == TURNS - 1:
                self.most = resident()
            for each, at in waiting:
                each.set_result(completion(at))
        self.seconds += time.thread_time() - began
        return await future

    async def release(self, session: str) -> None: ...

    async def update_weights(self, update: Any) -> None: ...

    async def aclose(self) -> None: ...


def completion(turn: int) -> Completion:
    logprobs = np.full(TOKENS, -0.5, np.float32)
    return Completion(REPLIES[turn].copy(), logprobs, np.zeros(TOKENS, np.int32))


def resident() -> float:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


async def play(episodes: int, number: int) -> tuple[dict[str, float], list[Group]]:
    engine: Any = Together(episodes)
    agent = Agent(engine, Characters(), get_parser("hermes"))
    collector = Collector(agent, lambda _: Prices(), Limits(seconds=3600.0), concurrency=episodes)
    requests = [GroupRequest(f"{number}:{i}", "prices", i % 64, SIZE, seed=1) for i in range(episodes // SIZE)]
    gc.collect()
    gc.freeze()  # as the worker does
    before, began = resident(), time.process_time()
    groups = list(await asyncio.gather(*(collector.play_group(request) for request in requests)))
    played = time.process_time() - began - engine.seconds
    began = time.process_time()
    size = sum(len(write_lines(group.trajectories)) for group in groups)
    recorded = time.process_time() - began
    await collector.aclose()
    turns = episodes * TURNS
    return {
        "us_per_turn": (played + recorded) / turns * 1e6,
        "record_us_per_turn": recorded / turns * 1e6,
        "engine_us_per_turn": engine.seconds / turns * 1e6,
        "kib_per_episode": (engine.most - before) / episodes,
        "bytes_per_line": size / episodes,
    }, groups


def check(groups: Sequence[Group], episodes: int) -> None:
    """What was measured is what is claimed."""
    played = [t for group in groups for t in group.trajectories]
    assert len(played) == episodes
    for t in played:
        assert t.reward == 1.0, t.error
        assert (len(t.turns), t.sampled_tokens, t.metrics["tool_calls"]) == (TURNS, TURNS * TOKENS, TURNS - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    episodes = max(SIZE, args.episodes // SIZE * SIZE)
    rounds = []
    for number in range(args.rounds):
        figures, groups = asyncio.run(play(episodes, number))
        check(groups, episodes)
        rounds.append(figures)
        print("  ".join(f"{name} {value:.1f}" for name, value in figures.items()))
        del groups
    # memory that the first round has left is used again by the others: only the first one tells what an episode takes
    found = {name: spread([each[name] for each in rounds]) for name in rounds[0]}
    found["kib_per_episode"] = spread([rounds[0]["kib_per_episode"]])
    settings = {
        "episodes": episodes,
        "turns": TURNS,
        "tokens": TURNS * TOKENS,
        "group_size": SIZE,
        "rounds": args.rounds,
    }
    write(args.json, {**found, "settings": settings, "machine": machine(), "versions": versions("numpy")})


if __name__ == "__main__":
    main()
