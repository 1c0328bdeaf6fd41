"""Tools of the episode's sandbox: python, shell and files, through an env as a model would use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.config import load_config
from agentgym.envs.tool_env import ToolEnv
from agentgym.errors import ConfigError, EpisodeFault, SandboxUnavailable
from agentgym.execution import ExecResult, ExecStatus
from agentgym.rollout.worker import env_factory
from agentgym.sandboxes import shared_backend
from agentgym.tools.driving import drive
from agentgym.tools.sandboxed import told
from agentgym.types import Message, StopReason, ToolCall

TOOLS = ("python", "shell", "read_file", "write_file", "edit_file", "list_files")


@pytest.fixture
def env() -> Iterator[ToolEnv]:
    made = ToolEnv([("q", "a")], tools=TOOLS, sandbox={"timeout": 5, "output": 2000}, max_turns=0, max_parse_errors=0)
    drive(made.areset(seed=0))
    try:
        use(made, "python", code="0")
    except SandboxUnavailable as e:
        pytest.skip(f"no local sandbox on this machine: {e}")
    yield made
    drive(made.aclose())


def use(env: ToolEnv, tool: str, **arguments: Any) -> str:
    step = drive(env.astep(Message("assistant", "", tool_calls=(ToolCall("c", tool, arguments),))))
    return step.messages[0].text


def test_python(env: ToolEnv) -> None:
    assert use(env, "python", code="x = 2\nprint('set')") == "set"
    assert use(env, "python", code="x + 1") == "3"
    assert use(env, "python", code="print(1)\nx") == "1\n2"
    assert use(env, "python", code="y = 1") == "(no output)"
    failed = use(env, "python", code="1 / 0")
    assert failed.endswith("ZeroDivisionError: division by zero")
    assert failed.startswith("Traceback")
    assert "more bytes" in use(env, "python", code="print('x' * 9000)")
    lost = use(env, "python", code="import os; os._exit(1)")
    assert "killed; variables and files are gone" in lost
    assert "NameError" in use(env, "python", code="x")
    assert env.episode is not None
    assert [result.error for result in env.episode.calls[-4:]] == [True, False, True, True]


def test_shell_and_files(env: ToolEnv) -> None:
    assert use(env, "shell", command="mkdir d; cd d; echo hi > a") == "(no output)"
    lines = use(env, "shell", command="cat a; cat b").splitlines()
    assert lines == ["hi", "cat: b: No such file or directory", "[exit code 1]"]
    assert use(env, "write_file", path="d/f.txt", text="one\ntwo\nthree\n") == "wrote 14 bytes to d/f.txt"
    assert use(env, "read_file", path="d/f.txt") == "1\tone\n2\ttwo\n3\tthree"
    assert use(env, "read_file", path="d/f.txt", first=2, lines=1) == "2\ttwo\n[1 more lines]"
    assert use(env, "edit_file", path="d/f.txt", old="two", new="2") == "edited d/f.txt"
    assert "is there 2 times" in use(env, "edit_file", path="d/f.txt", old="e\n", new="2")
    assert use(env, "python", code="open('d/f.txt').read()") == "'one\\n2\\nthree\\n'"
    assert use(env, "list_files").splitlines() == ["d/"]
    assert "No such file" in use(env, "list_files", path="none")
    assert use(env, "read_file", path="d/none").startswith("error: d/none:")
    assert use(env, "read_file", path="../x").startswith("error: '../x': not a path")
    assert use(env, "write_file", path="/usr/x", text="").startswith("error: /usr/x:")


def test_each_episode_has_a_sandbox_of_its_own_until_it_ends(env: ToolEnv) -> None:
    assert env.episode is not None
    first = env.episode._sandbox
    use(env, "python", code="x = 1; open('f', 'w').write('1')")
    end = drive(env.astep(Message("assistant", "a")))
    assert end.stop_reason is StopReason.completed
    assert env.episode._sandbox is None
    drive(env.areset(seed=1))
    assert "NameError" in use(env, "python", code="x")
    assert use(env, "list_files") == "(no output)"
    second = env.episode._sandbox
    assert second is not first
    drive(env.areset(seed=2))  # one that was never ended is let go of too
    assert env.episode._sandbox is None
    assert second.pool.stats.lent == 0  # type: ignore[union-attr]


def test_a_task_may_say_more_of_its_sandbox() -> None:
    tasks = [{"question": "q", "answer": "a", "sandbox": {"files": {"in.txt": b"7"}, "workdir": "/work/task"}}]
    env = ToolEnv(tasks, tools=["python"], sandbox={"timeout": 5})
    drive(env.areset(seed=0))
    assert use(env, "python", code="import os; open('in.txt').read(), os.getcwd()") == "('7', '/work/task')"
    drive(env.aclose())


def test_a_sandbox_that_fails_is_no_observation() -> None:
    with pytest.raises(EpisodeFault, match="the sandbox failed: gone"):
        told(ExecResult(ExecStatus.infra_error, error="gone"))
    fake = shared_backend("fake")
    env = ToolEnv([("q", "a")], tools=["python"], sandbox={"backend": "fake"})
    drive(env.areset(seed=0))
    with pytest.raises(EpisodeFault, match="no answer"):
        use(env, "python", code="1")
    drive(env.aclose())
    assert fake.made[-1].closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"backend": "dokcer"}, "did you mean 'docker'"),
        ({"memroy": 5}, "did you mean 'memory'"),
        ({"timeout": 0}, "timeout = 0"),
        ({"at_once": 0}, "at_once = 0"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ToolEnv([("q", "a")], tools=["python"], sandbox=settings)


def test_settings_are_a_table() -> None:
    with pytest.raises(ConfigError, match="sandbox = 'docker': give a table"):
        ToolEnv([("q", "a")], tools=["python"], sandbox="docker")


def test_the_configuration_says_where_code_runs() -> None:
    def sandbox(*overrides: str) -> Any:
        return env_factory(load_config("python-math", overrides))("agentgym/PythonMath-v0").sandbox

    assert sandbox() == {"timeout": 5.0}
    assert sandbox("sandbox.backend=docker", "sandbox.image=mine") == {
        "timeout": 5.0,
        "backend": "docker",
        "image": "mine",
    }
    with pytest.raises(ConfigError, match="did you mean 'docker'"):
        sandbox("sandbox.backend=dokcer")


def test_an_env_without_sandboxes_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Own:\n    async def areset(self): ...\n    async def astep(self, message): ...\n"
    )
    config = load_config(None, [f"env.id={tmp_path}/own.py:Own", "sandbox.backend=docker"])
    with pytest.raises(ConfigError, match=r"sandbox\.backend: Own has no sandbox"):
        env_factory(config)(config.env.id)


def test_gymnasiums_face_waits_for_the_sandbox() -> None:
    env = agentgym.make("agentgym/PythonMath-v0")
    env.reset(seed=0, options={"index": 0})
    text, *_ = env.step('<tool_call>\n{"name": "python", "arguments": {"code": "6 * 7"}}\n</tool_call>')
    assert text == "42"
    env.close()
