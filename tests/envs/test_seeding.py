"""What an env's generator draws, and when it is made: as Gymnasium's own, which is made at reset."""

from typing import Any

import gymnasium
import pytest
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env

from agentgym.envs.tool_env import ToolEnv

TASKS = [(f"What is {n}+1?", str(n + 1)) for n in range(20)]


class Known(gymnasium.Env[str, str]):
    """Draws a task as `ToolEnv` does, and then what an episode draws."""

    def draws(self, seed: int | None, tasks: int) -> list[float]:
        self.reset(seed=seed)
        return [int(self.np_random.integers(tasks)), *self.np_random.random(3).tolist()]


def draws(env: ToolEnv, seed: int | None) -> list[float]:
    env.reset(seed=seed)
    assert env.episode is not None
    return [env.tasks().index(env.episode.task), *env.episode.rng.random(3).tolist()]


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS])
def test_draws_are_those_of_gymnasiums_generator(tasks: Any) -> None:
    env, known = ToolEnv(tasks, holdout=0), Known()
    for seed in (0, None, None, 5, 0, None):
        assert draws(env, seed) == known.draws(seed, len(tasks))
        assert env.np_random_seed == known.np_random_seed


@pytest.mark.parametrize("asked_first", [True, False])
def test_env_and_episode_draw_from_one_generator(asked_first: bool) -> None:
    env = ToolEnv(TASKS[:1], holdout=0)
    env.reset(seed=3)
    assert env.episode is not None
    both = (env.np_random, env.episode.rng) if asked_first else (env.episode.rng, env.np_random)
    assert both[0] is both[1]


def test_an_episode_that_is_over_keeps_its_draws() -> None:
    env = ToolEnv(TASKS, holdout=0)
    env.reset(seed=3, options={"index": 0})
    over = env.episode
    env.reset(seed=4, options={"index": 0})
    assert over is not None
    assert over.rng.random() == seeding.np_random(3)[0].random()
    assert env.np_random.random() == seeding.np_random(4)[0].random()


def test_a_generator_that_was_given_is_drawn_from() -> None:
    env = ToolEnv(TASKS, holdout=0)
    env.reset(seed=3, options={"index": 0})
    env.np_random = given = seeding.np_random(9)[0]
    env.reset(options={"index": 0})
    assert env.episode is not None
    assert env.episode.rng is env.np_random is given
    assert env.np_random_seed == -1


def test_copies_of_an_env_have_generators_of_their_own() -> None:
    env = ToolEnv(TASKS, holdout=0)
    env.reset(seed=3)
    other = env.fresh()
    assert other.np_random is not env.np_random


def test_a_bad_seed_is_refused_at_reset() -> None:
    with pytest.raises(gymnasium.error.Error, match=r"[Ss]eed"):
        ToolEnv(TASKS).reset(seed=-1, options={"index": 0})


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS])
def test_gymnasium_finds_the_generator_that_it_asks_for(tasks: Any) -> None:
    check_env(ToolEnv(tasks, holdout=0), skip_render_check=True)
