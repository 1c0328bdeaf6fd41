"""A container's first process and the host's end of its stream, both here: real frames, a real worker, no container."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import SandboxFault
from agentgym.execution import ExecResult, ExecStatus, SandboxLimits
from agentgym.sandboxes.docker.engine import Engine
from agentgym.sandboxes.docker.inside.supervisor import Frames
from agentgym.sandboxes.docker.session import ContainerSession
from agentgym.sandboxes.local.jail import worker as worker_module
from agentgym.sandboxes.local.jail.wire import HEADER, pack, receive
from tests.sandboxes.container_here import PACKET, Container

LIMITS = SandboxLimits(output=100)


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    made = Container(monkeypatch)
    yield made
    made.close()


class Answers:
    """What the engine's client is asked of here: the state of a container, and its removal."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | Exception = {"Running": False, "ExitCode": 1}
        self.removed: list[str] = []

    def inspect_container(self, name: str) -> dict[str, Any]:
        if isinstance(self.state, Exception):
            raise self.state
        return {"State": self.state}

    def remove_container(self, name: str, force: bool, v: bool) -> None:
        self.removed.append(name)

    def close(self) -> None: ...


@pytest.fixture
def client() -> Answers:
    return Answers()


@pytest.fixture
def engine(client: Answers) -> Iterator[Engine]:
    made = Engine()
    made._client = client
    yield made
    made.close()


@pytest.fixture
def session(container: Container, engine: Engine) -> ContainerSession:
    made = ContainerSession(engine, "c1", container.host, LIMITS)
    made.greet(b"")
    return made


@pytest.fixture
def working(container: Container, session: ContainerSession, monkeypatch: pytest.MonkeyPatch) -> ContainerSession:
    """A session with a worker, whose streams are this process's for as long as the test runs."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(worker_module, "_empty", lambda: None)
    container.work([io.StringIO(), *(os.fdopen(fd, "w", closefd=False) for fd in container.supervisor._out)])
    return session


def calls(session: ContainerSession, *codes: str, timeout: float = 10.0) -> list[ExecResult]:
    async def run() -> list[ExecResult]:
        return [(await session.call("exec", code.encode(), timeout))[0] for code in codes]

    return asyncio.run(run())


# -- frames -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.dictionaries(st.text(max_size=5), st.integers()), st.binary(max_size=30)), max_size=4),
    st.data(),
)
@settings(max_examples=40)
def test_frames_are_cut_wherever_they_come_apart(sent: list[tuple[dict[str, Any], bytes]], data: st.DataObject) -> None:
    stream = b"".join(pack(message, payload) for message, payload in sent)
    frames, heads, passed = Frames(), [], b""
    while stream or frames.held:
        step = data.draw(st.integers(1, 20))
        frames.held += stream[:step]
        stream = stream[step:]
        while frames.held:
            if not frames.left:
                if (head := frames.whole()) is None:
                    break
                heads.append(head)
            passed += frames.take()
        if not stream and frames.held and not frames.left and frames.whole() is None:
            break
    assert heads == [message for message, _ in sent]
    assert passed == b"".join(pack(message, payload) for message, payload in sent)


# -- a worker that answers --------------------------------------------------------------------------------------------


def test_code_is_answered_with_its_result_and_its_output(working: ContainerSession) -> None:
    first, second, third = calls(
        working, "x = 2; print('said')", "import sys; print('wrong', file=sys.stderr); x + 1", "1/0"
    )
    assert (first.status, first.stdout) == (ExecStatus.ok, "said\n")
    assert (second.result, second.stderr) == ("3", "wrong\n")
    assert (third.status, third.error) == (ExecStatus.error, "ZeroDivisionError: division by zero")
    assert [told.state_lost for told in (first, second, third)] == [False] * 3
    assert working.alive


def test_long_output_is_cut_and_its_size_told(working: ContainerSession) -> None:
    (told,) = calls(working, "print('a' * 5000)")
    assert told.truncated
    assert told.stdout.startswith("a" * 40)
    assert len(told.stdout) < 1000


def test_files_go_both_ways(working: ContainerSession, tmp_path: Any) -> None:
    data, path = os.urandom(300_000), str(tmp_path / "f")

    async def run() -> bytes:
        await working.call("write", data, 10.0, path=path)
        return (await working.call("read", b"", 10.0, path=path, max_bytes=1 << 20))[1]

    assert asyncio.run(run()) == data


def test_a_kill_for_memory_is_told_once(working: ContainerSession, container: Container) -> None:
    container.count_ooms(2)
    assert [told.status for told in calls(working, "1", "1")] == [ExecStatus.oom, ExecStatus.ok]


def test_a_call_in_time_and_one_that_is_not(working: ContainerSession, container: Container, client: Answers) -> None:
    (late,) = calls(working, "import time; print('began', flush=True); time.sleep(0.6)", timeout=0.2)
    assert (late.status, late.error, late.state_lost) == (ExecStatus.timeout, "timed out after 0.2 s", True)
    assert late.stdout == "began\n"  # the report of the end has it
    assert container.left.result(5) == 0
    assert container.kills == [(-1, signal.SIGKILL)] * 2
    assert not working.alive
    with pytest.raises(SandboxFault, match="not there to be asked"):
        calls(working, "1")


# -- a worker that does not -------------------------------------------------------------------------------------------


def while_asked(session: ContainerSession, then: Callable[[], None], op: str = "exec") -> ExecResult:
    """The outcome of a call during which `then` happens."""

    async def run() -> ExecResult:
        asked = asyncio.create_task(session.call(op, b"x", 10.0))
        await asyncio.sleep(0.02)
        await asyncio.to_thread(then)
        return (await asked)[0]

    return asyncio.run(run())


def test_a_worker_that_ends(session: ContainerSession, container: Container) -> None:
    def die() -> None:
        message, payload = receive(container.worker) or ({}, b"")
        assert (message["op"], payload) == ("exec", b"x")
        container.print("last words", 1)
        container.worker.close()

    told = while_asked(session, die)
    assert (told.status, told.error, told.state_lost) == (ExecStatus.killed, "the session's process ended", True)
    assert told.stderr == "last words"
    assert container.left.result(5) == 0


@pytest.mark.parametrize(
    ("forged", "error", "code"),
    [
        (struct.pack("=II", 2, 0) + b"[]", "the container ended with code 1", 1),
        (b"\xff" * HEADER.size, "the container ended with code 1", 1),
        (pack({"status": "ok"}, bytes(3 << 20)), "an answer that is too large", 0),
    ],
    ids=["no object", "no lengths", "too large"],
)
def test_an_answer_that_is_none(
    forged: bytes, error: str, code: int, session: ContainerSession, container: Container
) -> None:
    def forge() -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be ended in the middle
            container.worker.sendall(forged)

    told = while_asked(session, forge)
    assert (told.status, told.error, told.state_lost) == (ExecStatus.killed, error, True)
    assert container.left.result(5) == code


def test_what_is_said_unasked_is_no_answer(working: ContainerSession, container: Container) -> None:
    forged = pack({"status": "ok", "result": "forged"})
    (first,) = calls(working, "1 + 1")
    os.write(container.worker.fileno(), forged)
    deadline = threading.Event()
    deadline.wait(0.05)
    (second,) = calls(working, "2 + 2")
    assert (first.result, second.result) == ("2", "4")


# -- a container that ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status", "error"),
    [
        ({"OOMKilled": True}, ExecStatus.oom, "the container ran out of memory"),
        ({"ExitCode": 137}, ExecStatus.infra_error, "the container was ended from outside"),
        ({"ExitCode": 3}, ExecStatus.killed, "the container ended with code 3"),
        ("gone", ExecStatus.infra_error, "the container is gone"),
        ("deaf", ExecStatus.infra_error, "the Docker engine does not answer: refused"),
    ],
)
def test_why_a_stream_ended(
    state: Any, status: ExecStatus, error: str, session: ContainerSession, container: Container, client: Answers
) -> None:
    from docker.errors import NotFound

    client.state = {"gone": NotFound("no"), "deaf": ConnectionError("refused")}[state] if type(state) is str else state
    told = while_asked(session, lambda: container._asked.shutdown(socket.SHUT_RDWR))
    assert (told.status, told.error, told.state_lost) == (status, error, True)


def test_closing_ends_what_runs_and_removes_the_container(
    session: ContainerSession, container: Container, client: Answers, engine: Engine
) -> None:
    async def twice() -> None:
        await session.end()
        await session.end()

    asyncio.run(twice())
    engine.settle()
    assert container.left.result(5) == 0
    assert (client.removed, session.gone, session.alive) == (["c1"], True, False)


def test_closing_in_the_middle_of_a_call(session: ContainerSession, container: Container, engine: Engine) -> None:
    async def run() -> None:
        asked = asyncio.create_task(session.call("exec", b"x", 10.0))
        await asyncio.sleep(0.02)
        await session.end()
        with pytest.raises(SandboxFault, match="closed in the middle of a call"):
            await asked

    asyncio.run(run())
    assert container.left.result(5) == 0  # the end of its stdin ends it


def test_a_supervisor_that_does_not_stop_is_removed(engine: Engine, client: Answers, monkeypatch: Any) -> None:
    monkeypatch.setattr("agentgym.sandboxes.docker.session.STOP_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        session = ContainerSession(engine, "c2", ours, LIMITS)
        (told,) = calls(session, "1", timeout=0.05)
    assert (told.status, told.state_lost, client.removed) == (ExecStatus.timeout, True, ["c2"])


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", "it ended at once"),
        (PACKET.pack(2, 6) + b"no ram", "no ram"),
        (PACKET.pack(1, 8) + b"\xff" * 8, "too large"),
        (PACKET.pack(1, len(pack({"kind": "odd"}))) + pack({"kind": "odd"}), "'kind': 'odd'"),
    ],
    ids=["silent", "complaining", "garbled", "odd"],
)
def test_a_container_that_does_not_begin(said: bytes, error: str, engine: Engine) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(SandboxFault, match="a container did not begin") as found:
            ContainerSession(engine, "c3", ours, LIMITS).greet(b"program")
        assert error in str(found.value)
        assert theirs.recv(99) == b"program"
        theirs.close()
