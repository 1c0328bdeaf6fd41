"""What a trial of a program before the run holds against it, and what it leaves to the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentgym.config import Config, load_config
from agentgym.errors import ConfigError
from agentgym.rollout.episode import Limits
from agentgym.rollout.program.function import make_program
from agentgym.rollout.program.rehearsal import rehearse
from agentgym.rollout.renderer import ChatRenderer
from agentgym.rollout.worker import env_factory
from agentgym.trainers.played_envs import played_envs
from agentgym.trainers.surroundings import check_program
from agentgym.types import GroupRequest
from tests.rollout.program.conftest import Parts, Wire

REQUESTS = [GroupRequest(f"rehearsal:{i}", "parts", i % 2, 1, 0) for i in range(3)]


def told(function: Callable[..., Any], renderer: ChatRenderer, make_env: Any = Parts, seconds: float = 20.0) -> str:
    given = renderer, renderer.parser, lambda env_id: make_env(), REQUESTS, Limits(seconds=seconds)
    return asyncio.run(rehearse(make_program(function), *given))


def test_a_program_that_calls_the_model_is_asked_no_further(renderer: ChatRenderer) -> None:
    asked: list[str] = []

    async def stumbles(session: Any, task: Any) -> str:
        asked.append(task.id)
        said = await Wire(session.base_url, session.api_key).say(session.messages, tools=session.tools)
        return str(said["tool_calls"][0]["function"]["nothing"])

    assert told(stumbles, renderer) == ""
    assert asked == ["nuts"], "one episode is enough, and it is over with its first request"


def test_one_good_episode_is_enough(renderer: ChatRenderer) -> None:
    unlucky = iter([True, True, False])

    async def program(session: Any) -> str:
        if next(unlucky):
            raise OSError("the disk is away")
        return str((await Wire(session.base_url, session.api_key).say(session.messages))["content"])

    assert told(program, renderer) == ""
    assert next(unlucky, None) is None, "all were played"


def test_an_answer_that_did_not_come_over_the_endpoint_is_none(renderer: ChatRenderer) -> None:
    def deaf(base_url: str) -> str:
        return httpx.get(f"{base_url}/models", trust_env=False, verify=False).json()["data"]

    assert told(deaf, renderer).startswith("KeyError: 'data' (test_rehearsal.py, line ")


class Away(Parts):
    def setup(self, episode: Any) -> None:
        raise OSError("the database is away")


async def wrong(task: Any) -> str:
    return str(task.nothing)


def test_an_env_that_fails_is_left_to_the_run(renderer: ChatRenderer) -> None:
    assert told(wrong, renderer).startswith("AttributeError: ")
    assert told(wrong, renderer, Away) == ""


def test_a_program_that_takes_long_to_begin_is_left_to_the_run(renderer: ChatRenderer) -> None:
    begun: list[int] = []

    async def slow(task: Any) -> str:
        begun.append(1)
        await asyncio.sleep(60)
        raise OSError("too late")

    assert told(slow, renderer, seconds=0.3) == ""
    assert begun == [1], "it is not waited for again"


CODE = """
def lacks(task):
    import only_on_the_workers

def wrong(task):
    return task.nothing
"""


def checked(file: Path, name: str, *more: str) -> list[str]:
    """What is noted."""
    file.write_text(CODE)
    config: Config = load_config(None, [f"rollout.agent={file}:{name}", *more])
    make_env = env_factory(config)
    notes: list[str] = []
    check_program(config, make_env, played_envs(config, make_env).sources, notes.append)
    return notes


def test_the_driver_of_a_cluster_may_lack_what_its_workers_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"only_on_the_workers.* \(a.py, line 3\)"):
        checked(tmp_path / "a.py", "lacks")
    (note,) = checked(tmp_path / "b.py", "lacks", "cluster.kind=ray")
    assert "No module named 'only_on_the_workers' (b.py, line 3)" in note


def test_what_a_module_keeps_is_not_the_trials_where_the_run_plays_in_this_process(tmp_path: Path) -> None:
    assert not checked(tmp_path / "a.py", "wrong", "run.processes=1")
    assert checked(tmp_path / "a.py", "wrong", "run.processes=1", "cluster.kind=ray")


def test_nothing_is_tried_where_nothing_is_played(tmp_path: Path) -> None:
    checked(tmp_path / "a.py", "wrong", "trainer.steps=0", "eval.tasks=0")
    with pytest.raises(ConfigError, match="failed 3 trial episodes of 3"):
        checked(tmp_path / "a.py", "wrong", "trainer.steps=0")
