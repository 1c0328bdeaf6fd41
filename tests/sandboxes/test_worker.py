"""A session's inner loop in the tests' own process: code, commands, files, and how each of them is answered."""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.sandboxes.local.jail import worker as module
from agentgym.sandboxes.local.jail.wire import Garbled, pack, parse, receive
from agentgym.sandboxes.local.jail.worker import RESULT_CHARS, Worker

Reply = tuple[dict[str, Any], bytes]
Ask = Callable[..., list[Reply]]
JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3)
MESSAGES = st.dictionaries(st.text(max_size=9), JSON, max_size=4)


@given(st.lists(st.tuples(MESSAGES, st.binary(max_size=99)), max_size=4))
def test_frames_come_as_they_were_sent(frames: list[Reply]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(pack(message, payload) for message, payload in frames))
        ours.shutdown(socket.SHUT_WR)
        assert [receive(theirs) for _ in frames] == frames
        assert receive(theirs) is None


@given(st.binary(max_size=40))
def test_bytes_that_are_no_frame_are_told_or_end_the_stream(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        try:
            found = receive(theirs)
        except Garbled:
            return
        assert found is None or isinstance(found[0], dict)


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_message(text: bytes) -> None:
    with pytest.raises(Garbled):
        parse(text)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, io.StringIO, io.StringIO]:
    """The worker's, which become this process's for as long as the test runs."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(module, "_empty", lambda: None)  # descriptors 1 and 2 are the tests' own
    return io.StringIO("typed\n"), io.StringIO(), io.StringIO()


@pytest.fixture
def ask(streams: Any) -> Ask:
    """ask((op, payload, fields), ...) -> the replies of one worker, in order, after which its stream ends."""

    def run(*requests: tuple[Any, ...], end_others: Callable[[], None] = lambda: None) -> list[Reply]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for op, payload, *more in requests:
                ours.sendall(pack({"op": op, **(more[0] if more else {})}, payload.encode()))
            ours.shutdown(socket.SHUT_WR)
            Worker(theirs, end_others, streams).run()
            replies = [receive(ours) for _ in requests]
        found = [reply for reply in replies if reply is not None]
        for message, _ in found:
            assert message.pop("duration") >= 0
        return found

    return run


def test_code_shares_one_namespace_and_the_last_expression_is_its_result(ask: Ask, streams: Any) -> None:
    replies = ask(
        ("exec", "x = 2\nx + 1"), ("exec", "_ * 10"), ("exec", "print(input(), x)"), ("exec", "x = 1"), ("exec", "")
    )
    assert [message for message, _ in replies] == [
        {"status": "ok", "result": "3"},
        {"status": "ok", "result": "30"},
        *[{"status": "ok"}] * 3,
    ]
    assert streams[1].getvalue() == "typed 2\n"


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        ("1 / 0", {"status": "error", "error": "ZeroDivisionError: division by zero"}),
        ("x = (", {"status": "error", "error": "SyntaxError: '(' was never closed (<code 1>, line 1)"}),
        ("raise MemoryError", {"status": "oom", "error": "MemoryError: "}),
        ("raise KeyboardInterrupt", {"status": "error", "error": "KeyboardInterrupt: "}),
        ("raise SystemExit", {"status": "ok"}),
        ("import sys; sys.exit(0)", {"status": "ok"}),
        ("import sys; sys.exit('no')", {"status": "error", "error": "SystemExit: no"}),
        ("'a' * 100_000", {"status": "ok", "result": "'" + "a" * (RESULT_CHARS - 1)}),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", {"status": "error", "error": "E"}),
        ("class R:\n    def __repr__(self): raise ValueError('r')\nR()", {"status": "error", "error": "ValueError: r"}),
        ("import sys; sys.stdout.close()", {"status": "ok"}),
    ],
)
def test_how_code_may_end(code: str, reply: dict[str, Any], ask: Ask) -> None:
    assert ask(("exec", code), ("exec", "1")) == [(reply, b""), ({"status": "ok", "result": "1"}, b"")]


def test_a_traceback_is_of_the_codes_own_lines(ask: Ask, streams: Any) -> None:
    ask(("exec", "import json\ndef f():\n    json.loads('{')\nf()"))
    told = streams[2].getvalue()
    assert "File \"<code 1>\", line 3, in f\n    json.loads('{')\n" in told
    assert "worker.py" not in told
    assert "json/decoder.py" not in told


def test_commands(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    replies = ask(("shell", "echo said; cat"), ("shell", "exit 3"))
    assert replies == [({"status": "ok", "exit_code": 0}, b""), ({"status": "error", "exit_code": 3}, b"")]
    assert capfd.readouterr().out == "said\n"


def test_a_terminal_lives_on_until_it_ends(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    commands = ["X=5; cd /", "echo $X $PWD; false", "echo 'a", "cat", "exit 4", "echo ${X:-none}", "exit 0"]
    replies = [message for message, _ in ask(*(("terminal", command) for command in commands))]
    over = "the terminal ended; the next command gets a new one"
    assert [(reply["status"], reply["exit_code"]) for reply in replies[:2]] == [("ok", 0), ("error", 1)]
    assert replies[2]["status"] == "error"  # a quote that is left open ends no terminal
    assert replies[3] == {"status": "ok", "exit_code": 0}  # its stdin is not the terminal's
    assert replies[4] == {"status": "error", "exit_code": 4, "error": over}
    assert replies[5] == {"status": "ok", "exit_code": 0}
    assert replies[6] == {"status": "error", "exit_code": 0, "error": over}
    assert capfd.readouterr().out.split() == ["5", "/", "none"]


def test_files(ask: Ask, tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    replies = ask(
        ("write", "0123456789", {"path": path}),
        ("read", "", {"path": path, "max_bytes": 100}),
        ("read", "", {"path": path, "max_bytes": 4}),
        ("read", "", {"path": f"{path}x", "max_bytes": 4}),
        ("write", "", {"path": str(tmp_path)}),
    )
    missing = os.strerror(errno.ENOENT)
    assert replies[:3] == [({"status": "ok"}, data) for data in (b"", b"0123456789", b"01234")]  # one more than asked
    assert replies[3][0]["status"] == replies[4][0]["status"] == "error"
    assert replies[3][0]["error"].startswith("FileNotFoundError")
    assert missing in replies[3][0]["error"]
    assert replies[4][0]["error"].startswith("IsADirectoryError")


def test_folders_of_its_own_stand_for_work_and_tmp(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_FOLDER", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    replies = ask(
        ("write", "1", {"path": "/work/x"}),
        ("workdir", "", {"path": "/tmp/deep/er"}),
        ("write", "2", {"path": "y"}),
        ("read", "", {"path": f"{tmp_path}/work/x", "max_bytes": 9}),
        ("read", "", {"path": "/workshop/x", "max_bytes": 9}),
    )
    assert "AGENTGYM_FOLDER" not in os.environ  # the code need not know
    assert [message["status"] for message, _ in replies] == [*["ok"] * 4, "error"]
    assert ((tmp_path / "work/x").read_text(), (tmp_path / "tmp/deep/er/y").read_text()) == ("1", "2")
    assert replies[3][1] == b"1"


def test_afresh_forgets_all_of_the_code(ask: Ask) -> None:
    ended: list[str] = []
    replies = ask(
        ("exec", "x = 1\nimport __main__; __main__.x"),
        ("terminal", "Y=2; exit"),
        ("afresh", ""),
        ("exec", "'x' in globals(), __name__"),
        end_others=lambda: ended.append("others"),
    )
    assert [message.get("result") for message, _ in replies] == ["1", None, None, "(False, '__main__')"]
    assert ended == ["others"]


def test_a_request_that_nobody_knows_ends_the_worker(ask: Ask) -> None:
    with pytest.raises(AttributeError, match="do_nothing"):
        ask(("nothing", ""))


def test_standard_streams_are_of_the_descriptors() -> None:
    read, out, err = module.standard_streams()
    assert (read.fileno(), out.fileno(), err.fileno()) == (0, 1, 2)
    assert out.errors == err.errors == "backslashreplace"  # what cannot be encoded is no error of the code's
    for stream in (read, out, err):
        stream.close()
    os.fstat(1)  # they are not theirs to close
