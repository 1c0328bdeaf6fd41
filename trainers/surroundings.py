"""What a run needs around it, looked at before anything costs time: devices, servers, a cluster, a user's program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agentgym.config import Config
from agentgym.errors import ConfigError, EngineFault
from agentgym.hub import check_model
from agentgym.rollout.make import make_parser, make_renderer
from agentgym.rollout.program.function import load_program
from agentgym.rollout.program.rehearsal import SECONDS, rehearse
from agentgym.rollout.renderer import ChatRenderer
from agentgym.rollout.worker import limits_of
from agentgym.trainers.frontier import TaskSource
from agentgym.trainers.models import pick_device
from agentgym.trainers.tiny_model import build_tokenizer
from agentgym.types import GroupRequest

ANSWER_SECONDS = 30.0
REHEARSALS = 3
"""Episodes that a program has to fail before it is called broken: one may be bad luck."""


def check_surroundings(config: Config) -> None:
    """Raises `ConfigError` for a GPU that is not there, servers that do not answer or have no sglang to start with, and
    a cluster that cannot be reached. What only shows when it is started is told then."""
    pick_device(config.learner.device)
    plays = bool(config.trainer.steps or config.eval.tasks)
    if config.cluster.kind == "ray":  # servers are the cluster's to start or to reach: this machine may see neither
        from agentgym.trainers.cluster.ray_cluster import check_address, load_ray

        load_ray()
        check_address(config.cluster.address)
    elif plays and config.engine.kind == "sglang":
        _check_servers(config)


def _check_servers(config: Config) -> None:
    from agentgym.engines.sglang.client import ServerClient
    from agentgym.engines.sglang.facts import ask_facts
    from agentgym.engines.sglang.make import server_commands

    if not config.engine.urls:
        server_commands(config)
    for url in config.engine.urls:
        try:
            ask_facts(ServerClient(url), timeout=min(ANSWER_SECONDS, config.engine.timeout))
        except EngineFault as e:
            raise ConfigError(f"engine.urls: {e}") from None


def check_program(
    config: Config, make_env: Callable[[str], Any], sources: Sequence[TaskSource], note: Callable[[str], None]
) -> None:
    """Raises `ConfigError` for a program (`rollout.agent`) that fails before it has asked the model anything, in each
    of a few episodes. On a cluster it is noted: the driver, which tries it, may lack what the workers have.

    Not where the run plays in this very process: what its module keeps, such as a client that belongs to an event loop,
    would be the trial's.
    """
    on_cluster = config.cluster.kind == "ray"
    played_here = config.run.processes == 1 and not on_cluster
    if not config.rollout.agent or played_here or not (config.trainer.steps or config.eval.tasks):
        return
    program = load_program(config.rollout.agent)
    renderer = _renderer(config)
    limits = limits_of(config)
    limits = replace(limits, seconds=min(SECONDS, limits.seconds))
    requests = list[GroupRequest]()
    for i in range(max(REHEARSALS, len(sources))):
        turn, which = divmod(i, len(sources))
        source = sources[which]
        requests.append(GroupRequest(f"rehearsal:{i}", source.env_id, turn % len(source.task_ids), 1, config.run.seed))
    failure = asyncio.run(rehearse(program, renderer, make_parser(renderer), make_env, requests, limits))
    if not failure:
        return
    failure = (
        f"rollout.agent = {config.rollout.agent!r} failed {len(requests)} trial episodes of {len(requests)} before "
        f"the model had answered anything: {failure}"
    )
    if not on_cluster:
        raise ConfigError(failure)
    note(f"{failure}. That was in the driver; the workers may have what it lacks")


def _renderer(config: Config) -> ChatRenderer:
    """The run's own; a tiny model that is yet to be built will know more words than this one, and render alike."""
    if path := config.model.path:
        check_model(path, config.model.revision)
        return make_renderer(path, config)
    return ChatRenderer(
        build_tokenizer(()), keep_thinking=config.model.keep_thinking, tool_format=config.model.tool_format
    )
