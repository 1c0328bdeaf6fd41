"""`agentgym train --dry-run` and `agentgym cluster`: what a run would take, and files that start it elsewhere.

Part of the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from agentgym.arguments import shorthand
from agentgym.config import DEFAULT_RECIPE, Config, load_config, recipe_for
from agentgym.errors import ConfigError, RunError
from agentgym.report.summary import write_json
from agentgym.report.terminal import quiet_libraries

WIDTH = 120
"""Columns where the plan goes to a file or a pipe."""


def plan(config: Config, to_json: str | None) -> None:
    """Print what a run would take. Raises `ConfigError` where it does not fit, after all was printed."""
    quiet_libraries()
    from agentgym.trainers.placement import check_placement
    from agentgym.trainers.plan.resolve import make_plan
    from agentgym.trainers.plan.show import figures, tell, verdict
    from agentgym.trainers.plan.split import best_split

    check_placement(config)
    planned = make_plan(config)
    best = best_split(planned)
    there = Console(stderr=to_json == "-", highlight=False)
    tell(there if there.is_terminal else Console(stderr=to_json == "-", width=WIDTH), planned, best)
    if to_json == "-":
        print(json.dumps(figures(planned, best), indent=2))
    elif to_json is not None:
        write_json(Path(to_json), figures(planned, best))
    if told := verdict(planned):
        raise ConfigError(told)


def cluster(
    context: typer.Context,
    kind: Annotated[Literal["slurm", "kuberay"], typer.Argument(help="slurm: a batch script; kuberay: a RayJob.")],
    recipe: Annotated[str | None, typer.Argument(help="A built-in recipe (store, ...) or a TOML file.")] = None,
    env: Annotated[str | None, typer.Option("--env", help="Environment: an id, or [bold]path.py:name[/].")] = None,
    data: Annotated[str | None, typer.Option("--data", help="JSONL file of tasks, or a Hugging Face id.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model folder or id.")] = None,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Where it is written; - is stdout.")] = "-",
    name: Annotated[str, typer.Option("--name", help="Of the job and the run; none: the recipe's.")] = "",
    partition: Annotated[str, typer.Option("--partition", help="slurm: as sbatch takes it.")] = "",
    account: Annotated[str, typer.Option("--account", help="slurm: as sbatch takes it.")] = "",
    time: Annotated[str, typer.Option("--time", help="slurm: longest time, as sbatch takes it.")] = "",
    image: Annotated[
        str, typer.Option("--image", help="kuberay: has this package, Ray and SGLang.")
    ] = "agentgym:latest",
    claim: Annotated[str, typer.Option("--claim", help="kuberay: claim of the runs' volume.")] = "agentgym-runs",
) -> None:
    """Write the file that starts a run on a cluster, from its plan (docs/planning.md).

    \b
    agentgym cluster slurm qwen3-32b-64gpu --env=mine.py:MyEnv --out job.sh
    sbatch job.sh
    agentgym cluster kuberay qwen3-32b-64gpu --image=REG/IMAGE --out job.yaml
    kubectl apply -f job.yaml

    A plan that does not fit is refused, and no file is written.
    """
    overrides = [*shorthand({"env.id": env, "env.data": data, "model.path": model}), *context.obj]
    chosen = recipe_for(recipe, overrides)
    config = load_config(chosen, overrides)
    quiet_libraries()
    from agentgym.trainers.placement import check_placement
    from agentgym.trainers.plan.resolve import make_plan
    from agentgym.trainers.plan.show import verdict
    from agentgym.trainers.plan.start_files import Start, rayjob, sbatch

    check_placement(config)
    planned = make_plan(config)
    if told := verdict(planned):
        raise ConfigError(told)
    given = (*([str(recipe)] if recipe else ()), *(f"--{override}" for override in overrides))
    start = Start(_job_name(name or Path(str(recipe or DEFAULT_RECIPE)).stem), given, planned)
    if kind == "slurm":
        text = sbatch(start, partition=partition, account=account, time=time)
    else:
        text = rayjob(start, image=image, claim=claim)
    _write(text, out)
    Console(stderr=True, highlight=False).print(start.about, markup=False)


def _job_name(name: str) -> str:
    """Letters, digits and dashes, as both schedulers take it."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")
    if not plain:
        raise ConfigError(f"--name = {name!r}: a job's name needs a letter or a digit")
    return plain


def _write(text: str, out: str) -> None:
    if out == "-":
        print(text, end="")
        return
    try:
        Path(out).write_text(text)
    except OSError as e:
        raise RunError(f"{out}: cannot be written: {e.strerror or e}") from None


COMMANDS: dict[str, Callable[..., None]] = {"cluster": cluster}
