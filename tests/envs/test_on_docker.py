"""The same episodes on the local sandbox and on a container: the same verdicts."""

from __future__ import annotations

import os
from typing import Any

import pytest

import agentgym
from agentgym.envs.script import call, say
from agentgym.tools.driving import drive

pytestmark = pytest.mark.docker

BROKEN = (
    "def scale(x): return x\ndef clamp(x): return 0\nclass T:\n    __eq__ = lambda *_: True\ndef total(x): return T()"
)
MESSAGES = [
    call("python", code="x = [n * n for n in range(5)]\nprint(x)"),
    call("python", code="sum(x)"),
    call("python", code="1 / 0"),
    call("run_tests", code=BROKEN),
]


def verdicts(sandbox: dict[str, Any]) -> list[Any]:
    env = agentgym.make_env("agentgym/CodeTests-v0", args={"sandbox": {"timeout": 20, **sandbox}})
    found = []
    for index in range(6):
        for program in (BROKEN, env.tasks()[index].metadata["problem"].solution):
            drive(env.areset(seed=index, options={"index": index}))
            said = [drive(env.astep(message)).messages[0].text for message in MESSAGES]
            end = drive(env.astep(say(f"```python\n{program}\n```")))
            found.append((said, end.reward, dict(end.components), end.outcome))
    return found


def test_same_verdicts() -> None:
    image = os.environ.get("AGENTGYM_TEST_IMAGE", "")
    if not image:
        pytest.skip("needs a Docker engine and an image with python3 (make test-docker)")
    local, docker = verdicts({"backend": "local"}), verdicts({"backend": "docker", "image": image})
    assert local == docker
    assert {reward for _, reward, *_ in local} == {0.0, 1.0}
