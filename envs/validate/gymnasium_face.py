"""check_env: Gymnasium's own checker."""

from __future__ import annotations

import re
import warnings

from agentgym.envs.validate.bench import Bench
from agentgym.envs.validate.finding import Finding

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def check(bench: Bench) -> Finding:
    """`gymnasium.utils.env_checker.check_env` passes without an error and without a warning."""
    import gymnasium
    from gymnasium.utils.env_checker import check_env

    env = bench.make()
    if not isinstance(env, gymnasium.Env):
        return Finding(False, f"{type(env).__name__} is no gymnasium.Env: subclass ToolEnv")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=env.spec is None)  # other render modes are made by the spec
        finally:
            env.close()
    own = [w for w in told if "gymnasium" in str(w.filename)]
    if own:
        return Finding(False, f"warned: {_COLOUR.sub('', str(own[0].message))}", {"warnings": len(own)})
    return Finding(True)
