"""Servers that are not what they should be, and what a user is told."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentgym.config import load_config
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.facts import ServerFacts
from agentgym.engines.sglang.interpreter import find_python
from agentgym.engines.sglang.make import make_sglang, server_commands
from agentgym.engines.sglang.process import ServerCommand, ServerProcess
from agentgym.engines.sglang.sampling import read_segment
from agentgym.engines.sglang.supervisor import Supervisor
from agentgym.errors import ConfigError, EngineFault, EngineGone, ModelError
from agentgym.types import SamplingParams

ALWAYS = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{}')
port = int(sys.argv[sys.argv.index('--port') + 1])
if '--fail' in sys.argv: sys.exit('CUDA out of luck')
http.server.HTTPServer(('127.0.0.1', port), Answer).serve_forever()
"""


@pytest.fixture
def listening() -> Iterator[Callable[[Callable[[str], tuple[int, bytes]]], str]]:
    """answers -> the URL of a server that gives them."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def listen(answer: Callable[[str], tuple[int, bytes]]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Not into the test's output."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield listen
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, b"not here", "has no /get_model_info .*is it an SGLang server"),
        (200, b"<html>hello</html>", "not JSON: is it an SGLang server"),
        (200, b'{"object": "list"}', "names no model"),
        (500, b'{"error": {"message": "out of memory"}}', "HTTP 500: out of memory"),
    ],
)
def test_a_url_that_answers_something_else(listening: Any, status: int, body: bytes, says: str) -> None:
    url = listening(lambda path: (status, body))
    with pytest.raises(ConfigError, match=rf"engine.urls: SGLang server {url}: .*{says}"):
        make_sglang(load_config(None, {"engine": {"kind": "sglang", "urls": [url]}}), "model")


@pytest.mark.parametrize("url", ["localhost:30000", "ftp://h", "http://", "http://127.0.0.1:1/v1"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.urls"):
        SGLangEngine(url)


def test_nobody_there() -> None:
    with pytest.raises(EngineGone, match="cannot be reached"):
        SGLangEngine("http://127.0.0.1:9")


def test_one_that_takes_requests_and_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(EngineGone, match=r"gave no answer within 0\.3 s"):
            SGLangEngine(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout=0.3)
        assert time.monotonic() - began < 5


def test_what_was_asked_of_a_former_address_fails_and_its_connections_are_closed() -> None:
    facts = ServerFacts("0.5.23", "model", "qwen3", "default", True, 100, 105, 1, True)

    async def play(url: str) -> None:
        engine = SGLangEngine(url, facts=facts)
        asked = asyncio.create_task(engine.generate([1], SamplingParams(1)))
        former = engine._client
        while former._client is None:
            await asyncio.sleep(0.01)
        connections = former._client
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await engine.move("http://127.0.0.1:9", facts, 1)
        with pytest.raises(EngineGone):
            await asked
        assert time.monotonic() - began < 5
        assert connections.is_closed
        await engine.aclose()

    with socket.create_server(("127.0.0.1", 0)) as mute:
        asyncio.run(play(f"http://127.0.0.1:{mute.getsockname()[1]}"))


@pytest.mark.xdist_group("the fake SGLang server")
def test_another_model_on_the_server(given: Any, served: Any, tmp_path: Path) -> None:
    server = served("fake")
    given.build_model("qwen2").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"serves .* \(a qwen3\), and this run trains .* \(a qwen2\)"):
        make_sglang(load_config(None, {"engine": {"kind": "sglang", "urls": [server.url]}}), str(tmp_path))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "cannot be read"),
        ({"output_ids": [1], "meta_info": {"output_token_logprobs": []}}, "cannot be read|logprobs of 0"),
        (
            {"output_ids": [1], "meta_info": {"weight_version": "x", "output_token_logprobs": [[None, 1, None]]}},
            "NaN",
        ),
        (
            {
                "output_ids": [1, 2],
                "meta_info": {
                    "output_token_logprobs": [[-1.0, 1, None], [-1.0, 2, None]],
                    "weight_versions": [{"version": "x", "start": 0, "end": 1}],
                },
            },
            "1 of 2 tokens",
        ),
    ],
)
def test_answers_that_make_no_sense(answer: Any, says: str) -> None:
    with pytest.raises(EngineFault, match=says):
        read_segment(answer, lambda label: 0)


def test_without_sglang_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AGENTGYM_SGLANG_PYTHON", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no Python here has sglang.*pip install.*sglang_cpu\.py"):
        find_python()
    with pytest.raises(ConfigError, match=r"engine\.python = .*that Python has no sglang"):
        find_python(sys.executable)
    with pytest.raises(ConfigError, match="cannot be run"):
        find_python(str(tmp_path / "python"))
    whole = tmp_path / "agentgym" / "sglang-cpu-1"
    whole.mkdir(parents=True)
    (whole / ".complete").touch()
    assert find_python() == str(whole / "bin" / "python")


@pytest.mark.parametrize("told", [{"rollout.top_p": 0.9}, {"rollout.top_k": 40}])
def test_truncated_sampling_is_refused_with_a_reason(told: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ratios outside"):
        load_config(None, told)


def test_arguments_that_would_change_what_is_sampled_are_refused() -> None:
    told = load_config(None, {"engine": {"kind": "sglang", "server_args": ["--preferred-sampling-params={}"]}})
    with pytest.raises(ConfigError, match="would change what is sampled"):
        server_commands(told)


def command(*arguments: str) -> ServerCommand:
    script = Path(os.environ["PYTEST_SERVER_SCRIPT"])
    return ServerCommand(sys.executable, str(script), arguments)


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is quick to start."""
    (tmp_path / "always.py").write_text(ALWAYS)
    monkeypatch.setenv("PYTEST_SERVER_SCRIPT", str(tmp_path / "always.py"))


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"engine\.port = {port}: the port is in use"):
            Supervisor([command()], "model", tmp_path, port=port)


def test_a_server_that_does_not_start_shows_its_log_and_takes_the_others_along(tmp_path: Path) -> None:
    before = set(processes())
    with pytest.raises(EngineFault, match=r"ended while it was starting:\n.*CUDA out of luck\n.*server-1\.log"):
        Supervisor([command(), command("--fail")], "model", tmp_path)
    assert set(processes()) <= before


def test_a_server_that_died_is_started_anew_at_its_address(tmp_path: Path) -> None:
    supervisor = Supervisor([command(), command()], "model", tmp_path)
    try:
        os.kill(supervisor.servers[0].pid, signal.SIGKILL)
        while supervisor.alive(0):
            time.sleep(0.01)
        url = supervisor.urls[0]
        supervisor.restart(0)
        assert supervisor.urls[0] == url
        assert httpx.get(url, trust_env=False).status_code == 200
        assert supervisor.alive(1)
    finally:
        supervisor.close()
    assert not supervisor.alive(0)
    supervisor.restart(0)  # closed: it stays so
    assert not supervisor.alive(0)


def test_closing_ends_what_ignores_it(tmp_path: Path) -> None:
    stubborn = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\ntime.sleep(60)"
    (tmp_path / "stubborn.py").write_text(stubborn)
    server = ServerProcess(ServerCommand(sys.executable, str(tmp_path / "stubborn.py")), "m", tmp_path / "log")
    time.sleep(0.5)
    mine = [pid for pid in processes(str(tmp_path / "stubborn.py")) if _lives(pid)]
    assert len(mine) == 2
    server.close()
    time.sleep(0.1)
    assert not any(_lives(pid) for pid in mine)


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """The launcher's watch on its standard input, in a process whose parent is killed."""
    launcher = Path(sys.modules[ServerProcess.__module__].__file__ or "").with_name("launcher.py")
    child = (
        f"import importlib.util, os, sys, time\nspec = importlib.util.spec_from_file_location('l', {str(launcher)!r})\n"
        "l = importlib.util.module_from_spec(spec); spec.loader.exec_module(l); l.end_with_parent()\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys, time\np = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, "
        "start_new_session=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        running.kill()
        deadline = time.monotonic() + 10
        while _lives(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def processes(script: str = "") -> list[int]:
    """Those that run the script; the test's own where none is named."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (script or os.environ["PYTEST_SERVER_SCRIPT"]).encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.xdist_group("the fake SGLang server")
def test_an_old_release_has_right_versions_too(given: Any, tmp_path: Path) -> None:
    """0.5.17 tells one label an answer: requests are broken off at every update, and asked on."""
    server = given.serve("fake", tmp_path, "--release", "0.5.17")
    try:
        engine = given.served_engine(server, max_context=120)
        assert not engine.facts.spans
        asyncio.run(_spanning(engine, given))
    finally:
        server.close()


async def _spanning(engine: Any, given: Any) -> None:
    from agentgym.weights import WeightUpdate

    running = [asyncio.create_task(engine.generate([3 + i], SamplingParams(110))) for i in range(4)]
    await asyncio.sleep(0.15)
    await engine.update_weights(WeightUpdate(1, tensors=given.weights("qwen3", 1)))
    done = await asyncio.gather(*running)
    assert any(set(completion.versions.tolist()) == {0, 1} for completion in done)
    for i, completion in enumerate(done):
        ids, versions = completion.ids.tolist(), completion.versions
        assert len(ids) == 110
        for seed in (0, 1):
            table = given.all_logprobs("qwen3", seed, [3 + i, *ids])[:-1]
            chosen = [float(table[t, token]) for t, token in enumerate(ids)]
            for t in range(len(ids)):
                if versions[t] == seed:
                    assert abs(completion.logprobs[t] - chosen[t]) < 1e-4


@pytest.mark.slow
@pytest.mark.xdist_group("the fake SGLang server")
def test_a_server_that_loses_updates_is_named_with_the_version(given: Any, tmp_path: Path) -> None:
    from agentgym.engines.sglang.proof import digests
    from agentgym.weights import WeightProof, WeightUpdate

    server = given.serve("fake", tmp_path, "--fault", "lose-updates")
    try:
        engine = given.served_engine(server)
        weights = {k: v for k, v in given.weights("qwen3", 1).items() if k != "lm_head.weight"}
        update = WeightUpdate(6, tensors=weights, proof=WeightProof(digests(weights)))
        with pytest.raises(EngineFault, match=rf"{server.url}: does not run the weights of version 6"):
            asyncio.run(engine.update_weights(update))
    finally:
        server.close()
