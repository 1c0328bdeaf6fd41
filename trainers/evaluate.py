"""Plays an evaluation: what its folder lacks, each episode recorded as it ends, and then the report.

An episode's seed comes of the evaluation's seed, its environment, task and sample: what else is played, and in which
order, changes nothing (but the rounding of logits in another batch, which can very rarely turn a sampled token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.config import Config, EnvConfig
from agentgym.engines.endpoint import check_url, is_endpoint
from agentgym.errors import EngineFault, EvaluationError, RunError
from agentgym.evals.figures import success
from agentgym.evals.folder import EvalFolder
from agentgym.evals.plan import EnvPlan, Evaluation, Suite, SuiteEnv, choose_ks, distinct, with_config_envs
from agentgym.evals.report import make_report, to_markdown
from agentgym.evals.rows import EvalRow, Key, row_of
from agentgym.hub import WEIGHTS
from agentgym.protocols import Reporter
from agentgym.rollout.worker import WorkerSpec, env_factory
from agentgym.run_folder import model_path
from agentgym.trainers.evaluation import eval_set, shown
from agentgym.trainers.rollouts import make_rollouts
from agentgym.trainers.stall import StallWatch
from agentgym.types import GroupRequest

HOPELESS = 2
"""An endpoint is down when so many times the episodes under way have failed, one after the other."""


def plan_evaluation(
    model: str,
    config: Config,
    envs: Sequence[EnvConfig],
    *,
    tasks: int,
    samples: int,
    temperature: float = 1.0,
    greedy: bool = False,
    seed: int | None = None,
    ks: Sequence[int] = (),
    minimums: Mapping[str, float] | None = None,
    suite: Suite | None = None,
) -> Evaluation:
    """What to play; the environments are made once, to see that they can be and how many tasks they hold out.

    A suite's own numbers come before those given here. Raises `UserError`s.
    """
    suite = suite or Suite.model_construct(env=[])
    bounds = {**suite.min, **(minimums or {})}
    chosen = distinct([_plain(env) for env in envs])
    config = with_config_envs(config, chosen)
    make = env_factory(config)
    plans: list[EnvPlan] = []
    for given, env in zip(envs, chosen, strict=True):
        own = given if isinstance(given, SuiteEnv) else SuiteEnv()
        name = env.label
        found = eval_set(name, make(name), own.tasks or suite.tasks or tasks, own.split)
        played = own.samples or suite.samples or samples
        wanted = {**bounds, **own.min}
        plans.append(
            EnvPlan(name, env.id, found.split, found.count, played, choose_ks(ks, played, wanted), dict(own.min))
        )
    path = model_path(model)
    if is_endpoint(path):
        path = path.rstrip("/")
        check_url(path)
        config.run.processes = 1  # nothing to overlap: the model is elsewhere
        config.endpoint.model = config.endpoint.model or _only_model(path, config)
    return Evaluation(
        model=model,
        path=path,
        seed=next(s for s in (suite.seed, seed, config.eval.seed) if s is not None),
        temperature=temperature if suite.temperature is None else suite.temperature,
        greedy=greedy,
        envs=tuple(plans),
        config=config,
        stamp=stamp(path),
        min=bounds,
    )


def run_evaluation(plan: Evaluation, reporter: Reporter, folder: EvalFolder | None = None) -> dict[str, Any]:
    """Play what the folder lacks (everything, without one) and return the report, which is also written there.

    Raises `UserError`s: of the model, and where an endpoint turns out to be down.
    """
    rows = folder.rows() if folder is not None else {}
    missing = [key for key in plan.keys if key not in rows]
    if missing:
        if plan.stamp != stamp(plan.path):
            raise RunError(f"{plan.path} has changed since this evaluation began: start another")
        _play(plan, missing, rows, reporter, folder)
    report = make_report(plan, list(rows.values()), folder.path if folder else None)
    if folder is not None:
        folder.write_report(report, to_markdown(report))
    return report


def _play(
    plan: Evaluation, missing: Sequence[Key], rows: dict[Key, EvalRow], reporter: Reporter, folder: EvalFolder | None
) -> None:
    stalls = StallWatch(plan.config.run.stall_seconds, reporter.note)
    rollouts = make_rollouts(WorkerSpec(plan.config, plan.path), reporter.note, stalls)
    try:
        rollouts.ready()
        reporter.stage("evaluate", len(plan.keys), "episodes")
        if rows:
            reporter.note(f"{len(rows)} of {len(plan.keys)} episodes were played before")
        rollouts.submit([_request(plan, key) for key in missing])
        watch = _Watch(plan, folder)
        for _ in missing:
            group = rollouts.receive()
            assert group.request is not None
            assert isinstance(group.request.task, int)
            trajectory = group.trajectories[0]
            row = row_of(trajectory, group.request.task)
            rows[row.key] = row
            if folder is not None:
                folder.add(row, trajectory)
            reporter.advance(len(rows), success=shown(success(rows.values())))
            stalls.about = f"{len(rows)} of {len(plan.keys)} episodes are there"
            reporter.episode(trajectory)
            watch.see(row)
    finally:
        rollouts.close()


def _request(plan: Evaluation, key: Key) -> GroupRequest:
    name, task, sample = key
    split = next(env.split for env in plan.envs if env.name == name)
    temperature = 0.0 if plan.greedy else plan.temperature
    # the same id as a run's own evaluations have, and so the same seeds
    return GroupRequest(f"eval:{plan.mode}:{name}:{task}", name, task, 1, plan.seed, temperature, split, sample)


class _Watch:
    """Ends an evaluation whose endpoint answers nobody, instead of asking it for every episode that is left."""

    def __init__(self, plan: Evaluation, folder: EvalFolder | None):
        self._limit = HOPELESS * plan.config.endpoint.concurrency if is_endpoint(plan.path) else 0
        self._where = f"; go on by --resume {folder.path} --retry-unscored" if folder else ""
        self._failed = 0

    def see(self, row: EvalRow) -> None:
        self._failed = self._failed + 1 if row.fault == EngineFault.kind and not row.scored else 0
        if self._limit and self._failed >= self._limit:
            raise EvaluationError(f"{self._failed} episodes in a row failed, the last: {row.error}{self._where}")


def check_scored(report: Mapping[str, Any]) -> None:
    """Raises `EvaluationError` where no episode of the report could be scored."""
    if report.get("n") and report.get("unscored") == report["n"]:
        raise EvaluationError(f"none of {report['n']} episodes could be played and scored: {report['unscored_cause']}")


def stamp(path: str) -> str:
    """Sizes and times of a model folder's weights; "" for what is no folder."""
    files = sorted(found for pattern in WEIGHTS for found in Path(path).glob(pattern)) if not is_endpoint(path) else []
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def _plain(env: EnvConfig) -> EnvConfig:
    """The environment without what a suite says beside it."""
    return EnvConfig(**{key: getattr(env, key) for key in EnvConfig.model_fields})


def _only_model(url: str, config: Config) -> str:
    from agentgym.engines.make import make_endpoint

    return make_endpoint(url, config).model
