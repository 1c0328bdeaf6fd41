"""A training run from start to end: build, warm start, evaluate, learn, evaluate, save. Resumable at every point."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any

from agentgym.config import Config
from agentgym.engines.size import context_of
from agentgym.errors import ConfigError
from agentgym.loading import is_reference
from agentgym.protocols import BatchCredit, Reporter, WeightSync
from agentgym.report.curve import draw_curve
from agentgym.report.metrics import MetricsWriter
from agentgym.rollout.make import load_tokenizer, make_renderer
from agentgym.rollout.worker import WorkerSpec, env_factory
from agentgym.run_folder import RunFolder
from agentgym.trainers.annotators import make_annotator
from agentgym.trainers.batch import Row, always
from agentgym.trainers.checkpoint import (
    list_checkpoints,
    load_beside,
    load_buffer,
    load_state,
    save_checkpoint,
    save_model,
)
from agentgym.trainers.credit import each, make_credit
from agentgym.trainers.demonstrations import Demonstration, demonstration_rows
from agentgym.trainers.failures import FailureBudget
from agentgym.trainers.frontier import Frontier
from agentgym.trainers.gap import GapProbe, ReplayGap
from agentgym.trainers.gold import GoldWatch
from agentgym.trainers.held_out import HeldOut
from agentgym.trainers.interim import Interim
from agentgym.trainers.interrupt import Interrupt
from agentgym.trainers.learner import Learner
from agentgym.trainers.ledger import could_teach
from agentgym.trainers.loop import Loop, accepted, accepted_only, hand_over, shuffled_rewards
from agentgym.trainers.losses import make_loss, supervised_loss
from agentgym.trainers.models import load_model
from agentgym.trainers.optim import schedule
from agentgym.trainers.origin import starting_model
from agentgym.trainers.pipeline import Pipeline
from agentgym.trainers.placement import check_placement, make_turns
from agentgym.trainers.played_envs import played_envs
from agentgym.trainers.preparation import Preparation, make_preparation
from agentgym.trainers.ranks.make import make_learner
from agentgym.trainers.recorder import Recorder
from agentgym.trainers.rollouts import Rollouts, make_rollouts
from agentgym.trainers.shaping import shaped, within_limits
from agentgym.trainers.skips import SkipGuard
from agentgym.trainers.stall import StallWatch
from agentgym.trainers.surroundings import check_program, check_surroundings
from agentgym.trainers.tally import Clock, Tally
from agentgym.trainers.turns import Apart
from agentgym.trainers.warm_start import gather, rl_options, sft_options, warm_start
from agentgym.trainers.weights.make import make_sync

SAVE_SECONDS = 60.0
"""A warm start that takes longer than this is checkpointed so often."""
PROBE_BYTES = 1 << 30
"""Models up to this size keep copies of their last versions, to recompute logprobs with exactly those."""


class Session:
    """Holds the parts of one run. Each public method is a stage."""

    def __init__(
        self, config: Config, folder: RunFolder, reporter: Reporter, *, resumed: bool, began: tuple[float, float]
    ):
        """began: `perf_counter` and `process_time` where the run's time is counted from."""
        self.config, self.folder, self.reporter = config, folder, reporter
        self.tally = Tally()
        self.step = 0
        self._pipeline_state: dict[str, Any] | None = None
        self._clock = Clock(*began)
        checkpoints = list_checkpoints(folder.checkpoints) if resumed else []
        self._checkpoint = checkpoints[-1] if checkpoints else None
        self._shown: list[Demonstration] | None = None
        self._rollouts: Rollouts | None = None
        self._sync: WeightSync | None = None
        self._learner: Learner | None = None
        self.turns = Apart()
        self._metrics = MetricsWriter(folder)
        self._guard = SkipGuard(folder, config.learner.max_skipped)
        self._watch = StallWatch(
            config.run.stall_seconds,
            reporter.note,
            lambda row: folder.append("stalls.jsonl", {"step": self.step, **row}),
        )
        self._make_env = env_factory(config)
        self.interrupt = Interrupt(
            lambda how: reporter.note(f"stopping at the next safe point; {how} again stops at once")
        )
        self._held_out = HeldOut(config, self._make_env, folder, reporter, self._watch, self.interrupt.check)

    # ---- stages ----

    def build(self) -> None:
        """The model, its tokenizer, the learner, and the rollout worker on the same weights."""
        import torch

        config = self.config
        self.reporter.stage("build model")
        torch.set_num_threads(config.learner.threads)
        torch.manual_seed(config.run.seed)
        check_placement(config)
        check_surroundings(config)
        make_loss(config)  # a mistake here is reported before anything starts, too
        self._check_envs()
        if self._checkpoint is not None:
            model = self._restore(self._checkpoint)
        else:
            self.folder.rewind(0)  # of a run that was stopped before its first checkpoint, all is done again
            check_program(config, self._make_env, self._played.sources, self.reporter.note)
            torch.manual_seed(config.run.seed)  # whatever the program drew
            demonstrations = [] if config.model.path else self._demonstrations()
            origin = starting_model(config, self.folder, self._make_env, demonstrations)
            model, self.tokenizer, self._model_path = asyncio.run(origin)
            if config.model.lora_rank and not config.model.path:  # what adapters are put beside, also when resumed
                save_model(model, self.tokenizer, self.folder.path / "base")
        config.engine.max_context = context_of(model.config, config.engine.max_context)
        warming = self.tally.sft_steps and not self.tally.warm
        options = sft_options(config) if warming else rl_options(config)
        self._learner = make_learner(config, model, options, self.reporter.note)
        if self._checkpoint is not None:
            self.learner.load_state(self._checkpoint)
        self._annotator = make_annotator(config, self.learner, self.tokenizer, self._played.answers)
        if self._checkpoint is not None:
            self._annotator.load_state_dict(load_beside(self._checkpoint, "annotator"))
        self.turns = make_turns(config, self._learner, self._annotator)
        self.interrupt.put_off()
        if config.trainer.steps or config.eval.tasks:
            spec = WorkerSpec(config, self._model_path, self.step)
            self.turns.begin(lambda: self._start_rollouts(spec))
        size = sum(p.numel() for p in self.learner.model.parameters())
        self.reporter.note(f"{type(model).__name__}, {size / 1e6:.2f} M parameters, {len(self.tokenizer)} tokens")

    def warm_start(self) -> None:
        """Supervised learning on demonstrations, where the config asks for it."""
        if self.tally.warm or not self.config.sft.steps:
            return
        if rows := self._demonstrated():
            self._learn_demonstrations(rows)
        self.learner.restart(rl_options(self.config))
        self.tally.warm = True
        if self._rollouts is not None:
            self._rollouts.ready()  # it loads the model from the folder that is now replaced
        save_model(self.learner, self.tokenizer, self.folder.model)
        self.checkpoint()

    def evaluate(self, when: str) -> dict[str, Any]:
        """Held-out success with the present weights; `before` is kept by checkpoints."""
        if not self.config.eval.tasks:
            return {}
        if when == "before" and self.tally.before:
            return self.tally.before
        self._publish()
        figures = self._held_out.play(when, self.rollouts)
        self._metrics.log({"eval": when, **figures}, self.step)
        if when == "before":
            self.tally.before = figures
            self.checkpoint()
        return figures

    def learn(self) -> None:
        """The RL phase."""
        config = self.config
        steps = config.trainer.steps
        if self.step >= steps:
            return
        self.reporter.stage("train", steps, "steps")
        if config.learner.kl and self.learner.reference is None:
            self.turns.learn()
            self.learner.hold_here()
        interim = self._held_out.interim(self.rollouts, self._metrics.log)
        loop = self._loop(interim)
        cpu_began = self._cpu(loop.rollouts)
        rl_cpu_before = self.tally.rl_cpu_s
        loop.publish()
        failures = FailureBudget(config.rollout.failure_budget, config.rollout.failure_window)
        watch = GoldWatch(self._played.gold, self.tally.warned)
        recorder = Recorder(self.folder, self.reporter, self._metrics, self.tally, failures, watch)
        recorder.turns.credit = config.trainer.credit
        recorder.accounts.begin(loop.rollouts.stats())
        interim.again(self.step, self.folder.rows("metrics.jsonl"))
        while self.step < steps:
            groups, ledger, metrics = loop.run_step()
            self.step = loop.step
            self.tally.rl_cpu_s = rl_cpu_before + self._cpu(loop.rollouts) - cpu_began
            recorder.step(loop, groups, ledger, metrics)
            self._guard.check(self.learner.skips, self.step)
            spent = config.trainer.max_cpu_seconds and self.tally.rl_cpu_s >= config.trainer.max_cpu_seconds
            last = self.step == steps or bool(spent) or self.interrupt.requested
            if last or self.step % config.trainer.checkpoint_every == 0:
                self.checkpoint(loop.pipeline)
            recorder.accounts.recorded()
            if last:
                break
            interim.after(self.step, steps)
        if not self.learner.agreement.reached:
            self.reporter.note(
                "the policy was left almost as it was: gradients of different episodes never agreed, as where rewards "
                "are noise, rare or all the same (learner.agreement = 0 moves it all the same)"
            )
        self.interrupt.check()

    def finish(self, after: dict[str, Any]) -> dict[str, Any]:
        """Save the model as a Hugging Face folder and write the summary."""
        self.reporter.stage("save")
        save_model(self.learner, self.tokenizer, self.folder.model)
        summary = self.summary(after)
        self.folder.write_summary(summary)
        self._metrics.close()
        draw_curve(self.folder)
        return summary

    def summary(self, after: dict[str, Any]) -> dict[str, Any]:
        self._count_time()
        return {
            "env": ",".join(env.label for env in self.config.all_envs),
            "seed": self.config.run.seed,
            "steps": self.step,
            **self.tally.summary(),
            "after": after,
            "tokens_per_success": after.get("tokens_per_success"),
            "control": self.config.trainer.control,
        }

    def checkpoint(self, pipeline: Pipeline | None = None) -> None:
        """Everything needed to go on from here."""
        self._count_time()
        state = {
            "tally": self.tally.state(),
            "pipeline": pipeline.state() if pipeline else self._pipeline_state,
        }
        keep = self.config.trainer.keep_checkpoints
        beside = {"annotator": self._annotator.state_dict()}
        buffer = pipeline.finished() if pipeline else []
        save_checkpoint(self.folder.checkpoints, self.step, self.learner, self.tokenizer, state, keep, beside, buffer)

    def close(self) -> None:
        """Nothing is left behind: no process, no shared memory. What one part fails of keeps no other from it."""
        with contextlib.ExitStack() as parts:
            parts.callback(self.interrupt.close)
            for part in (self._learner, self._sync, self._rollouts):  # the last is closed first
                if part is not None:
                    parts.callback(part.close)

    # ---- parts ----

    @property
    def learner(self) -> Learner:
        assert self._learner is not None, "build() comes first"
        return self._learner

    @property
    def rollouts(self) -> Rollouts:
        assert self._rollouts is not None, "build() comes first"
        return self._rollouts

    def _demonstrations(self) -> list[Demonstration]:
        """Played or read once; none where the config asks for no warm start."""
        if self._shown is None:
            config = self.config
            if config.sft.steps:
                self.reporter.stage("demonstrations", None if config.sft.data else config.sft.examples, "conversations")
            self._shown = gather(config, env_factory(config, demonstrations=True)) if config.sft.steps else []
            self.reporter.advance(len(self._shown))
        return self._shown

    def _demonstrated(self) -> list[Row]:
        """The demonstrations' rows; empty, with a note, where an env has none to show."""
        if not (shown := self._demonstrations()):
            remedy = "give conversations by sft.data, demos in the tasks, or an expert in the env"
            if not self.config.trainer.steps:
                raise ConfigError(f"nothing to learn from: no env has a scripted expert, no task a demo; {remedy}")
            self.reporter.note(f"no warm start: no env has a scripted expert, no task a demo ({remedy})")
        renderer = make_renderer(self._model_path, self.config)
        return demonstration_rows(renderer, shown, self.config.engine.max_context)

    def _learn_demonstrations(self, rows: Sequence[Row]) -> None:
        config, tally = self.config, self.tally
        self.turns.learn()
        if not tally.sft_steps:
            self.learner.restart(sft_options(config))
        self.reporter.stage("warm start", config.sft.steps, "steps")
        saved = time.monotonic()
        for metrics in warm_start(self.learner, rows, config, start=tally.sft_steps):
            tally.sft_steps += 1
            tally.sft_loss = metrics.get("loss", math.nan)
            self.reporter.advance(tally.sft_steps, loss=tally.sft_loss)
            self._guard.check(self.learner.skips, 0)
            if self.interrupt.requested or time.monotonic() - saved > SAVE_SECONDS:
                self.checkpoint()
                saved = time.monotonic()
            self.interrupt.check()

    def _restore(self, path: Any) -> Any:
        self._model_path = str(path)
        self.tokenizer = load_tokenizer(str(path))
        state = load_state(path)
        self.step = state["step"]
        self.tally = Tally(**state["tally"])
        self._pipeline_state = state["pipeline"]
        self._clock.resumed(self.tally)
        self.folder.rewind(self.step, evaluated=("before",) if self.tally.before else ())
        self.reporter.note(f"resumed at step {self.step}")
        if self.config.model.lora_rank:  # the checkpoint's has the adapters in it
            return load_model(self.config.model.path or str(self.folder.path / "base"), self.config.model.dtype)
        return load_model(str(path))

    def _check_envs(self) -> None:
        """Build each env once here, so that a mistake in it is reported before anything starts."""
        rft = self.config.trainer.control == "rejection_sampling"
        self._credit: BatchCredit = each(accepted_only) if rft else shaped(make_credit(self.config), self.config)
        self._played = played_envs(self.config, self._make_env)

    def _loop(self, interim: Interim) -> Loop:
        config, control = self.config, self.config.trainer.control
        rollout = config.rollout
        rft = control == "rejection_sampling"
        credit, annotator = self._credit, self._annotator
        sources, seed = self._played.sources, config.run.seed
        frontier = Frontier(sources, rollout.group_size, seed, rollout.temperature, rollout.focus)
        pipeline = Pipeline(
            self.rollouts,
            frontier,
            groups=rollout.groups,
            max_staleness=rollout.max_staleness,
            steps=config.trainer.steps,
            replace=rollout.dynamic_sampling,
            teaches=lambda group: could_teach(credit, annotator([group])[0]),
            watch=self._watch,
            aside=interim.take,
        )
        if self._pipeline_state is not None:
            pipeline.restore(self._pipeline_state, self.step, load_buffer(self._checkpoint) if self._checkpoint else [])
        total, learner = config.trainer.steps, config.learner
        probe = self._probe()
        loop = Loop(
            pipeline=pipeline,
            rollouts=self.rollouts,
            learner=self.learner,
            credit=credit,
            annotator=annotator,
            loss=supervised_loss if rft else make_loss(config),
            preparation=Preparation() if rft else make_preparation(config),
            sync=self._weight_sync(),
            max_staleness=config.rollout.max_staleness,
            seed=config.run.seed,
            lr_scale=lambda step: schedule(step, total, warmup=learner.warmup, decay=learner.decay),
            probe=probe,
            replay=ReplayGap(probe) if learner.routing_replay else None,
            turns=self.turns,
            is_data=accepted if rft else within_limits if config.loss.mask_truncated else always,
            run_idle=not rft and is_reference(config.trainer.loss),  # who knows what is in it
            step=self.step,
        )
        if control == "shuffle_rewards":
            loop.prepare = shuffled_rewards(config.run.seed)
        return loop

    def _probe(self) -> GapProbe | None:
        if self.config.cluster.placement == "colocated":  # its model would stay on the GPU
            return None
        size = sum(p.numel() * p.element_size() for p in self.learner.model.parameters())
        keep = self.config.rollout.max_staleness + 1
        return GapProbe(self.learner, keep=keep) if size * (keep + 1) <= PROBE_BYTES else None

    def _weight_sync(self) -> WeightSync:
        if self._sync is None:
            self._sync = make_sync(self.config, self.learner, self._model_path, self.folder.path / "weights")
        return self._sync

    def _publish(self) -> None:
        hand_over(self.step, self.learner, self._weight_sync(), self.rollouts, self.turns)

    def _start_rollouts(self, spec: WorkerSpec) -> Any:
        self._rollouts = make_rollouts(spec, self.reporter.note, self._watch)
        if spec.config.cluster.placement == "colocated":
            self._rollouts.ready()  # else the learner would go on while the server takes its memory
        return self._rollouts

    def _cpu(self, rollouts: Rollouts) -> float:
        return time.process_time() + rollouts.stats()["cpu_s"] + self.learner.others_cpu_s

    def _count_time(self) -> None:
        others = self._learner.others_cpu_s if self._learner else 0.0
        self._clock.read(self.tally, others + (self._rollouts.stats()["cpu_s"] if self._rollouts else 0.0))
