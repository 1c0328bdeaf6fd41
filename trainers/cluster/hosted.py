"""The rollout worker's side of the replicas: servers at the addresses that their actors say, and requests to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.config import Config
from agentgym.engines.load import Load
from agentgym.engines.replicas import ReplicatedEngine
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.host import Place
from agentgym.engines.sglang.layout import ModelLayout
from agentgym.errors import EngineGone, ModelError
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightUpdate

AskPlace = Callable[[int, str], Awaitable[Place]]
"""(replica, life in which it gave no answer) -> where it serves. Raises `EngineGone` where its actor is away too."""


@dataclass(frozen=True, slots=True)
class Links:
    """What a worker needs to reach the replicas. `actors`: handles, in the order of the replicas (outside of the
    cluster there are none, and only their number counts); `layout`: of the model's folder, whose weights do not travel
    to workers; `mark`: of the run's weights."""

    actors: Sequence[Any] = ()
    layout: ModelLayout | None = None
    mark: str = ""


class HostedEngine:
    """Implements `protocols.Engine`: one replica's server. Its actor tells where it is, and is told where it fails."""

    def __init__(self, ask: AskPlace, config: Config, links: Links, index: int):
        self._ask, self._config, self._links, self._index = ask, config, links, index
        self._engine: SGLangEngine | None = None
        self._life = ""

    @property
    def version(self) -> int:
        return self._engine.version if self._engine is not None else 0

    @property
    def stats(self) -> dict[str, float]:
        return self._engine.stats if self._engine is not None else {}

    async def meet(self) -> None:
        """Wait until the replica serves; it is looked into where it fails its callers. Raises `EngineGone` where its
        actor is away too."""
        place = await self._ask(self._index, self._life)
        if place.life == self._life:
            return
        if self._engine is None:
            self._engine = self._talk_to(place)
        else:
            await self._engine.move(place.url, place.facts, place.version)
        self._life = place.life

    def _talk_to(self, place: Place) -> SGLangEngine:
        engine = self._config.engine
        return SGLangEngine(
            place.url,
            layout=self._links.layout,
            version=place.version,
            timeout=engine.timeout,
            max_context=engine.max_context,
            seed=self._config.run.seed + self._index,
            facts=place.facts,
            mark=self._links.mark,
        )

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        if self._engine is None:
            raise EngineGone(f"engine replica {self._index} has not been met yet")
        return await self._engine.generate(ids, params, session=session)

    async def load(self) -> Load:
        """What its server has to do."""
        return await self._engine.load() if self._engine is not None else Load()

    async def release(self, session: str) -> None:
        if self._engine is not None:
            await self._engine.release(session)

    async def update_weights(self, update: WeightUpdate) -> None:
        raise ModelError("the fleet brings a replica its weights, not who plays on it")

    async def aclose(self) -> None:
        if self._engine is not None:
            await self._engine.aclose()


def hosted_engine(config: Config, links: Links, ask: AskPlace) -> ReplicatedEngine:
    """All replicas as one engine; each serves from when it has been met."""
    engines = [HostedEngine(ask, config, links, i) for i in range(len(links.actors))]

    async def revive(index: int) -> None:
        await engines[index].meet()

    return ReplicatedEngine(engines, revive=revive, serving=False)
