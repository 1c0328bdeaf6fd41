"""agentgym: a gym and a trainer for language-model agents that use tools.

Names are loaded when first used (PEP 562); importing the package registers its environments and nothing more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentgym.registry import env_ids, make, make_env, make_vec, register, register_built_in, spec

if TYPE_CHECKING:
    from agentgym.config import load_config as load_config
    from agentgym.envs.rubric import Component as Component
    from agentgym.envs.script import call as call
    from agentgym.envs.script import say as say
    from agentgym.envs.tool_env import ToolEnv as ToolEnv
    from agentgym.envs.verifiers.code import averify_code as averify_code
    from agentgym.envs.verifiers.code import verify_code as verify_code
    from agentgym.envs.verifiers.math import averify_math as averify_math
    from agentgym.envs.verifiers.math import verify_math as verify_math
    from agentgym.rollout.parsers import parse_tool_calls as parse_tool_calls
    from agentgym.tools.decorator import StopEpisode as StopEpisode
    from agentgym.tools.decorator import ToolBusy as ToolBusy
    from agentgym.tools.decorator import tool as tool
    from agentgym.tools.episode import Episode as Episode
    from agentgym.trainers.api import evaluate as evaluate
    from agentgym.trainers.api import train as train
    from agentgym.types import Message as Message
    from agentgym.types import Outcome as Outcome
    from agentgym.types import Task as Task
    from agentgym.types import ToolCall as ToolCall

__version__ = "0.1.0"

_LAZY = {
    "Component": "agentgym.envs.rubric",
    "Episode": "agentgym.tools.episode",
    "Message": "agentgym.types",
    "Outcome": "agentgym.types",
    "StopEpisode": "agentgym.tools.decorator",
    "Task": "agentgym.types",
    "ToolBusy": "agentgym.tools.decorator",
    "ToolCall": "agentgym.types",
    "ToolEnv": "agentgym.envs.tool_env",
    "averify_code": "agentgym.envs.verifiers.code",
    "averify_math": "agentgym.envs.verifiers.math",
    "call": "agentgym.envs.script",
    "evaluate": "agentgym.trainers.api",
    "load_config": "agentgym.config",
    "parse_tool_calls": "agentgym.rollout.parsers",
    "say": "agentgym.envs.script",
    "tool": "agentgym.tools.decorator",
    "train": "agentgym.trainers.api",
    "verify_code": "agentgym.envs.verifiers.code",
    "verify_math": "agentgym.envs.verifiers.math",
}

__all__ = [
    "__version__",
    "env_ids",
    "make",
    "make_env",
    "make_vec",
    "register",
    "spec",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_built_in()
