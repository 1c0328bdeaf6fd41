"""The engine that a config asks for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from agentgym.config import Config
from agentgym.errors import ConfigError
from agentgym.protocols import Engine

if TYPE_CHECKING:
    from agentgym.engines.endpoint import ChatEndpoint


def pick_device(device: str) -> str:
    """`auto` is a GPU where there is one; raises `ConfigError` for a device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"engine.device = {device!r}: torch sees no GPU; set it to cpu or auto")
    return device


def make_engine(config: Config, model_path: str = "", *, version: int = 0, in_process: bool = True) -> Engine:
    """The engine of `config` on a model folder or id (`model_path`, else `model.path`).

    in_process: step in the caller's event loop; otherwise in a process of its own. Raises `ConfigError`, `ModelError`.
    """
    path = model_path or config.model.path
    engine = config.engine
    if engine.kind == "sglang":
        from agentgym.engines.sglang.make import make_sglang

        return make_sglang(config, path, version=version)
    if engine.kind != "local":
        raise ConfigError(f"engine.kind = {engine.kind!r} has no model; build a ScriptedEngine in your test instead")
    if engine.pause == "abort":
        raise ConfigError("engine.pause = 'abort' is SGLang's: the local engine goes on, by retract or in_place")
    options: dict[str, Any] = {
        "dtype": config.model.dtype,
        "revision": config.model.revision,
        # more than can be under way at once would only take memory
        "slots": min(engine.slots, config.rollout.concurrency),
        "max_context": engine.max_context,
        "device": pick_device(engine.device),
        "threads": engine.threads,
        "version": version,
        "seed": config.run.seed,
        "routing": config.learner.routing_replay,
        "keep_caches": engine.pause == "in_place",
    }
    if in_process:
        from agentgym.engines.local import LocalEngine

        return LocalEngine.from_pretrained(path, **options)
    from agentgym.engines.process import ProcessEngine

    return ProcessEngine.from_pretrained(path, **options)


def make_endpoint(url: str, config: Config) -> ChatEndpoint:
    """The model behind an endpoint, its key from OPENAI_API_KEY. Raises `ModelError`."""
    from agentgym.engines.endpoint import ChatEndpoint

    given = config.endpoint
    return ChatEndpoint(
        url,
        given.model,
        key=os.environ.get("OPENAI_API_KEY", ""),
        timeout=given.timeout,
        retries=given.retries,
        slots=given.concurrency,
    )
