"""What of the docker backend can be told without an engine."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.cli import main
from agentgym.errors import SandboxUnavailable
from agentgym.execution import ExecStatus, SandboxLimits, SandboxSpec
from agentgym.sandboxes.docker import DockerBackend, owners
from agentgym.sandboxes.docker.images import _content_hash, _split
from agentgym.sandboxes.docker.inside import LOADER, bundle, filter
from agentgym.sandboxes.docker.session import _outputs
from agentgym.sandboxes.docker.stream import Incoming
from agentgym.sandboxes.local.jail.wire import Garbled, pack
from agentgym.sandboxes.sessions import outcome

Run = Callable[..., Any]


def packet(data: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frames_come_out_however_the_stream_is_cut(step: int) -> None:
    frames = [({"a": 1}, b""), ({"b": "x" * 50}, bytes(range(200)))]
    whole = b"".join(pack(*frame) for frame in frames)
    stream = packet(whole[:7]) + packet(b"said aside", 2) + packet(b"") + packet(whole[7:100]) + packet(whole[100:])
    incoming, found = Incoming(), []
    for at in range(0, len(stream), step):
        incoming.feed(stream[at : at + step])
        while (frame := incoming.frame()) is not None:
            found.append(frame)
    assert found == frames
    assert incoming.errors == b"said aside"


@pytest.mark.parametrize(
    "forged",
    [pack({}, bytes(2000)), b"\xff" * 8, struct.pack("=II", 2, 0) + b"[]", struct.pack("=II", 2, 0) + b"\xff["],
)
def test_what_is_no_frame(forged: bytes) -> None:
    incoming = Incoming(limit=1000)
    incoming.feed(packet(forged))
    with pytest.raises(Garbled):
        incoming.frame()


@pytest.mark.parametrize("report", [{}, {"sizes": "x", "taken": -1}, {"sizes": [1], "taken": 9}, {"sizes": [0, None]}])
def test_a_report_may_say_anything(report: dict[str, Any]) -> None:
    told = outcome({"status": "infra_error", "result": 3}, False, _outputs(report, b"abc"), SandboxLimits())
    assert (told.status, told.stdout + told.stderr, told.result) == (ExecStatus.error, "abc", None)


def test_output_and_error_are_told_apart() -> None:
    assert _outputs({"sizes": [2, 900], "taken": 2}, b"abcd") == [(b"ab", 2), (b"cd", 900)]


def test_an_engine_that_is_not_there(tmp_path: Path, run: Run) -> None:
    backend = DockerBackend(host=f"unix://{tmp_path}/none.sock")
    with pytest.raises(SandboxUnavailable, match=r"no Docker engine answers at unix(.|\n)*systemctl start docker"):
        run(backend.create(SandboxSpec()))
    run(backend.aclose())
    run(backend.aclose())


def test_an_engine_that_cannot_be_spoken_to(run: Run) -> None:
    backend = DockerBackend(host="ssh://somewhere")
    with pytest.raises(SandboxUnavailable, match="forward the socket: ssh"):
        run(backend.create(SandboxSpec()))
    run(backend.aclose())


@pytest.mark.parametrize("what", ["image", "dockerfile"])
def test_without_the_sdk(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    for name in [name for name in sys.modules if name.startswith("docker.")]:
        monkeypatch.delitem(sys.modules, name)  # where another test loaded it
    monkeypatch.setitem(sys.modules, "docker", None)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    backend = DockerBackend()
    with pytest.raises(SandboxUnavailable, match=r"pip install 'agentgym-train\[docker\]'"):
        run(backend.create(SandboxSpec(dockerfile=str(tmp_path)) if what == "dockerfile" else SandboxSpec()))
    run(backend.aclose())


def test_the_package_is_light() -> None:
    code = "import sys, agentgym.sandboxes.docker\nassert not {'docker', 'requests'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_build_tells_what_is_wrong_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sandbox", "build", str(tmp_path)])
    assert end.value.code == 2
    assert f"error: {tmp_path}: no Dockerfile there" in capsys.readouterr().err


def test_the_supervisor_ends_at_once_where_it_is_not_the_first_process() -> None:
    """It kills whatever it can reach."""
    done = subprocess.run([sys.executable, "-I", "-c", LOADER], input=bundle(), capture_output=True, timeout=20)
    assert done.returncode == 1
    assert b"has to be the first process of a container" in done.stderr


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_second_filter_by_machine(machine: str) -> None:
    """Run as the kernel would: instructions on (architecture, number, first argument)."""
    arch, socket = filter.MACHINES[machine]

    def decide(data: dict[int, int]) -> int:
        at, held = 0, 0
        while True:
            code, yes, no, value = filter.program(machine)[at]
            if code == 0x20:
                held = data[value]
            elif code == 0x06:
                return value
            else:
                at += yes if (held == value if code == 0x15 else held >= value) else no
            at += 1

    def told(number: int, argument: int = 0, of: int = arch) -> int:
        return decide({0: number, 4: of, 16: argument})

    assert [told(0), told(socket, 2), told(424), told(428), told(socket + 1, 40)] == [filter.ALLOW] * 5
    assert [told(425), told(426), told(427), told(socket, 40)] == [filter.NOT_PERMITTED] * 4
    assert [told(0, of=0x40000003), told(0x40000000)] == [filter.NO_SUCH_CALL] * 2


def listed(labels: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"Labels": labels, "State": "running", "Created": time.time(), **more}


def test_whose_a_container_is() -> None:
    mine = owners.labels()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    names = ("pid", "started", "boot", "pids", "machine")
    pid, started, boot, pids, machine = (f"{owners.LABEL}.{name}" for name in names)
    assert not owners.left_behind(listed(mine))
    assert owners.left_behind(listed({**mine, pid: str(child.pid)}))
    assert owners.left_behind(listed({**mine, started: "1"}))  # a number that was given out again
    assert owners.left_behind(listed({**mine, boot: "earlier"}))
    other = {**mine, machine: "elsewhere", pid: str(child.pid)}
    for unknown in (other, {**mine, pids: "another"}, {owners.LABEL: "1"}):
        assert not owners.left_behind(listed(unknown))
        assert not owners.left_behind(listed(unknown, State="exited"))
        assert owners.left_behind(listed(unknown, State="exited", Created=time.time() - 4000))


def test_the_hash_is_of_what_a_build_sees(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    (tmp_path / "a").write_text("1")
    first = _content_hash(tmp_path, "Dockerfile")
    os.utime(tmp_path / "a", (1, 1))
    assert _content_hash(tmp_path, "Dockerfile") == first
    (tmp_path / ".dockerignore").write_text("# none\nignored\n")
    ignoring = _content_hash(tmp_path, "Dockerfile")
    (tmp_path / "ignored").write_text("2")
    assert _content_hash(tmp_path, "Dockerfile") == ignoring != first
    seen = {ignoring}
    for change in (
        lambda: (tmp_path / "a").write_text("2"),
        lambda: (tmp_path / "a").chmod(0o755),
        lambda: (tmp_path / "a").rename(tmp_path / "b"),
        lambda: (tmp_path / "Dockerfile").write_text("FROM y\n"),
        lambda: (tmp_path / "l").symlink_to("b"),
    ):
        change()
        assert _content_hash(tmp_path, "Dockerfile") not in seen
        seen.add(_content_hash(tmp_path, "Dockerfile"))


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("a", ("a", "latest")),
        ("a:1", ("a", "1")),
        ("h:5000/a", ("h:5000/a", "latest")),
        ("h:5000/a:2", ("h:5000/a", "2")),
    ],
)
def test_tags_are_taken_apart(tag: str, parts: tuple[str, str]) -> None:
    assert _split(tag) == parts
