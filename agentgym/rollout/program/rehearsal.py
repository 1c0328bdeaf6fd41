"""A program's first words, before a run begins: what is broken from its first line is not to cost a warm start.

It is played by the machinery of any episode, on the real endpoint and in a real env, up to the first request that the
endpoint would ask the model: there the episode ends. So no answer of a model is ever held against it, and neither are a
fault of the env's and a beginning that takes long.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import ProgramFault
from agentgym.protocols import Parser, Renderer
from agentgym.rollout.collector import Collector, EnvFactory
from agentgym.rollout.episode import Limits
from agentgym.rollout.program.agent import ProgramAgent
from agentgym.rollout.program.conversation import LATE
from agentgym.rollout.program.function import Program
from agentgym.types import GroupRequest

SECONDS = 20.0
"""That one episode may take to the first request; what takes longer is left to the run."""


async def rehearse(
    program: Program,
    renderer: Renderer,
    parser: Parser,
    make_env: EnvFactory,
    requests: Sequence[GroupRequest],
    limits: Limits,
) -> str:
    """How the program failed the last of the requests' episodes, if it failed them all by itself; else nothing."""
    agent = ProgramAgent(ScriptedEngine(()), renderer, parser, program)  # which has no answer: asking ends an episode
    collector = Collector(agent, make_env, limits)
    failure = ""
    try:
        for request in requests:
            (played,) = (await collector.play_group(request)).trajectories
            kind, _, failure = (played.error or "").partition(": ")
            if kind != ProgramFault.kind or failure == LATE:
                return ""
    finally:
        await collector.aclose()
        await agent.aclose()
    return failure
