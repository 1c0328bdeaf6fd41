"""Environments by name: a table of strings on Gymnasium's registry, so that the core never imports an env.

Whoever needs an env builds it here, from an id (`agentgym/Store-v0`) or from a file (`path.py:name`).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec

from agentgym.adapters import adapter_specs
from agentgym.errors import ConfigError
from agentgym.loading import is_reference, load_object, load_several, users_code
from agentgym.protocols import Env

TOOL_ENV = "agentgym.envs.tool_env:ToolEnv"
BUILT_IN_TOOLS = "agentgym.tools.toolset:BUILT_IN"
BUILT_IN: dict[str, str] = {
    "agentgym/Store-v0": "agentgym.envs.store:StoreEnv",
    "agentgym/GSM8KTool-v0": "agentgym.envs.gsm8k_tool:GSM8KToolEnv",
    "agentgym/MathTool-v0": "agentgym.envs.math_tool:MathToolEnv",
    "agentgym/PythonMath-v0": "agentgym.envs.python_math:PythonMathEnv",
    "agentgym/Shipping-v0": "agentgym.envs.shipping:ShippingEnv",
    "agentgym/Treasure-v0": "agentgym.envs.games.treasure:TreasureEnv",
    "agentgym/ShellTask-v0": "agentgym.envs.shell_task:ShellTaskEnv",
    "agentgym/Mastermind-v0": "agentgym.envs.games.mastermind:MastermindEnv",
    "agentgym/CodeTests-v0": "agentgym.envs.code_tests:CodeTestsEnv",
    "agentgym/FunctionCalling-v0": "agentgym.envs.function_calling.env:FunctionCallingEnv",
    "agentgym/SearchQA-v0": "agentgym.envs.search_qa:SearchQAEnv",
}
FIXTURES: dict[str, str] = {"agentgym/Loophole-v0": "agentgym.envs.loophole:LoopholeEnv"}
"""Registered, but with a reward that is broken on purpose: not among `env_ids`, for nobody is to train on them."""
_ID = "__agentgym_id__"  # on a registered function: the env it became


def register_built_in() -> None:
    """Put the built-in envs into Gymnasium's registry (once; `import agentgym` does it)."""
    for env_id, target in (BUILT_IN | FIXTURES).items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, target)
    for env_id, (target, kwargs) in adapter_specs().items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, target, kwargs=kwargs)


def env_ids() -> list[str]:
    """The ids registered here and by users through `register`; those of other packages are `adapter_ids`."""
    return sorted(env_id for env_id in gymnasium.registry if env_id in BUILT_IN or env_id in _user_ids)


def adapter_ids() -> list[str]:
    """The ids of other packages' environments (extra `adapters`)."""
    return sorted(adapter_specs())


_user_ids: set[str] = set()


def register(env_id: str, target: Any = None, /, **kwargs: Any) -> Any:
    """Register an environment: as a call, or as a decorator of a reward function or an env class.

    `register("Shop-v0", tools=[price], tasks=[...], reward=fn)` needs no class; `register("Shop-v0", ShopEnv)` and
    `register("Shop-v0", "shop.py:ShopEnv")` name one; `@register("Shop-v0", tools=[price], tasks=[...])` decorates
    a reward function (or a class, or a function that makes an env, if it has no parameters named task and answer).
    The other arguments are those of the env's constructor. Raises `ConfigError`.
    """
    if ":" in env_id or not env_id:
        raise ConfigError(f"env id {env_id!r}: ids are like 'Shop-v0' or 'mine/Shop-v0', without ':'")
    if target is None and "reward" not in kwargs:
        return lambda decorated: _register(env_id, decorated, kwargs)
    return _register(env_id, TOOL_ENV if target is None else target, kwargs)


def _register(env_id: str, target: Any, kwargs: dict[str, Any]) -> Any:
    build = target
    if _is_reward(target):
        build, kwargs = TOOL_ENV, {**kwargs, "reward": target}

    def construct(**more: Any) -> Any:
        made = load_object(build, "env") if isinstance(build, str) else build
        return made(**{**kwargs, **more})

    # an env that text alone describes stays text, so that its spec survives `to_json`
    as_text = isinstance(build, str) and not is_reference(build, file_only=True) and _is_json(kwargs)
    if env_id in _user_ids:
        gymnasium.registry.pop(env_id, None)  # registered again, as notebooks do
    try:
        gymnasium.register(env_id, build if as_text else construct, kwargs=dict(kwargs) if as_text else None)
    except gymnasium.error.Error as e:
        raise ConfigError(f"env id {env_id!r}: {e}") from None
    _user_ids.add(env_id)
    if callable(target):
        setattr(target, _ID, env_id)
    return target


def _is_json(value: Any) -> bool:
    try:
        return bool(json.dumps(value))
    except (TypeError, ValueError):
        return False


def _is_reward(target: Any) -> bool:
    """A function of (task, ...) scores; any other callable makes an env."""
    if inspect.isclass(target) or not callable(target):
        return False
    parameters = list(inspect.signature(target).parameters)
    return bool(parameters) and parameters[0].lstrip("_") == "task"


def spec(env_id: str) -> EnvSpec:
    """The registered spec of an id; raises `ConfigError` with the nearest known id."""
    register_built_in()
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except ModuleNotFoundError as e:
        raise ConfigError(f"env {env_id!r}: {e}") from None
    except gymnasium.error.Error:
        known = [*env_ids(), *adapter_ids()]
        # an id is often typed without its namespace: both forms compete, so that the true tail beats a lookalike
        forms = {form.lower(): known_id for known_id in known for form in (known_id.rpartition("/")[2], known_id)}
        close = difflib.get_close_matches(name.lower(), forms, n=1, cutoff=0.5)
        nearest = f"; did you mean {forms[close[0]]!r}?" if close else ""
        raise ConfigError(
            f"unknown env {env_id!r}{nearest} (known: {', '.join(env_ids())}; or give path.py:name)"
        ) from None


def make(env_id: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """`gymnasium.make` for an id or `path.py:name`; the async core is `env.unwrapped`. Raises `ConfigError`."""
    if is_reference(env_id):
        return cast("gymnasium.Env[Any, Any]", make_env(env_id, args=kwargs))
    found = spec(env_id)
    made: gymnasium.Env[Any, Any] = _build(lambda **given: gymnasium.make(found, **given), env_id, kwargs)
    return made


def make_vec(env_id: str, num_envs: int = 1, vectorization_mode: str = "sync", **kwargs: Any) -> Any:
    """`gymnasium.make_vec`. Shared memory is never used: it cannot hold texts and would silently cut them."""
    if vectorization_mode == "async":
        kwargs["vector_kwargs"] = {**(kwargs.get("vector_kwargs") or {}), "shared_memory": False}
    found = spec(env_id)
    return gymnasium.make_vec(found, num_envs=num_envs, vectorization_mode=vectorization_mode, **kwargs)


def make_env(
    env_id: str, *, data: str = "", reward: str = "", tools: str = "", args: Mapping[str, Any] | None = None
) -> Env:
    """An env's async core, for rollouts: from an id, from `path.py:name`, or (id empty) from data, reward and tools.

    A file's name may be a `ToolEnv` subclass, an instance (each call gives a fresh copy), a function that makes an
    env, or a registered reward function. `reward` is `path.py:fn`; `tools` is `path.py:a,b` or built-in names.
    Raises `ConfigError` naming what is missing.
    """
    kwargs: dict[str, Any] = dict(args or {})
    if data:
        kwargs["data"] = data
    if reward:
        kwargs["reward"] = load_object(reward, "reward")
    if tools:
        kwargs["tools"] = load_several(tools, "tools", load_object(BUILT_IN_TOOLS, "tools"))
    if not env_id:
        if "data" not in kwargs and "tasks" not in kwargs:
            raise ConfigError("no env: give an id, path.py:name, or at least data (a JSONL file) and a reward")
        env = _build(load_object(TOOL_ENV, "env"), "the env", kwargs)
    elif is_reference(env_id):
        env = _from_file(env_id, load_object(env_id, "env"), kwargs)
    else:
        env = make(env_id, **kwargs)
    env = getattr(env, "unwrapped", env)
    if not hasattr(env, "astep"):
        raise ConfigError(f"env {env_id!r} is a {type(env).__name__}, which has no areset and astep: subclass ToolEnv")
    return cast(Env, env)


def _from_file(reference: str, found: Any, kwargs: dict[str, Any]) -> Any:
    if registered := getattr(found, _ID, None):
        return make(registered, **kwargs)
    if hasattr(found, "astep") and not inspect.isclass(found):
        if kwargs:
            raise ConfigError(
                f"{reference} is an instance and takes no arguments ({', '.join(kwargs)}): name its class"
            )
        return found.fresh()
    if _is_reward(found):
        return _build(load_object(TOOL_ENV, "env"), reference, {"reward": found, **kwargs})
    if not callable(found):
        raise ConfigError(f"{reference} is a {type(found).__name__}: expected an env class, an env, or a function")
    return _build(found, reference, kwargs)


def _build(build: Callable[..., Any], what: str, kwargs: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(build).bind(**kwargs)
    except TypeError as e:
        raise ConfigError(f"{what} cannot be made: {e} (see env.args)") from None
    with users_code(f"{what} cannot be made"):
        try:
            return build(**kwargs)
        except TypeError as e:
            if "unexpected keyword argument" not in str(e):
                raise
            reason = str(e).partition(" was raised from the environment creator")[0]
            raise ConfigError(f"{what} cannot be made: {reason} (see env.args)") from None
