"""Treasure-v0: every house can be won, nothing is seen from afar, and only the number read pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agentgym.envs.games.house import EXITS, ROOMS, House, build, path_to
from agentgym.envs.games.treasure import KINDS, SIZE, TreasureEnv, generate
from agentgym.envs.script import call, say
from agentgym.errors import ConfigError
from agentgym.tools.driving import drive


def reach(house: House, locked: str) -> set[str]:
    """Rooms that can be entered without passing a locked door."""
    met, edge = {house.here}, [house.here]
    while edge:
        for room in house.doors[edge.pop()]:
            if room not in met and room != locked:
                met.add(room)
                edge.append(room)
    return met


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("rooms", [3, 6, 12])
def test_every_house_can_be_won(rooms: int, locked: bool) -> None:
    for seed in range(150):
        house = build(rooms, "hall", "red cup", locked, np.random.default_rng(seed))
        assert len(house.doors) == rooms
        assert reach(house, "") == set(house.doors) <= set(ROOMS)
        assert sum(map(len, house.doors.values())) == 2 * (rooms - 1)  # a tree
        assert all(1 <= len(exits) <= EXITS for exits in house.doors.values())
        assert house.hidden != "hall"
        assert bool(house.locked) == bool(house.key) == locked
        if locked:
            near = reach(house, house.locked)
            assert house.key in near
            assert house.hidden not in near


def test_path_to() -> None:
    behind = {"attic": "study", "study": "hall"}
    assert [list(path_to(room, behind)) for room in ("hall", "study", "attic")] == [[], ["study"], ["study", "attic"]]


def start(kind: str, seed: int = 0) -> tuple[TreasureEnv, House]:
    env = TreasureEnv(max_turns=0)
    drive(env.areset(seed=seed, options={"index": KINDS.index(kind)}))
    assert env.episode is not None
    return env, env.episode.state["house"]


def told(env: TreasureEnv, name: str, **arguments: str) -> str:
    return drive(env.astep(call(name, **arguments))).messages[0].text


def test_a_room_shows_its_doors_and_things_and_no_more() -> None:
    env, house = start("locked")
    text = told(env, "look")
    assert text.startswith(f"{house.here}: doors to {', '.join(house.doors[house.here])}")
    assert str(house.number) not in text
    far = next(room for room in house.doors if room not in (house.here, *house.doors[house.here]))
    assert told(env, "go", room=far) == f"error: no door leads from here to {far!r}"
    assert told(env, "take", thing=house.treasure) == f"error: there is no {house.treasure!r} to take here"
    assert told(env, "unlock", room=far).startswith("error: no locked door leads from here")


def test_lock_and_key() -> None:
    env, house = start("locked")
    door = house.locked
    house.here = next(room for room, exits in house.doors.items() if door in exits and room in reach(house, door))
    assert told(env, "go", room=door) == f"the door to {door} is locked"
    assert told(env, "unlock", room=door) == "you have no key"
    before, house.here = house.here, house.key
    assert told(env, "look").partition("; here ")[2] == "a key"
    assert told(env, "take", thing="key") == "you have the key"
    assert "key" not in told(env, "look")
    house.here = before
    assert told(env, "unlock", room=door) == f"the door to {door} is open"
    assert told(env, "go", room=door).startswith(f"{door}: doors to")
    assert "met_lock" in drive(env.astep(say("lost"))).tags


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_number_that_was_read_pays(kind: str) -> None:
    env, house = start(kind)
    begun = house.here
    end = drive(env.astep(say(str(house.number))))
    assert (end.reward, end.components["found"]) == (0.0, 0.0)  # right, but it has not been seen
    for text, home, reward in (
        ("{}", True, 1.0),
        (" {}\n", True, 1.0),
        ("It is {}", True, 0.0),
        ("{}1", True, 0.0),
        ("{}", False, float(kind != "bring")),
    ):
        env, house = start(kind)
        house.here = house.hidden
        assert told(env, "take", thing=house.treasure).endswith(f"its number is {house.number}")
        house.here = begun if home else house.hidden
        assert drive(env.astep(say(text.format(house.number)))).reward == reward


def test_moves_and_revisits_are_counted() -> None:
    env, house = start("find")
    begun = house.here
    told(env, "go", room=house.doors[begun][0])
    told(env, "go", room=begun)
    end = drive(env.astep(say("lost")))
    assert (end.metrics["moves"], end.metrics["revisits"]) == (2, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_gold_play_fits_the_turns_with_room_to_spare(kind: str, play: Callable[..., Any]) -> None:
    env = TreasureEnv(kinds=[kind])
    longest = max(len(play(env, "gold", seed=seed, index=seed)[2]) // 2 for seed in range(100))
    assert longest <= env.max_turns
    assert longest > SIZE[kind]


def test_tasks() -> None:
    prompts = [task.prompt for split in ("train", "test") for task in generate(split)]
    assert len(set(prompts)) == len(prompts) == 7_200


@pytest.mark.parametrize("wrong", [{"kinds": ["fight"]}, {"kinds": "find"}, {"rooms": 2}, {"rooms": 13}])
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"Treasure-v0: (kinds|rooms) = "):
        TreasureEnv(**wrong)


def test_demonstrations_turn_back_as_rarely_as_asked(play: Callable[..., Any]) -> None:
    env = TreasureEnv(kinds=["find"], demo_mistakes=0.5, demo_patience=0.0)
    wins = at_once = 0
    for seed in range(400):
        _, step, messages = play(env, "demo", seed=seed, index=seed)
        wins += step.reward
        at_once += len(messages) == 2
        assert step.reward or messages[-1].text == "lost"
        assert step.metrics["revisits"] == 0
    assert at_once / 400 == pytest.approx(0.5, abs=0.08)
    assert 0.05 < wins / 400 < 0.4
    sure = TreasureEnv(demo_mistakes=0.0, demo_patience=1.0)
    assert all(play(sure, "demo", seed=seed, index=seed)[1].reward == 1 for seed in range(40))
