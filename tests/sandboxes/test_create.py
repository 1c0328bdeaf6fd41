"""From a name to a sandbox, and what is said to a name or setting that is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym.sandboxes as sandboxes
from agentgym.errors import AgentGymError, ConfigError, SandboxFault
from agentgym.execution import SandboxSpec
from agentgym.sandboxes.backends import check_settings
from agentgym.sandboxes.fake import FakeBackend

Run = Callable[..., Any]


def test_create_takes_fields_of_spec_and_limits(backend: Any, run: Run) -> None:
    box = run(sandboxes.create(backend, memory=64 << 20, timeout=5, files={"a": b"1"}))
    assert run(box.exec("open('a').read()")).result == "'1'"
    run(box.close())


def test_anyones_backend(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from agentgym.sandboxes.fake import FakeBackend\nclass Own(FakeBackend):\n    pass\n"
    )
    made = sandboxes.make_backend(f"{tmp_path}/own.py:Own", answers={"1": "2"})
    assert isinstance(made, FakeBackend)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"memroy": 1}, "unknown setting 'memroy'; did you mean 'memory'"),
        ({"memory": 0}, "sandbox limit memory = 0: must be a number above 0"),
        ({"workdir": "a"}, "must be an absolute path"),
        ({"workdir": "/a/../b"}, "must be an absolute path"),
        ({"files": {"a": "text"}}, "'a' must be a path with its content as bytes"),
        ({"image": "a", "dockerfile": "b"}, "not both"),
    ],
)
def test_settings_that_are_none(given: dict[str, Any], text: str, run: Run) -> None:
    with pytest.raises(ConfigError, match=text):
        run(sandboxes.create("fake", **given))


def test_landlock_is_had_by_name() -> None:
    """Where only a name can be given: --sandbox.backend, --backend, an env's settings."""
    check_settings({"backend": "landlock"})
    assert sandboxes.make_backend("landlock").capabilities.isolation == "landlock"
    assert sandboxes.make_backend("local").capabilities.isolation == "namespaces"


def test_backends_that_are_none() -> None:
    with pytest.raises(ConfigError, match="did you mean 'docker'"):
        sandboxes.make_backend("doker")
    with pytest.raises(ConfigError, match="no_such_option"):
        sandboxes.make_backend("local", no_such_option=1)


@pytest.mark.usefixtures("local_only")
@pytest.mark.parametrize("given", [{"image": "python"}, {"dockerfile": "."}, {"user": "root"}, {"workdir": "/usr/x"}])
def test_what_the_local_backend_has_not(given: dict[str, Any], backend: Any, run: Run) -> None:
    with pytest.raises(SandboxFault, match="local") as told:
        run(backend.create(SandboxSpec(**given)))
    assert isinstance(told.value, AgentGymError)
