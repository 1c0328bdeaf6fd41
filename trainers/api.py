"""What users call: train, sft, evaluate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.arguments import settings
from agentgym.config import Config, EnvConfig, load_config, recipe_for
from agentgym.errors import ConfigError, UserError
from agentgym.evals.folder import EvalFolder
from agentgym.evals.plan import Evaluation, Suite
from agentgym.event_loop import outside_event_loop
from agentgym.protocols import Reporter
from agentgym.report.console import make_reporter
from agentgym.report.terminal import quiet_libraries
from agentgym.run_folder import RunFolder

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
    (`trainer__steps=3`). resume: a run folder to go on with, by its own settings; only `trainer.steps` may be given,
    which lengthens it. Raises `UserError`s that say what to mend, and `KeyboardInterrupt` after a clean stop.
    """
    began = time.perf_counter(), time.process_time()  # what follows loads torch, which a run has to pay for
    quiet_libraries()
    if resume is not None:
        folder = RunFolder.open(resume)
        resolved = folder.load_config(_more_steps(config, recipe, overrides))
    else:
        resolved = resolve(config, recipe, overrides)
        folder = RunFolder.create(resolved.run.dir or default_dir(resolved), resolved)
    with folder.held():
        if resume is not None:
            folder.write_config(resolved)  # it may be longer from now on
        return _train(resolved, folder, reporter, resume is not None, began)


def _train(
    resolved: Config, folder: RunFolder, reporter: Reporter | None, resumed: bool, began: tuple[float, float]
) -> dict[str, Any]:
    from agentgym.trainers.session import Session

    own = reporter is None
    reporter = reporter or make_reporter(resolved.run.live)
    session = Session(resolved, folder, reporter, resumed=resumed, began=began)
    try:
        _build(session, None if resumed else folder)
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
    env: str | EnvConfig | Sequence[str | EnvConfig] | None = None,
    *,
    tasks: int = 400,
    samples: int = 1,
    temperature: float = 1.0,
    greedy: bool = False,
    seed: int | None = None,
    k: Sequence[int] = (),
    minimums: Mapping[str, float] | None = None,
    suite: Suite | None = None,
    out: str | None = None,
    config: Config | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Play held-out tasks with a model and return its report.

    model: a model folder, Hugging Face id, run folder, or the URL of an OpenAI-compatible endpoint (its key is read
    from OPENAI_API_KEY). env: an id or `path.py:name`, or several; None: the run's own. tasks: at most so many of each;
    samples: episodes of each task. k: for pass@k and pass^k (none: 1, 2, 4, ... samples). minimums: figures that the
    report is held to later. suite: environments with numbers of their own, in place of `env`. out: a folder that keeps
    episodes and report and can be gone on with (`resume_evaluation`).

    The report has the figures of summary.json's `after` and those of `evals.figures.env_figures`; with several
    environments their mean, and each one's under `envs`. Raises `UserError`s.
    """
    from agentgym.trainers.evaluate import plan_evaluation

    several = isinstance(env, Sequence) and not isinstance(env, str)
    envs: list[Any] = list(suite.env if suite else env) if several or suite else [env]  # type: ignore[arg-type]
    if config is None:
        first = None if suite else envs[0].id if isinstance(envs[0], EnvConfig) else envs[0]
        config = load_config(_own_config(model)) if suite else settings(model, None, first, None, None, None, [])
    known = {spec.id: spec for spec in config.all_envs} | {spec.label: spec for spec in config.all_envs}
    chosen = [known.get(e) or EnvConfig(id=e) if isinstance(e, str) else e or config.env for e in envs]
    plan = plan_evaluation(
        model,
        config,
        chosen,
        tasks=tasks,
        samples=samples,
        temperature=temperature,
        greedy=greedy,
        seed=seed,
        ks=k,
        minimums=minimums,
        suite=suite,
    )
    return _evaluate(plan, EvalFolder.create(out, plan) if out else None, reporter)


@outside_event_loop()
def resume_evaluation(folder: str, *, retry_unscored: bool = False, reporter: Reporter | None = None) -> dict[str, Any]:
    """Play what an evaluation's folder lacks, and return its report: the numbers of one that was never interrupted.

    retry_unscored: episodes that could not be played or scored are missing too. Raises `UserError`s.
    """
    opened = EvalFolder.open(folder)
    opened.mend(retry_unscored=retry_unscored)
    return _evaluate(opened.plan, opened, reporter)


def _evaluate(plan: Evaluation, folder: EvalFolder | None, reporter: Reporter | None) -> dict[str, Any]:
    quiet_libraries()
    from agentgym.trainers.evaluate import run_evaluation

    own = reporter is None
    reporter = reporter or make_reporter(plan.config.run.live)
    try:
        report = run_evaluation(plan, reporter, folder)
        if cause := report["unscored_cause"]:
            reporter.note(f"{report['unscored']} of {report['n']} episodes are unscored; most often: {cause}")
        return report
    finally:
        if own:
            reporter.close()


def _own_config(model: str) -> Path | None:
    """The configuration of a run; None for what is no run."""
    found = Path(model).expanduser() / "config.toml"
    return found if found.is_file() else None


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


def _more_steps(
    config: Config | Mapping[str, Any] | None, recipe: str | None, overrides: Mapping[str, Any]
) -> int | None:
    """What may be given to a run that is resumed."""
    if recipe is not None or isinstance(config, Config):
        raise ConfigError("resume goes on with the run's own settings: leave out recipe and config")
    given = {**(config or {}), **{key.replace("__", "."): value for key, value in overrides.items()}}
    if extra := ", ".join(key for key in given if key != "trainer.steps"):
        raise ConfigError(
            f"resume goes on with the run's own settings, only trainer.steps can be more: leave out {extra}"
        )
    return load_config(None, given).trainer.steps if given else None


def default_dir(config: Config) -> str:
    import re

    name = re.sub(r"[^A-Za-z0-9_.]+", "-", config.all_envs[0].id.rpartition("/")[2]) or "run"
    return f"runs/{name.lower()}-{time.strftime('%Y%m%d-%H%M%S')}"
