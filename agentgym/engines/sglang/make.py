"""The SGLang engines that a config asks for: servers started here, or found at their URLs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentgym.config import Config
from agentgym.engines.mixture import KEY
from agentgym.engines.replicas import ReplicatedEngine
from agentgym.engines.sglang.commands import cpu_command, gpu_command
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.interpreter import find_python
from agentgym.engines.sglang.layout import ModelLayout, read_layout
from agentgym.engines.sglang.memory import SAVER
from agentgym.engines.sglang.process import LOCAL, ServerCommand
from agentgym.engines.sglang.supervisor import Supervisor
from agentgym.errors import ConfigError, EngineFault

TRUNCATING = ("--preferred-sampling-params",)
TELL_EXPERTS = "--enable-return-routed-experts"


def make_sglang(config: Config, model: str, *, version: int = 0) -> ReplicatedEngine:
    """Start the servers, or ask those at `engine.urls`. Raises `ConfigError` for what is not there or does not start,
    `ModelError` for a server with another model; then nothing is left running."""
    engine = config.engine
    if engine.urls:
        return _attach(config, model, engine.urls, None, version)
    try:
        supervisor = Supervisor(server_commands(config), _whole(model), server_logs(config), port=engine.port)
    except EngineFault as e:
        raise ConfigError(f"engine.kind = 'sglang': {e}") from None
    try:
        return _attach(config, model, supervisor.urls, supervisor, version)
    except BaseException:
        supervisor.close()
        raise


def server_logs(config: Config) -> Path:
    """The folder for what servers write: in the run's, else one of its own."""
    return Path(config.run.dir) / "servers" if config.run.dir else Path(tempfile.mkdtemp(prefix="agentgym-servers-"))


def server_commands(config: Config) -> list[ServerCommand]:
    """One command a replica. Raises `ConfigError` for more GPUs than there are, and for a Python without sglang."""
    from agentgym.engines.make import pick_device

    engine = config.engine
    if pick_device(engine.device) == "cpu":
        return [server_command(config)] * engine.replicas
    import torch

    each, wanted = engine.gpus_each, engine.replicas * engine.gpus_each
    if wanted > torch.cuda.device_count():
        raise ConfigError(
            f"engine.replicas = {engine.replicas} times engine.gpus_each = {each} asks for {wanted} GPUs; torch sees "
            f"{torch.cuda.device_count()}"
        )
    places = [tuple(range(i * each, (i + 1) * each)) for i in range(engine.replicas)]
    return [server_command(config, gpus) for gpus in places]


def server_command(config: Config, gpus: Sequence[int | str] = (), *, host: str = LOCAL) -> ServerCommand:
    """One server on this machine: over these of its GPUs, on the CPU where there are none. Raises `ConfigError`."""
    engine = config.engine
    if refused := [a for a in engine.server_args if a.partition("=")[0] in TRUNCATING]:
        raise ConfigError(f"engine.server_args: {refused[0]} would change what is sampled; training says it by request")
    python = find_python(engine.python)
    arguments = ("--random-seed", str(config.run.seed), "--skip-tokenizer-init", *engine.server_args)
    if config.learner.routing_replay and TELL_EXPERTS not in arguments:
        arguments = (TELL_EXPERTS, *arguments)
    if gpus:
        if config.cluster.placement == "colocated":
            arguments = (SAVER, *arguments)
        command = gpu_command(python, tuple(gpus), arguments, dtype=config.model.dtype)
    else:
        rows = min(engine.slots, config.rollout.concurrency)
        room = ("--max-total-tokens", str(rows * (engine.max_context or 4096)))
        command = cpu_command(python, engine.threads, (*room, *arguments), dtype=config.model.dtype)
    return replace(command, host=host)


def _attach(
    config: Config, model: str, urls: Sequence[str], supervisor: Supervisor | None, version: int
) -> ReplicatedEngine:
    layout = read_layout(model)
    try:
        engines = [
            SGLangEngine(
                url,
                layout=layout,
                version=version,
                timeout=min(config.engine.timeout, answer_seconds(config)),
                max_context=config.engine.max_context,
                pause=config.engine.pause,
                seed=config.run.seed + i,
            )
            for i, url in enumerate(urls)
        ]
    except EngineFault as e:
        raise ConfigError(f"engine.urls: {e}") from None
    if config.learner.routing_replay:
        check_mixture(layout)
        for asked in engines:
            check_told(asked)

    async def revive(index: int) -> None:
        import asyncio

        if supervisor is not None and not (supervisor.alive(index) and await engines[index].healthy()):
            await asyncio.to_thread(supervisor.restart, index)
        await engines[index].reconnect(version)

    closed = supervisor.close if supervisor else lambda: None
    return ReplicatedEngine(engines, revive=revive, closed=closed, order=config.engine.update)


def check_mixture(layout: ModelLayout | None) -> None:
    """Raises `ConfigError` for a model that has no experts, as far as can be seen here."""
    if layout is None:
        raise ConfigError(f"{KEY}: the model has to lie in a folder of this machine: set model.path to it")
    if layout.mixture is None:
        raise ConfigError(f"{KEY}: {layout.folder} has no experts; set it to false")


def check_told(engine: SGLangEngine) -> None:
    """Raises `ConfigError` where a server cannot tell the experts of tokens."""
    if not engine.facts.tells_experts:
        raise ConfigError(
            f"{KEY}: {engine.name} does not tell experts: start it with {TELL_EXPERTS}, or set it to false"
        )


def answer_seconds(config: Config) -> float:
    """Seconds that a turn can spare for one request: what takes more of it is at fault (`rollout.episode`), so that a
    server which never answers is found out while another can still be asked."""
    return (config.rollout.turn_seconds or config.rollout.max_seconds) / 2


def _whole(model: str) -> str:
    """A folder by its whole path: servers run elsewhere."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
