"""What users call: train, sft, evaluate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentgym.arguments import settings
from agentgym.config import Config, EnvConfig, load_config, recipe_for
from agentgym.errors import ConfigError, UserError
from agentgym.event_loop import outside_event_loop
from agentgym.protocols import Reporter
from agentgym.report.console import make_reporter
from agentgym.run_folder import RunFolder, model_path

if TYPE_CHECKING:
    from agentgym.trainers.session import Session


@outside_event_loop()
def train(
    config: Config | Mapping[str, Any] | None = None,
    *,
    recipe: str | None = None,
    resume: str | None = None,
    reporter: Reporter | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train an agent and return the run's summary (the contents of its summary.json).

    config: a `Config`, or keys dotted or nested over the recipe; overrides: the same with `__` for the dot
    (`trainer__steps=3`). resume: a run folder to go on with, then nothing else is needed. Raises `UserError`s that say
    what to mend, and `KeyboardInterrupt` after a clean stop.
    """
    began = time.perf_counter(), time.process_time()  # what follows loads torch, which a run has to pay for
    from agentgym.trainers.session import Session

    if resume is not None:
        folder = RunFolder.open(resume)
        resolved = folder.load_config()
    else:
        resolved = resolve(config, recipe, overrides)
        folder = RunFolder.create(resolved.run.dir or default_dir(resolved), resolved)
    own = reporter is None
    reporter = reporter or make_reporter(resolved.run.live)
    session = Session(resolved, folder, reporter, resumed=resume is not None, began=began)
    try:
        _build(session, folder if resume is None else None)
        session.warm_start()
        session.evaluate("before")
        session.learn()
        return session.finish(session.evaluate("after"))
    finally:
        session.close()
        if own:
            reporter.close()


def sft(
    config: Config | Mapping[str, Any] | None = None,
    *,
    recipe: str | None = None,
    reporter: Reporter | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Supervised learning alone: the warm start of `train`, on `sft.data` or an env's scripted expert.

    Takes what `train` takes and leaves a run folder of the same kind (`train(resume=...)` goes on with it); returns its
    summary, where `sft` has the steps and the last loss.
    """
    resolved = resolve(config, recipe, overrides)
    if not resolved.sft.steps:
        raise ConfigError("sft.steps = 0: there is nothing to do; give a number of steps")
    resolved.trainer.steps = 0
    resolved.eval.tasks = 0
    return train(resolved, reporter=reporter)


@outside_event_loop()
def evaluate(
    model: str,
    env: str | EnvConfig | None = None,
    *,
    tasks: int = 400,
    samples: int = 1,
    temperature: float = 1.0,
    greedy: bool = False,
    seed: int | None = None,
    config: Config | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Play held-out tasks of `env` with a model folder, Hugging Face id or run folder, and return its success.

    env: an id or `path.py:name`; None: the run's own. tasks: at most so many; samples: episodes of each. The figures
    are those of summary.json's `after`, with `pass@k` (share of tasks solved in k = samples tries) and `stderr` (the
    standard error of the success rate, clustered by task). Raises `UserError`s.
    """
    from agentgym.rollout.worker import WorkerSpec, env_factory
    from agentgym.trainers import evaluation
    from agentgym.trainers.rollouts import make_rollouts

    if config is None:
        chosen = env.id if isinstance(env, EnvConfig) else env
        config = settings(model, None, chosen, None, None, None, [])
    if isinstance(env, EnvConfig):
        config.env = env
    chosen_set = evaluation.eval_set(config.env.id, env_factory(config)(config.env.id), tasks)
    plan = evaluation.EvalPlan((chosen_set,), config.eval.seed if seed is None else seed, temperature, samples)
    own = reporter is None
    reporter = reporter or make_reporter(config.run.live)
    played: list[Any] = []

    def seen(trajectories: Any) -> None:
        played.extend(trajectories)
        reporter.advance(len(played), success=evaluation.shown(evaluation.success(played)))

    rollouts = make_rollouts(WorkerSpec(config, model_path(model)))
    try:
        rollouts.ready()
        reporter.stage("evaluate", plan.episodes, "episodes")
        evaluation.play_held_out(rollouts, plan, greedy=greedy, played=seen)
        if remark := evaluation.unscored_remark(played):
            reporter.note(remark)
    finally:
        rollouts.close()
        if own:
            reporter.close()
    figures = evaluation.report([], played) if greedy else evaluation.report(played, [])
    return {
        "model": model,
        "env": config.env.id,
        "split": chosen_set.split,
        **figures,
        **evaluation.report_tasks(played),
    }


def _build(session: Session, new: RunFolder | None) -> None:
    try:
        session.build()
    except UserError:  # nothing has been done yet: the mended command may use the same folder
        if new is not None:
            new.discard()
        raise


def resolve(config: Config | Mapping[str, Any] | None, recipe: str | None, overrides: Mapping[str, Any]) -> Config:
    """One checked config out of the forms that `train` takes."""
    if isinstance(config, Config):
        return config
    given = {**(config or {}), **{key.replace("__", "."): value for key, value in overrides.items()}}
    return load_config(recipe_for(recipe, given), given)


def default_dir(config: Config) -> str:
    import re

    name = re.sub(r"[^A-Za-z0-9_.]+", "-", config.all_envs[0].id.rpartition("/")[2]) or "run"
    return f"runs/{name.lower()}-{time.strftime('%Y%m%d-%H%M%S')}"
