"""What a new run starts from: the user's model, or a tiny one built here for the run's envs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agentgym.config import Config
from agentgym.rollout.make import load_tokenizer
from agentgym.run_folder import RunFolder
from agentgym.trainers.checkpoint import save_model
from agentgym.trainers.demonstrations import Demonstration, play_expert
from agentgym.trainers.models import load_model
from agentgym.trainers.tiny_model import build_model, build_tokenizer, conversation_texts

SEEN_TASKS = 512
"""Training tasks of each env whose words a tiny model's tokenizer knows."""


async def starting_model(
    config: Config, folder: RunFolder, make_env: Callable[[str], Any], demonstrations: Sequence[Demonstration]
) -> tuple[Any, Any, str]:
    """(model, tokenizer, the path they can be loaded from). Raises `ModelError`."""
    path = config.model.path
    if path:
        model = load_model(path, config.model.dtype, config.model.revision)
        return model, load_tokenizer(path, config.model.revision), path
    known = [*demonstrations]
    for spec in config.all_envs:
        known += await _openings(make_env(spec.label))
    texts = conversation_texts([d.messages for d in known], [tool for d in known for tool in d.tools])
    tokenizer = build_tokenizer(texts)
    model = build_model(
        len(tokenizer),
        config.model,
        max_context=config.engine.max_context,
        seed=config.run.seed,
        pad=tokenizer.pad_token_id,
        eos=tokenizer.eos_token_id,
    )
    save_model(model, tokenizer, folder.model)
    return model, tokenizer, str(folder.model)


async def _openings(env: Any) -> list[Demonstration]:
    """The env's training tasks as its expert plays them, or else as they begin."""
    found = []
    for task in env.tasks("train")[:SEEN_TASKS]:
        played = await play_expert(env, task, 0, "gold")
        if played is None:
            start = await env.areset(seed=0, options={"task": task})
            played = Demonstration(start.messages, start.tools)
        found.append(played)
    await env.aclose()
    return found
