"""What users call: train, sft, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgym.config import Config, load_config
from agentgym.protocols import Reporter
from agentgym.report.console import make_reporter
from agentgym.run_folder import RunFolder


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
    from agentgym.trainers.session import Session

    if resume is not None:
        folder = RunFolder.open(resume)
        resolved = folder.load_config()
    else:
        resolved = resolve(config, recipe, overrides)
        folder = RunFolder.create(resolved.run.dir or default_dir(resolved), resolved)
    own = reporter is None
    reporter = reporter or make_reporter(resolved.run.live)
    session = Session(resolved, folder, reporter, resumed=resume is not None)
    try:
        session.build()
        session.warm_start()
        session.evaluate("before")
        session.learn()
        return session.finish(session.evaluate("after"))
    finally:
        session.close()
        if own:
            reporter.close()


def resolve(config: Config | Mapping[str, Any] | None, recipe: str | None, overrides: Mapping[str, Any]) -> Config:
    """One checked config out of the forms that `train` takes."""
    if isinstance(config, Config):
        return config
    given = {**(config or {}), **{key.replace("__", "."): value for key, value in overrides.items()}}
    return load_config(recipe or "store", given)


def default_dir(config: Config) -> str:
    import re
    import time

    name = re.sub(r"[^A-Za-z0-9_.]+", "-", config.all_envs[0].id.rpartition("/")[2]) or "run"
    return f"runs/{name.lower()}-{time.strftime('%Y%m%d-%H%M%S')}"
