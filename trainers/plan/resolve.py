"""A config -> what its run would take."""

from __future__ import annotations

from dataclasses import dataclass

from agentgym.config import Config
from agentgym.engines.size import context_of
from agentgym.trainers.plan.batches import Batch, expected, plan_batch
from agentgym.trainers.plan.layout import Layout, lay_out
from agentgym.trainers.plan.memory import EngineMemory, LearnerMemory, engine_memory, learner_memory
from agentgym.trainers.plan.model import Model, read_model
from agentgym.trainers.plan.times import LearnTime, PlayTime, SyncTime, learn_time, play_time, sync_time


@dataclass(frozen=True, slots=True)
class Lack:
    """A part that does not fit: bytes that it needs, of those there are."""

    part: str
    needs: int
    has: int

    @property
    def over(self) -> int:
        return self.needs - self.has


@dataclass(frozen=True, slots=True)
class Plan:
    config: Config
    model: Model
    layout: Layout
    batch: Batch
    learner: LearnerMemory
    engine: EngineMemory
    learn: LearnTime
    play: PlayTime
    sync: SyncTime

    @property
    def in_turn(self) -> bool:
        """Whether one side waits for the other: on one card, or where nothing may be stale."""
        return self.layout.shared or not self.config.rollout.max_staleness

    @property
    def step_seconds(self) -> float:
        """Of one step: both sides after each other, or the slower one."""
        learn, play = self.learn.total, self.play.total
        if not self.config.rollout.max_staleness:
            play = max(play, self.play.longest)
        return (learn + play if self.in_turn else max(learn, play)) + self.sync.seconds

    @property
    def lacks(self) -> list[Lack]:
        """What does not fit; empty: all does."""
        layout = self.layout
        if self.config.cluster.placement == "colocated":
            # in turn; what each process leaves alone stays on the card
            needs = {
                "the learner in its turn": (self.learner.total + self.engine.reserve, layout.learner.memory),
                "the engine in its turn": (self._engine + self.learner.reserve, layout.engine.memory),
            }
        elif layout.shared or (layout.learner.is_cpu and layout.engine.is_cpu):
            where = "learner and engine on one GPU" if layout.shared else "learner and engine in this machine's memory"
            needs = {where: (self.learner.total + self.engine.total, layout.learner.memory)}
        else:
            needs = {
                "a learner rank": (self.learner.total, layout.learner.memory),
                f"an engine's {'GPU' if not layout.engine.is_cpu else 'memory'}": (self._engine, layout.engine.memory),
            }
        return [Lack(part, need, has) for part, (need, has) in needs.items() if need > has]

    @property
    def _engine(self) -> int:
        """With room for one sequence of the whole context at least."""
        return max(
            self.engine.total, self.engine.weights + self.engine.token * self.batch.context + self.engine.reserve
        )


def make_plan(config: Config, model: Model | None = None) -> Plan:
    """Loads no weights and starts nothing. `model` saves counting it again. Raises `UserError`s."""
    model = model or read_model(config)
    config = config.model_copy(deep=True)
    config.engine.max_context = context_of(model.config, config.engine.max_context)
    layout = lay_out(config, model)
    batch = plan_batch(config, model.config, layout.groups)
    learner = learner_memory(config, model, layout, batch.micro_tokens)
    beside = learner.weights + learner.reserve if layout.shared else 0
    engine = engine_memory(config, model, layout, beside, expected(config))
    return Plan(
        config=config,
        model=model,
        layout=layout,
        batch=batch,
        learner=learner,
        engine=engine,
        learn=learn_time(config, model, layout, batch),
        play=play_time(config, model, layout, batch, engine),
        sync=sync_time(config, model, layout),
    )


def with_ranks(plan: Plan, ranks: int, replicas: int) -> Plan:
    """The same with other numbers of learner ranks and engines."""
    config = plan.config.model_copy(deep=True)
    config.learner.ranks, config.engine.replicas = ranks, replicas
    return make_plan(config, plan.model)
