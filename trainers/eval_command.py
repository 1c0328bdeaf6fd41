"""The body of `agentgym eval`: evaluate one model, go on with an evaluation, compare two, or make a matrix."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from agentgym.arguments import settings
from agentgym.config import Config, EnvConfig, load_config
from agentgym.engines.endpoint import check_url, is_endpoint
from agentgym.errors import ConfigError, RunError
from agentgym.evals.compare import compare, compare_tables, load_side, verdict
from agentgym.evals.folder import PLAN, EvalFolder, default_out, file_names
from agentgym.evals.matrix import make_matrix, matrix_notes, matrix_tables
from agentgym.evals.plan import Suite, read_suite
from agentgym.evals.report import report_tables, to_markdown
from agentgym.evals.tables import Table
from agentgym.evals.thresholds import Missed, missed, read_minimums
from agentgym.protocols import Reporter
from agentgym.report.summary import write_json
from agentgym.report.terminal import reporting
from agentgym.run_folder import model_path

BELOW = 1
"""Exit code where a figure is below its --min."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was typed."""

    models: Sequence[str] = ()
    envs: Sequence[str] = ()
    suite: str | None = None
    tasks: int = 400
    samples: int = 1
    k: str | None = None
    greedy: bool = False
    temperature: float = 1.0
    data: str | None = None
    reward: str | None = None
    tools: str | None = None
    agent: str | None = None
    seed: int | None = None
    recipe: str | None = None
    endpoint_model: str | None = None
    out: str | None = None
    resume: str | None = None
    retry_unscored: bool = False
    compare: bool = False
    matrix: bool = False
    minimums: Sequence[str] = ()
    to_json: str | None = None
    to_markdown: str | None = None
    overrides: Sequence[str] = field(default_factory=tuple)


def run(given: Options) -> int:
    """Do what was typed and return the exit code: 0, or `BELOW`. Raises `UserError`s."""
    if given.compare and given.matrix:
        raise ConfigError("--compare is of two evaluations, --matrix of several models: choose one")
    for model in given.models:
        if is_endpoint(model):
            check_url(model)
    if given.compare:
        return _compare(given)
    if given.matrix:
        return _matrix(given)
    if given.resume is not None:
        return _resume(given)
    if given.retry_unscored:
        raise ConfigError("--retry-unscored belongs to --resume DIR")
    if len(given.models) != 1:
        raise ConfigError("give one model folder, run or URL to evaluate; several go with --matrix or --compare")
    return _evaluate(given)


def _evaluate(given: Options) -> int:
    (model,) = given.models
    minimums, ks = read_minimums(given.minimums), read_ks(given.k)
    suite, config, envs = choose(model, given)
    named = ", ".join(env.label or "the tasks given" for env in envs)
    out = given.out or default_out(env.label for env in envs)
    with reporting(config, f"evaluating {model} on {named}", given.to_json == "-") as reporter, _resumable(out):
        report = _play(given, model, suite, config, envs, minimums, ks, out, reporter)
    return _tell(given, report, minimums, suite)


def _play(
    given: Options,
    model: str,
    suite: Suite | None,
    config: Config,
    envs: Sequence[EnvConfig],
    minimums: Mapping[str, float],
    ks: Sequence[int],
    out: str,
    reporter: Reporter,
) -> dict[str, Any]:
    from agentgym.trainers import api

    return api.evaluate(
        model_path(model),
        envs[0] if len(envs) == 1 else list(envs),
        tasks=given.tasks,
        samples=given.samples,
        temperature=given.temperature,
        greedy=given.greedy,
        seed=given.seed,
        k=ks,
        minimums=minimums,
        suite=suite,
        out=out,
        config=config,
        reporter=reporter,
    )


def _resume(given: Options) -> int:
    from agentgym.trainers import api

    assert given.resume is not None
    told = [*given.models, *given.envs, *given.overrides, *filter(None, (given.suite, given.agent))]
    if told:
        raise ConfigError(f"--resume goes on with the evaluation's own settings: leave out {', '.join(told)}")
    plan = EvalFolder.open(given.resume).plan
    title = f"going on with {given.resume}"
    with reporting(plan.config, title, given.to_json == "-") as reporter, _resumable(given.resume):
        report = api.resume_evaluation(given.resume, retry_unscored=given.retry_unscored, reporter=reporter)
    bounds = {**plan.min, **read_minimums(given.minimums)}
    owned = {env.name: env.min for env in plan.envs if env.min}
    return _tell(given, report, bounds, None, owned)


def _tell(
    given: Options,
    report: dict[str, Any],
    minimums: Mapping[str, float],
    suite: Suite | None,
    owned: Mapping[str, Mapping[str, float]] | None = None,
) -> int:
    """Print and write the report; raises `EvaluationError` where it has nothing scored."""
    from agentgym.trainers.evaluate import check_scored

    _show(given, report, report_tables(report), to_markdown(report))
    if given.to_json != "-" and "folder" in report:
        print(f"\nEpisodes and report are in {report['folder']}.")
    check_scored(report)
    own = owned or {env.label: env.min for env in (suite.env if suite else ())}
    below = missed(report, {**(suite.min if suite else {}), **minimums})
    for name, bounds in own.items():
        below += missed(report.get("envs", {}).get(name, {}), bounds, name)
    return _fail(below)


def _compare(given: Options) -> int:
    if len(given.models) != 2:
        raise ConfigError("--compare needs two folders of evaluations: agentgym eval --compare A B")
    found = compare(*[load_side(path) for path in given.models])
    tables = compare_tables(found)
    page = "# Comparison\n\n" + "\n".join(table.markdown() for table in tables) + f"\n{verdict(found)}\n"
    _show(given, found, tables, page)
    if given.to_json != "-":
        print(f"\n{verdict(found)}")
    return 0


def _matrix(given: Options) -> int:
    from agentgym.trainers import api

    if not given.models or given.resume is not None:
        raise ConfigError("--matrix needs models: --matrix RUN1 RUN2 --env A; --out of an earlier one goes on with it")
    minimums, ks = read_minimums(given.minimums), read_ks(given.k)
    suite, _, envs = choose(given.models[0], given)
    out = Path(given.out or default_out([f"matrix-{'-'.join(env.label for env in envs)}"]))
    reports, folders = [], [out / name for name in file_names(given.models)]
    for model, folder in zip(given.models, folders, strict=True):
        config = _config(model, given)
        with reporting(config, f"evaluating {model}", given.to_json == "-") as reporter:
            if (folder / PLAN).is_file():
                if EvalFolder.open(folder).plan.path != model_path(model):
                    raise RunError(f"{folder} holds an evaluation of another model: give another --out")
                report = api.resume_evaluation(str(folder), reporter=reporter)
            else:
                report = _play(given, model, suite, config, envs, minimums, ks, str(folder), reporter)
        reports.append(report)
    matrix = make_matrix([load_side(str(folder)) for folder in folders], list(given.models))
    tables, notes = matrix_tables(matrix), matrix_notes(matrix)
    page = "# Matrix\n\n" + "\n".join(table.markdown() for table in tables) + "".join(f"\n- {n}" for n in notes) + "\n"
    _show(given, matrix, tables, page)
    if given.to_json != "-":
        print("".join(f"\n{note}" for note in notes))
        print(f"\nThe evaluations are in {out}.")
    below = [m for model, report in zip(given.models, reports, strict=True) for m in missed(report, minimums, model)]
    return _fail(below)


def choose(model: str, given: Options) -> tuple[Suite | None, Config, Sequence[EnvConfig]]:
    """The suite (None without one), the configuration and the environments that were typed."""
    if given.suite is not None:
        if given.envs or given.data or given.reward or given.tools:
            raise ConfigError("--suite says which environments: leave out --env, --data, --reward and --tools")
        suite = read_suite(given.suite)
        return suite, _config(model, given), suite.env
    if len(given.envs) > 1:
        if given.data or given.reward or given.tools:
            raise ConfigError("--data, --reward and --tools belong to one --env; a --suite says them for several")
        config = _config(model, given)
        known = {env.id: env for env in config.all_envs}
        return None, config, [known.get(env) or EnvConfig(id=env) for env in given.envs]
    if not given.envs and given.recipe is None and _own_settings(model):
        run_config = _config(model, given)
        if len(run_config.envs) > 1:  # a run on several: all of them
            return None, run_config, run_config.envs
    env = given.envs[0] if given.envs else None
    overrides = [*given.overrides, *_typed(given)]
    config = settings(model, given.recipe, env, given.data, given.reward, given.tools, overrides)
    return None, config, [config.env]


def _config(model: str, given: Options) -> Config:
    """A run's own configuration, a recipe's, or the defaults, with what was typed."""
    base = given.recipe or _own_settings(model)
    return load_config(base, [*given.overrides, *_typed(given)])


def _own_settings(model: str) -> Path | None:
    own = Path(model).expanduser() / "config.toml"
    return own if own.is_file() else None


def _typed(given: Options) -> list[str]:
    """Options that are configuration."""
    keys = {"endpoint.model": given.endpoint_model, "rollout.agent": given.agent}
    return [f"{key}={json.dumps(value)}" for key, value in keys.items() if value]


def read_ks(text: str | None) -> tuple[int, ...]:
    """`1,4` -> (1, 4)."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"--k {text!r}: expected numbers, as 1,4") from None


def _show(given: Options, figures: Mapping[str, Any], tables: Sequence[Table], page: str) -> None:
    if given.to_json == "-":
        print(json.dumps(figures, indent=2))
    else:
        console = Console()
        for table in tables:
            table.show(console)
        if given.to_json is not None:
            write_json(Path(given.to_json), figures)
    if given.to_markdown is not None:
        try:
            Path(given.to_markdown).write_text(page, encoding="utf-8")
        except OSError as e:
            raise RunError(f"{given.to_markdown}: cannot be written: {e.strerror or e}") from None


def _fail(below: Sequence[Missed]) -> int:
    for one in below:
        Console(stderr=True).print(Text.assemble(("below --min: ", "bold red"), str(one)), soft_wrap=True)
    return BELOW if below else 0


@contextmanager
def _resumable(out: str) -> Iterator[None]:
    """An interrupt says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        begun = (Path(out) / PLAN).is_file()
        raise KeyboardInterrupt(f"go on with agentgym eval --resume {out}" if begun else "") from None


def main(given: Options) -> None:
    """`run`, as a process ends."""
    if code := run(given):
        sys.exit(code)
