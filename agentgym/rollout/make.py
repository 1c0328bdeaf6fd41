"""Builds the renderer and parser that fit a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentgym.config import Config
from agentgym.errors import ConfigError, ModelError
from agentgym.protocols import Parser
from agentgym.rollout.renderer import ChatRenderer


def load_tokenizer(path: str, revision: str = "") -> Any:
    """The tokenizer of a model folder or id; `ModelError` where there is none or it has no chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision or None)
    except Exception as e:
        raise ModelError(f"model.path = {path!r}: no usable tokenizer: {_why(path, e)}") from None
    if not tokenizer.chat_template:
        raise ModelError(f"model.path = {path!r}: its tokenizer has no chat template; use an instruct model's folder")
    return tokenizer


def make_renderer(path: str, config: Config) -> ChatRenderer:
    tokenizer = load_tokenizer(path, config.model.revision)
    return ChatRenderer(
        tokenizer,
        stop_ids=_generation_stops(path),
        keep_thinking=config.model.keep_thinking,
        tool_format=config.model.tool_format,
    )


def make_parser(renderer: ChatRenderer) -> Parser:
    """The parser of the renderer's tool format; `ConfigError` where there is none."""
    try:
        return renderer.parser
    except ValueError as e:
        raise ConfigError(f"model.tool_format: {e}") from None


def _generation_stops(path: str) -> tuple[int, ...]:
    from transformers import GenerationConfig

    try:
        eos = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # a folder without generation_config.json
        return ()
    return tuple(eos) if isinstance(eos, list) else (() if eos is None else (eos,))


def _why(path: str, error: Exception) -> str:
    """transformers answers a file that is missing with a list of all that it could have read."""
    folder = Path(path)
    if folder.is_dir() and not any(folder.glob("tokenizer.*")):
        return "the folder has no tokenizer.json; is it whole?"
    return _first_line(error).rstrip(": ")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
