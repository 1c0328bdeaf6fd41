"""The E2B backend, through E2B's own SDK, against a server on loopback that speaks its protocol and runs the code."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import SandboxFault, SandboxFileError, SandboxUnavailable
from agentgym.execution import ExecStatus, SandboxLimits, SandboxSpec
from agentgym.sandboxes import make_backend
from agentgym.sandboxes.e2b import E2BBackend
from agentgym.sandboxes.probes import run_probes

pytest.importorskip("e2b_code_interpreter")
Run = Callable[..., Any]
NO_MORE = {"Should-Retry": "false"}


def _beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


e2b_server = _beside("e2b_server")
conformance = _beside("test_conformance")
# what is promised by every sandbox and can be asked of a machine without walls of its own
test_variables_and_files_live_on = conformance.test_variables_and_files_live_on
test_a_deadline_ends_everything = conformance.test_a_deadline_ends_everything_and_the_next_call_begins_afresh
test_its_own_end_is_told = conformance.test_its_own_end_is_told
test_a_child_that_comes_back_does_not_answer = conformance.test_a_child_that_comes_back_does_not_answer
test_files = conformance.test_files
test_a_spec_is_furnished_again_after_a_loss = conformance.test_a_spec_is_furnished_again_after_a_loss
test_closing = conformance.test_closing
test_a_cancelled_call_leaves_a_usable_sandbox = conformance.test_a_cancelled_call_leaves_a_usable_sandbox
test_a_timeout_that_is_none = conformance.test_a_timeout_that_is_none
test_a_terminal_lives_on = conformance.test_a_terminal_lives_on
test_a_snapshot_brings_files_back = conformance.test_a_snapshot_brings_files_back
test_paths_that_are_none = conformance.test_paths_that_are_none
test_too_much_and_no_text = conformance.test_too_much_and_no_text


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    made = e2b_server.Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2B_API_KEY", e2b_server.KEY)
        patch.setenv("E2B_API_URL", made.url)
        patch.setenv("E2B_SANDBOX_URL", made.url)
        yield made
    made.close()


@pytest.fixture(scope="module")
def backend(server: Any, run: Run) -> Iterator[E2BBackend]:
    made = make_backend("e2b")
    assert isinstance(made, E2BBackend)
    yield made
    run(made.aclose())
    assert server.machines == {}


@pytest.fixture
def sandbox(backend: E2BBackend, server: Any, spec: SandboxSpec, run: Run) -> Iterator[Any]:
    made = run(backend.create(spec))
    yield made
    server.answers.clear()
    run(made.close())


def test_what_the_code_does_wrong_is_a_result(sandbox: Any, run: Run) -> None:
    failed = run(sandbox.exec("def f():\n    return 1 / 0\nf()"))
    assert (failed.status, failed.error) == (ExecStatus.error, "ZeroDivisionError: division by zero")
    assert failed.stderr.endswith("---\n")  # the traceback, without its colours
    assert "SyntaxError" in run(sandbox.exec("def")).error
    assert run(sandbox.exec("raise MemoryError")).status is ExecStatus.oom
    assert run(sandbox.exec("a\ud800")).status is ExecStatus.error


def test_output_is_capped_and_says_so(sandbox: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = run(sandbox.exec("print('x' * 5000); 'y' * 9000"))
    assert flood.truncated
    assert flood.stdout.startswith("x" * 2000 + "\n[... 3001 more bytes]")
    assert len(flood.result) < 2100
    for call in (sandbox.shell, sandbox.terminal):
        assert run(call("head -c 5000 /dev/zero | tr '\\0' x")).stdout == "x" * 2000 + "\n[... 3000 more bytes]"
    monkeypatch.setattr("agentgym.sandboxes.e2b.sandbox.FLOOD", 1 << 20)
    endless = run(sandbox.exec("while True: print('x' * 100_000)"))
    assert (endless.status, endless.state_lost) == (ExecStatus.killed, True)
    assert "more than 1048576 bytes" in endless.error
    assert run(sandbox.exec("1")).ok


def test_deadlines_of_commands(sandbox: Any, run: Run) -> None:
    for call in (sandbox.shell, sandbox.terminal):
        over = run(call("echo begun; sleep 60", timeout=0.3))
        assert (over.status, over.state_lost, over.stdout) == (ExecStatus.timeout, True, "begun\n")
        assert run(call("echo on")).stdout == "on\n"


def test_a_working_directory(backend: Any, spec: SandboxSpec, run: Run, tmp_path: Path) -> None:
    given = SandboxSpec(spec.limits, files={"a": b"1"}, workdir=f"{tmp_path}/in", setup="pwd > b")
    sandbox = run(backend.create(given))
    assert run(sandbox.exec("open('a').read(), open('b').read()")).result == f"('1', '{tmp_path}/in\\n')"
    assert run(sandbox.terminal("pwd")).stdout == f"{tmp_path}/in\n"
    taken = run(sandbox.snapshot())
    run(sandbox.shell("rm a"))
    run(sandbox.restore(taken))
    assert run(sandbox.exec("open('a').read()")).result == "'1'"
    assert run(sandbox.read_file("a")) == b"1"
    run(sandbox.close())


def test_a_large_file_is_not_taken_whole(sandbox: Any, run: Run) -> None:
    run(sandbox.shell("truncate -s 200M big"))
    with pytest.raises(SandboxFileError, match="more than 10 bytes"):
        run(sandbox.read_file("big", 10))
    run(sandbox.write_file("some", bytes(range(256)) * 8192))
    assert run(sandbox.read_file("some", 4 << 20)) == bytes(range(256)) * 8192


def test_nothing_is_left_behind(server: Any, backend: Any, spec: SandboxSpec, run: Run) -> None:
    sandbox = run(backend.create(spec))
    (machine,) = server.machines.values()
    run(
        sandbox.exec(
            "import os\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: os.execvp('sleep', ['sleep', '99'])"
        )
    )
    run(sandbox.terminal("sleep 99 &"))
    deadline = time.monotonic() + 20
    while len(e2b_server.processes(machine.id)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)  # the daemon takes a moment to be one
    assert len(e2b_server.processes(machine.id)) >= 4
    run(sandbox.close())
    assert server.machines == {}
    assert e2b_server.processes(machine.id) == []


def test_a_cancelled_creation_leaves_nothing(server: Any, spec: SandboxSpec, run: Run) -> None:
    async def main() -> None:
        backend = E2BBackend()
        for delay in (0.0, 0.005, 0.03, 0.2):
            making = asyncio.create_task(backend.create(SandboxSpec(spec.limits, setup="sleep 0.2")))
            await asyncio.sleep(delay)
            making.cancel()
            for made in await asyncio.gather(making, return_exceptions=True):
                assert isinstance(made, asyncio.CancelledError)
        await backend.aclose()

    run(main())
    assert server.machines == {}


def test_it_is_labelled_and_kept_alive(server: Any, spec: SandboxSpec, run: Run) -> None:
    ours, other = E2BBackend(label="one", lifetime=100), E2BBackend(label="one", internet=True, template="mine")
    box, left = run(ours.create(spec)), run(other.create(SandboxSpec(spec.limits, image="yours")))
    (machine, second) = server.machines.values()
    assert (machine.body["metadata"], machine.body["allow_internet_access"]) == ({"agentgym": "one"}, False)
    assert (second.body["templateID"], second.body["allow_internet_access"]) == ("yours", True)
    assert (ours.capabilities.network, other.capabilities.network) == ("none", "own")
    assert run(ours.leftovers()) == [second.id]
    assert machine.ends - time.time() < 101
    assert run(box.exec("1", timeout=500)).ok
    assert machine.ends - time.time() > 500
    run(ours.aclose())
    run(other.aclose())
    assert run(left.close()) is None


@pytest.mark.parametrize("what", ["exec", "shell", "terminal"])
def test_a_machine_that_died_is_told_and_replaced(what: str, server: Any, sandbox: Any, run: Run) -> None:
    call = getattr(sandbox, what)
    assert run(call("1" if what == "exec" else "X=1; echo 1")).ok
    server.end(next(iter(server.machines)))
    lost = run(call("2"))
    assert (lost.status, lost.state_lost) == (ExecStatus.infra_error, True)
    assert run(call("3" if what == "exec" else 'echo "3$X"')).ok
    assert len(server.machines) == 1


@pytest.mark.parametrize("what", ["exec", "shell", "terminal"])
def test_a_machine_that_dies_under_a_call(what: str, server: Any, sandbox: Any, run: Run) -> None:
    async def main() -> Any:
        code = "import time; time.sleep(60)" if what == "exec" else "sleep 60"
        call = asyncio.create_task(getattr(sandbox, what)(code))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.end, next(iter(server.machines)))
        return await call

    lost = run(main())
    assert (lost.status, lost.state_lost) == (ExecStatus.infra_error, True)
    assert run(sandbox.exec("1")).ok


def test_files_of_a_machine_that_died(server: Any, sandbox: Any, run: Run) -> None:
    server.end(next(iter(server.machines)))
    with pytest.raises(SandboxFault, match="failed over a"):
        run(sandbox.read_file("a"))
    run(sandbox.write_file("a", b"1"))
    assert run(sandbox.read_file("a")) == b"1"


def _lines(*lines: Any) -> tuple[int, bytes, dict[str, str]]:
    return 200, b"".join(json.dumps(line).encode() + b"\n" for line in lines), {}


COUNT = {"type": "number_of_executions", "execution_count": 1}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (_lines(COUNT), "ok"),
        (_lines(), "infra_error"),
        (_lines({"type": "unexpected_end_of_execution"}), "infra_error"),
        (
            _lines(COUNT, {"type": "error", "name": "UnexpectedEndOfExecution", "value": "", "traceback": ""}),
            "infra_error",
        ),
        (_lines(COUNT, {"type": "error", "name": "ContextRestarting", "value": "", "traceback": ""}), "killed"),
        (_lines(COUNT, {"type": "error", "name": "ContextRestarting", "value": "", "traceback": "raised"}), "error"),
        (_lines(COUNT, {"type": "error", "name": "SystemExit", "value": "0", "traceback": "t"}), "ok"),
        (_lines(COUNT, {"type": "error", "name": "SystemExit", "value": "2", "traceback": "t"}), "error"),
        (_lines(COUNT, {"type": "new", "x": 1}), "ok"),
        (_lines(COUNT, [1]), "infra_error"),
        ((200, b"<html>\n", {}), "infra_error"),
        ((200, b"\xff\xfe\x00{]\n" * 9, {}), "infra_error"),
        ((500, b"broken", {}), "infra_error"),
        ((502, b"gone", {}), "infra_error"),
        ((404, b"no context", {}), "infra_error"),
    ],
)
def test_what_the_interpreter_may_answer(answer: Any, status: str, server: Any, sandbox: Any, run: Run) -> None:
    server.answers["/execute"] = answer
    told = run(sandbox.exec("1"))
    assert (told.status.value, told.state_lost) == (status, status in ("infra_error", "killed"))
    server.answers.clear()
    assert run(sandbox.exec("1")).result == "1"


@pytest.mark.parametrize("path", ["/execute", "/process", "/files"])
@pytest.mark.parametrize(
    ("status", "fault", "text"),
    [(429, SandboxFault, "limits how much"), (401, SandboxUnavailable, "refused the key in E2B_API_KEY")],
)
def test_a_refusal_leaves_the_sandbox_as_it_was(
    path: str, status: int, fault: type[Exception], text: str, server: Any, sandbox: Any, run: Run
) -> None:
    calls = {
        "/execute": lambda: sandbox.exec("x"),
        "/process": lambda: sandbox.shell("ls"),
        "/files": lambda: sandbox.read_file("a"),
    }
    run(sandbox.exec("x = 1"))
    server.answers[path] = (status, b'{"message": "told so"}', NO_MORE)
    with pytest.raises(fault, match=text):
        run(calls[path]())
    server.answers.clear()
    assert run(sandbox.exec("x")).result == "1"


@pytest.mark.parametrize(
    ("answer", "fault", "text"),
    [
        (
            (401, b'{"code": 401, "message": "bad key"}', {}),
            SandboxUnavailable,
            "refused the key in E2B_API_KEY: .*bad key",
        ),
        ((429, b'{"code": 429, "message": "20 at most"}', NO_MORE), SandboxFault, "limits how much .*20 at most"),
        ((503, b'{"code": 503, "message": "full"}', NO_MORE), SandboxFault, "no room just now: .*full"),
        ((500, b'{"code": 500, "message": "oh"}', {}), SandboxFault, "made no sandbox: .*500: oh"),
        ((500, b"oh", {}), SandboxFault, "made no sandbox"),
        ((201, b"<html>", {}), SandboxFault, "made no sandbox"),
        ((201, b"{}", {}), SandboxFault, "made no sandbox"),
        ((201, b"[1]", {}), SandboxFault, "made no sandbox"),
        ((204, b"", {}), SandboxFault, "made no sandbox"),
    ],
)
def test_a_creation_that_fails(
    answer: Any, fault: type[Exception], text: str, server: Any, spec: SandboxSpec, backend: Any, run: Run
) -> None:
    server.answers["/v2/sandboxes"] = answer
    try:
        with pytest.raises(fault, match=text) as told:
            run(backend.create(spec))
    finally:
        server.answers.clear()
    assert isinstance(told.value, SandboxUnavailable) == (fault is SandboxUnavailable)


def test_a_machine_that_cannot_be_furnished_is_killed(server: Any, backend: Any, spec: SandboxSpec, run: Run) -> None:
    before = set(server.machines)
    for answer in ((500, b"oh", {}), (200, b"nonsense", {})):
        server.answers["/files"] = answer
        with pytest.raises(SandboxFault, match="failed over a"):
            run(backend.create(SandboxSpec(spec.limits, files={"a": b""})))
        server.answers.clear()
    assert set(server.machines) == before


def test_before_anything_is_sent(server: Any, spec: SandboxSpec, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = len(server.asked)
    for given, text in (
        (SandboxSpec(dockerfile="."), "builds no Dockerfile"),
        (SandboxSpec(user="root"), "sandbox user = 'root'"),
    ):
        with pytest.raises(SandboxUnavailable, match=text):
            run(E2BBackend().create(given))
    monkeypatch.delenv("E2B_API_KEY")
    with pytest.raises(SandboxUnavailable, match=r"set E2B_API_KEY \(get one at https://e2b\.dev"):
        run(E2BBackend().create(spec))
    monkeypatch.setitem(sys.modules, "e2b_code_interpreter", None)
    monkeypatch.delitem(sys.modules, "agentgym.sandboxes.e2b.sandbox", raising=False)
    with pytest.raises(SandboxUnavailable, match=r"pip install 'agentgym-train\[e2b\]'"):
        run(E2BBackend(api_key="e2b_1").create(spec))
    assert len(server.asked) == asked
    with pytest.raises(ValueError, match="lifetime = 0"):
        E2BBackend(lifetime=0)


def test_a_key_or_template_that_is_none(server: Any, spec: SandboxSpec, run: Run) -> None:
    with pytest.raises(SandboxUnavailable, match="refused the key"):
        run(E2BBackend(api_key="e2b_wrong").create(spec))
    with pytest.raises(SandboxUnavailable, match=r"no such sandbox \(template 'none'\)"):
        run(E2BBackend(template="none").create(spec))


def test_a_server_that_is_down(server: Any, spec: SandboxSpec, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("E2B_API_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(SandboxUnavailable, match="cannot be reached"):
        run(E2BBackend().create(spec))


def test_several_at_once(server: Any, run: Run) -> None:
    async def one(backend: E2BBackend, i: int) -> str:
        async with await backend.create(SandboxSpec(SandboxLimits(timeout=60))) as box:
            await box.terminal(f"N={i}")
            await box.exec(f"n = {i}")
            return f"{(await box.exec('n')).result} {(await box.terminal('echo $N')).stdout.strip()}"

    async def main() -> list[str]:
        backend = E2BBackend()
        found = await asyncio.gather(*(one(backend, i) for i in range(4)))
        await backend.aclose()
        return found

    assert run(main()) == [f"{i} {i}" for i in range(4)]
    assert server.machines == {}


@pytest.mark.slow
def test_probes_that_ask_nothing_of_the_machine(backend: E2BBackend, run: Run) -> None:
    """The rest is E2B's own to hold: the server of these tests has no walls."""
    asked = (36, 37, 38, 40, 42, 45)
    rows = run(run_probes(backend, name="e2b", only=asked))
    assert [(row.probe, row.status, row.control) for row in rows] == [(n, "contained", "ok") for n in asked]
