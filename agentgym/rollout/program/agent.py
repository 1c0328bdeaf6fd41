"""What the programs of a worker share: the policy behind the endpoint, the endpoint, and where they run."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentgym.protocols import Engine, Parser, Renderer, Start
from agentgym.rollout.agent import Seconds
from agentgym.rollout.program.conversation import ProgramConversation
from agentgym.rollout.program.function import Program, Stage
from agentgym.rollout.program.server import EndpointServer


@dataclass(frozen=True, slots=True)
class ProgramAgent:
    """As `Agent`, with a program of the user's in its place. `aclose` ends endpoint and programs, not the engine."""

    engine: Engine
    renderer: Renderer
    parser: Parser
    program: Program
    seconds: Seconds = field(default_factory=Seconds)
    server: EndpointServer = field(default_factory=EndpointServer)
    stage: Stage = field(default_factory=Stage)
    routing: bool = False

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.renderer.stop_ids

    def converse(self, start: Start, session: str) -> ProgramConversation:
        return ProgramConversation(self, start, session)

    async def aclose(self) -> None:
        await self.server.aclose()
        self.stage.close()
