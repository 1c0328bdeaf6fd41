"""The command line. Commands are thin: they read arguments, make a reporter and call the functions users have too.

Heavy modules are imported inside the commands, after the first line is on the screen.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

import agentgym
from agentgym import cluster_commands, gym_commands, run_commands
from agentgym.arguments import config_table, env_keys, settings, shorthand, split_overrides
from agentgym.config import Config, load_config, recipe_for
from agentgym.errors import ConfigError
from agentgym.report.progress import duration
from agentgym.report.summary import headline
from agentgym.report.terminal import mendable, quiet_libraries, reporting, resumable
from agentgym.run_folder import RunFolder, model_path
from agentgym.sandbox_commands import sandbox_app

F = TypeVar("F", bound=Callable[..., Any])
CONFIGURED = ("train", "sft", "eval", "play", "cluster")
"""Commands that take `--section.key=value`."""

app = typer.Typer(
    name="agentgym",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(sandbox_app)

EnvOption = Annotated[str | None, typer.Option("--env", help="Environment: an id, or [bold]path.py:name[/].")]
DataOption = Annotated[str | None, typer.Option("--data", help="JSONL file of tasks, or a Hugging Face data set's id.")]
RewardOption = Annotated[str | None, typer.Option("--reward", help="Reward function, as path.py:function.")]
AgentOption = Annotated[
    str | None, typer.Option("--agent", help="A program of yours as the agent: path.py:function (docs/agents.md).")
]
ToolsOption = Annotated[str | None, typer.Option("--tools", help="Tools, as path.py:a,b or built-in names.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
RecipeArgument = Annotated[str | None, typer.Argument(help="A built-in recipe (store, ...) or a TOML file.")]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="A recipe for the settings beside env and model.")]
ShowConfig = Annotated[bool, typer.Option("--help-config", help="Show every configuration key and its value here.")]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exits 0, 1 (a defect: traceback), 2 (the user can mend it), 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with mendable():
        left, overrides = _split(arguments)
        app(left, prog_name="agentgym", obj=overrides)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if not arguments or arguments[0] not in CONFIGURED:
        return arguments, []
    command: Any = typer.main.get_command(app)
    options = {name for option in command.commands[arguments[0]].params for name in option.opts}
    left, overrides = split_overrides(arguments[1:], options)
    return [arguments[0], *left], overrides


def command(name: str) -> Callable[[F], F]:
    """Register a command whose errors are told to the user."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with mendable():
                return function(*args, **kwargs)

        app.command(name)(run)
        return function

    return decorate


def _version(value: bool) -> None:
    if value:
        print(f"agentgym {agentgym.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A gym and a trainer for language-model agents that use tools.

    [bold]agentgym train[/] trains a tiny agent on this machine, from nothing, in minutes.
    """


@command("train")
def train(
    context: typer.Context,
    recipe: RecipeArgument = None,
    env: EnvOption = None,
    data: DataOption = None,
    reward: RewardOption = None,
    tools: ToolsOption = None,
    agent: AgentOption = None,
    model: Annotated[str | None, typer.Option("--model", help="Model folder or id; none: a tiny one is built.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Learner steps.")] = None,
    seed: SeedOption = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="ray: rollout workers on a Ray cluster.")] = None,
    resume: Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on with an earlier run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan (memory, batch, times); start nothing.")
    ] = False,
    to_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="With --dry-run: write the plan; - is stdout.")
    ] = None,
    show_config: ShowConfig = False,
) -> None:
    """Train an agent by GRPO on whole episodes, after a warm start where the recipe has one.

    \b
    agentgym train                             # a tiny agent, from nothing
    agentgym train --env mine.py:MyEnv         # your environment
    agentgym train --data tasks.jsonl --reward mine.py:score --tools mine.py:a,b
    agentgym train --agent mine.py:program     # your own agent (docs/agents.md)
    agentgym train gsm8k --model DIR --data train.jsonl --rollout.group_size=16
    agentgym train --resume runs/store-v0-20260801-120000 [--steps 100]
    agentgym train qwen3-32b-64gpu --dry-run   # what it would take

    Every setting is an option of the form --section.key=value; --help-config lists them with their values.
    """
    given = env_keys(recipe is None, env, data, reward, tools)
    given |= {"rollout.agent": agent, "model.path": model, "trainer.steps": steps, "run.seed": seed}
    given |= {"cluster.kind": cluster}
    overrides = [*shorthand(given), *context.obj]
    if resume is None:
        config = load_config(recipe_for(recipe, overrides), overrides)
    else:
        longer = [text for text in overrides if text.startswith("trainer.steps=")]
        if extra := [*([recipe] if recipe else []), *(text for text in overrides if text not in longer)]:
            raise ConfigError(
                f"--resume goes on with the run's own settings, only --steps can be more: leave out {', '.join(extra)}"
            )
        steps = load_config(None, longer).trainer.steps if longer else None
        config = RunFolder.open(resume).load_config(steps)
    if to_json is not None and not dry_run:
        raise ConfigError("--json FILE is for the plan: give --dry-run too (a run writes summary.json into its folder)")
    if show_config:
        Console().print(config_table(config))
    elif dry_run:
        check_envs(config)
        cluster_commands.plan(config, to_json)
    else:
        _train(config, resume)


def _train(config: Config, resume: str | None) -> None:
    from agentgym.trainers.api import default_dir
    from agentgym.trainers.api import train as run

    check_envs(config)
    config.run.dir = resume or config.run.dir or default_dir(config)
    with reporting(config, f"training in {config.run.dir}") as reporter, resumable(config.run.dir):
        if resume is None:
            summary = run(config, reporter=reporter)
        else:
            summary = run(resume=resume, reporter=reporter, trainer__steps=config.trainer.steps)
        reporter.result(f"trained in {duration(summary['wall_s'])}", headline(summary))
    found = [name for name in ("curve.png", "summary.json") if (Path(config.run.dir) / name).exists()]
    print(f"\nThe run is in {config.run.dir} ({', '.join(found)}). Watch its agent play:")
    first = "" if len(config.all_envs) == 1 else f"{config.all_envs[0].id} "
    print(f"  agentgym play {first}--model {config.run.dir}")


def check_envs(config: Config) -> None:
    """Make each env once, so that a mistake is told before a run folder is made and libraries are loaded."""
    from agentgym.rollout.program.function import load_program
    from agentgym.rollout.worker import env_factory

    if config.rollout.agent:
        load_program(config.rollout.agent)
    for spec in config.all_envs:
        env_factory(config)(spec.label)


@command("sft")
def sft(
    context: typer.Context,
    recipe: RecipeArgument = None,
    env: EnvOption = None,
    data: Annotated[str | None, typer.Option("--data", help="JSONL of conversations; none: the env's expert.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model folder or id; none: a tiny one is built.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Supervised steps.")] = None,
    seed: SeedOption = None,
    show_config: ShowConfig = False,
) -> None:
    """Supervised learning on conversations: a file of them, or the play of an env's scripted expert.

    \b
    agentgym sft --model DIR --data conversations.jsonl --steps 200
    agentgym sft --env mine.py:MyEnv --steps 200

    A line of the file is {"messages": [...], "tools": [...]} in OpenAI's chat shape.
    """
    given = {"env.id": env, "sft.data": data, "model.path": model, "sft.steps": steps, "run.seed": seed}
    overrides = [*shorthand(given), *context.obj]
    config = load_config(recipe_for(recipe, overrides), overrides)
    if show_config:
        Console().print(config_table(config))
        return
    from agentgym.trainers.api import default_dir
    from agentgym.trainers.api import sft as run

    check_envs(config)
    config.run.dir = config.run.dir or default_dir(config)
    with reporting(config, f"supervised learning in {config.run.dir}") as reporter, resumable(config.run.dir):
        summary = run(config, reporter=reporter)
        reporter.result("learned", summary)


@command("eval")
def evaluate(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL|RUN|URL", help="A model folder or id, a run, an endpoint.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", help="Environment: an id, or [bold]path.py:name[/]; may be repeated.")
    ] = None,
    suite: Annotated[str | None, typer.Option("--suite", metavar="FILE", help="Environments in a TOML file.")] = None,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="Held-out tasks.")] = 400,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Episodes of each task.")] = 1,
    k: Annotated[str | None, typer.Option("--k", metavar="K,...", help="For pass@k, pass^k; none: 1, 2, 4 ...")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token instead of sampling.")] = False,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Of sampling.")] = 1.0,
    data: DataOption = None,
    reward: RewardOption = None,
    tools: ToolsOption = None,
    agent: AgentOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the episodes.")] = None,
    recipe: RecipeOption = None,
    endpoint_model: Annotated[str | None, typer.Option("--endpoint-model", help="Name of the model at a URL.")] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder; none: runs/eval-...")] = None,
    resume: Annotated[str | None, typer.Option("--resume", metavar="DIR", help="Go on with an evaluation.")] = None,
    retry_unscored: Annotated[
        bool, typer.Option("--retry-unscored", help="With --resume: play unscored episodes again.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Two evaluations' folders: --compare A B.")] = False,
    matrix: Annotated[bool, typer.Option("--matrix", help="Several models on each environment.")] = False,
    minimum: Annotated[
        list[str] | None, typer.Option("--min", metavar="FIGURE=X", help="Exit with 1 below: success=0.9, pass@4=0.5.")
    ] = None,
    to_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the figures; - is stdout.")
    ] = None,
    to_markdown: Annotated[str | None, typer.Option("--markdown", metavar="FILE", help="Write a page.")] = None,
) -> None:
    """Play held-out tasks with a model and report its success.

    \b
    agentgym eval runs/store-v0-20260801-120000      # the run's env and settings
    agentgym eval DIR --env mine.py:MyEnv --tasks 200 --samples 4 --json out.json
    agentgym eval http://127.0.0.1:8000/v1 --env mine.py:MyEnv --min success=0.9
    agentgym eval DIR --suite suite.toml --out runs/eval-a
    agentgym eval --resume runs/eval-a               # after a kill
    agentgym eval --compare runs/eval-a runs/eval-b  # paired, with a test
    agentgym eval --matrix RUN1 RUN2 --env A --env B # does A's training help B?

    The key of an endpoint is read from OPENAI_API_KEY. Exit code: 0; 1 below a --min; 2 for what you can mend.
    """
    from agentgym.trainers.eval_command import Options, main

    options = {key: value for key, value in locals().items() if key in Options.__dataclass_fields__}
    main(
        Options(
            **{**options, "models": models or (), "envs": env or (), "minimums": minimum or ()},
            overrides=tuple(context.obj or ()),
        )
    )


@command("play")
def play(
    context: typer.Context,
    env: Annotated[str | None, typer.Argument(help="Environment: an id, or path.py:name; none: the run's.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Watch this model folder, id or run play.")] = None,
    human: Annotated[bool, typer.Option("--human", help="Play it yourself, in the agent's place.")] = False,
    expert: Annotated[bool, typer.Option("--expert", help="Watch the env's scripted expert.")] = False,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="How many.")] = 1,
    task: Annotated[str | None, typer.Option("--task", help="A task's id; none: held-out tasks by seed.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Of the model; 0 is greedy.")] = 1.0,
    data: DataOption = None,
    reward: RewardOption = None,
    tools: ToolsOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the episode.")] = 0,
    recipe: RecipeOption = None,
) -> None:
    """Watch an episode being played, or play one yourself.

    \b
    agentgym play agentgym/Store-v0                      # its scripted expert
    agentgym play agentgym/Store-v0 --human              # you are the agent
    agentgym play --model runs/store-v0-20260801-120000  # a trained agent

    Exit code: 0; 1 where an episode met a fault and has no score.
    """
    if sum((human, expert, model is not None)) > 1:
        raise ConfigError("--model, --human and --expert are three players: choose one")
    config = settings(model, recipe, env, data, reward, tools, context.obj)
    from agentgym.report.play import Player, play_episodes

    player: Player = "model" if model else "human" if human else "expert"
    where = model_path(model) if model else ""
    quiet_libraries()
    if play_episodes(config, player, where, episodes=episodes, seed=seed, task=task, temperature=temperature):
        raise typer.Exit(1)


@command("envs")
def envs(as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False) -> None:
    """The environments that are registered: what they ask, their kinds of tasks, their tools."""
    from agentgym.report.listing import describe_all, print_envs

    found = describe_all()
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_envs(Console(), found)


for name, function in {**gym_commands.COMMANDS, **run_commands.COMMANDS, **cluster_commands.COMMANDS}.items():
    command(name)(function)


@command("doctor")
def doctor(as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False) -> None:
    """What this machine has: versions, cores, memory, devices, extras."""
    from agentgym.report.doctor import examine, lines

    facts = examine()
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in lines(facts).items():
            print(f"{name:<16} {value}")
