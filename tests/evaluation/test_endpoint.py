"""Evaluating what is behind an OpenAI-compatible endpoint: a real server on loopback, good, slow and broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.cli import main
from agentgym.config import load_config
from agentgym.engines import endpoint
from agentgym.engines.endpoint import check_url, retry_after
from agentgym.errors import EvaluationError, ModelError
from agentgym.rollout.record import read_trajectories
from agentgym.trainers.api import resume_evaluation

Serve = Callable[..., Any]
SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def play(url: str, envs: Path, out: Path | None = None, env: str = "parts.py:parts", **more: Any) -> dict[str, Any]:
    settings = {"env.id": f"{envs}/{env}", "run.live": "off", "endpoint.retries": 2, **more.pop("settings", {})}
    given = {"tasks": 4, "samples": 2, **more}
    return ag.evaluate(url, config=load_config(None, settings), out=str(out) if out else None, **given)


def test_an_endpoint_that_calls_tools(serve: Serve, replies: Any, envs: Path, tmp_path: Path) -> None:
    server = serve(replies.clerk)
    report = play(server.url, envs, tmp_path / "out")
    assert (report["success"], report["n"], report["unscored"]) == (1.0, 8, 0)
    assert (report["model"], report["endpoint_model"]) == (server.url, "stock-clerk")
    assert (report["tokens"], report["tokens_per_success"], report["turns"], report["tool_calls"]) == (10, 10, 2, 1)
    assert set(server.keys) == {f"Bearer {SECRET}"}
    body = server.bodies[0]
    assert body["model"] == "stock-clerk"
    assert body["tools"][0]["function"]["name"] == "count"
    assert isinstance(body["seed"], int)
    assert len({body["seed"] for body in server.bodies}) == 16, "each request of each episode has its own"
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or SECRET not in path.read_text()
    (file,) = (tmp_path / "out" / "trajectories").iterdir()
    played = list(read_trajectories(file))
    assert [m.role for m in played[0].messages] == ["user", "assistant", "tool", "assistant"]
    assert played[0].sampled_tokens == 10


def test_calls_that_the_server_left_in_the_text(serve: Serve, replies: Any, envs: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        last = body["messages"][-1]
        if last["role"] == "tool":
            assert body["messages"][-2]["tool_calls"][0]["id"] == last["tool_call_id"]
            return replies.chat({"content": last["content"]}, tokens=None)
        call = json.dumps({"name": "count", "arguments": {"part": last["content"].split()[2]}})
        return replies.chat({"content": f"<think>hm</think><tool_call>{call}</tool_call>"}, tokens=None)

    report = play(serve(reply).url, envs)
    assert report["success"] == 1.0
    assert (report["tokens"], report["tokens_per_success"]) == (None, None), "the server did not count them"


def test_a_server_without_tools(serve: Serve, replies: Any, envs: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        if "tools" in body:
            return 400, {}, b'{"error": {"message": "tool choice needs a parser"}}'
        assert [m["role"] for m in body["messages"][:2]] == ["system", "user"]
        assert "count" in body["messages"][0]["content"]
        last = body["messages"][-1]["content"]
        if "<tool_response>" in last:
            return replies.chat({"content": last.split("\n")[1]})
        call = json.dumps({"name": "count", "arguments": {"part": last.split()[2]}})
        return replies.chat({"content": f"<tool_call>{call}</tool_call>"})

    server = serve(reply)
    assert play(server.url, envs, settings={"endpoint.tools": "text"})["success"] == 1.0
    native = play(server.url, envs)
    assert native["unscored"] == 8
    assert "--endpoint.tools=text" in native["unscored_cause"]


def test_what_passes_is_tried_again(serve: Serve, replies: Any, envs: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        failures = [(429, {"retry-after": "0.02"}, b"slow down"), (503, {}, b"busy"), (200, {}, b"<html>")]
        seen = sum(other["seed"] == body["seed"] for other in server.bodies) - 1
        return failures[(number + seen) % 3] if seen < 2 else replies.clerk(body)

    server = serve(reply)
    report = play(server.url, envs)
    assert (report["success"], report["unscored"]) == (1.0, 0)
    assert len(server.bodies) == 3 * 16


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (
            (500, {}, b'{"error": {"message": "cuda out of it"}}'),
            "HTTP 500 Internal Server Error: cuda out of",
        ),
        ((429, {"retry-after": "0"}, b""), "HTTP 429 Too Many Requests"),
        ((200, {}, b"not json"), "no chat completion"),
        ((200, {}, b'{"choices": []}'), "no chat completion"),
        ((200, {}, b'{"choices": [{"message": {"content": 7}}]}'), "no chat completion"),
        ((200, {}, b'{"choices": [{"message": {"tool_calls": [1]}}]}'), "no chat completion"),
        ((200, {}, b"[" * 100_000), "no chat completion"),
        ((401, {}, f'{{"error": {{"message": "bad key {SECRET}"}}}}'.encode()), "HTTP 401 Unauthorized: bad key ***"),
        ((404, {}, b'{"error": "no such model"}'), "HTTP 404 Not Found: no such model"),
    ],
)
def test_what_does_not_pass_is_unscored_and_ends_it(
    serve: Serve, envs: Path, tmp_path: Path, reply: Any, says: str, capsys: Any
) -> None:
    server = serve(lambda body, number: reply)
    line = ["eval", server.url, "--env", f"{envs}/parts.py:parts", "--samples=2", f"--out={tmp_path / 'out'}"]
    with pytest.raises(SystemExit) as end:
        main([*line, "--endpoint.retries=2", "--run.live=off"])
    said = capsys.readouterr()
    assert end.value.code == 2
    assert says in said.err
    assert "none of 8 episodes" in said.err
    assert "Traceback" not in said.err
    assert SECRET not in said.err + said.out
    tries = 3 if reply[0] in (200, 429, 500) else 1
    assert len(server.bodies) == 8 * tries, "tried so often and no more"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["success"], report["unscored"], report["faults"]) == (None, 8, {"engine_error": 8})


def test_an_endpoint_that_never_answers(serve: Serve, envs: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        server.released.wait(30)
        return 200, {}, b"{}"

    server = serve(reply)
    report = play(server.url, envs, tasks=1, settings={"endpoint.timeout": 0.1, "endpoint.retries": 1})
    assert report["unscored"] == 2
    assert "no answer within 0.1 s (2 attempts)" in report["unscored_cause"]
    late = play(server.url, envs, tasks=1, settings={"rollout.max_seconds": 0.2})
    assert (late["unscored"], late["success"]) == (2, None), "the episode's own limit: still no failure of the model"
    assert "did not answer in time" in late["unscored_cause"]


def test_unscored_are_apart_and_can_be_played_again(serve: Serve, replies: Any, envs: Path, tmp_path: Path) -> None:
    broken = True

    def reply(body: dict[str, Any], number: int) -> Any:
        if broken and "bolts" in body["messages"][0]["content"]:
            return 500, {}, b""
        return replies.clerk(body)

    server = serve(reply)
    report = play(server.url, envs, tmp_path / "out")
    assert (report["success"], report["tasks"], report["unscored"]) == (1.0, 3, 2)
    asked, broken = len(server.bodies), False
    assert resume_evaluation(str(tmp_path / "out"))["unscored"] == 2
    assert len(server.bodies) == asked, "unscored episodes are results, until asked otherwise"
    again = resume_evaluation(str(tmp_path / "out"), retry_unscored=True)
    assert (again["success"], again["tasks"], again["unscored"]) == (1.0, 4, 0)


def test_an_endpoint_that_is_down_is_not_asked_for_ever(serve: Serve, envs: Path, tmp_path: Path) -> None:
    server = serve(lambda body, number: (500, {}, b""))
    given = {"endpoint.retries": 0, "endpoint.concurrency": 2}
    with pytest.raises(EvaluationError, match=r"4 episodes in a row failed.*--resume .*out --retry-unscored"):
        play(server.url, envs, tmp_path / "out", samples=8, settings=given)
    assert len(server.bodies) < 10


def test_a_conversation_too_long_for_the_model_is_its_own_failure(serve: Serve, replies: Any, envs: Path) -> None:
    server = serve(lambda *_: (400, {}, b'{"error": {"message": "This model\'s maximum context length is 64"}}'))
    report = play(server.url, envs)
    assert (report["success"], report["unscored"], report["stop_reasons"]) == (0.0, 0, {"context_overflow": 8})
    cut = play(serve(lambda *_: replies.chat({"content": "and so on"}, "length", 512)).url, envs)
    assert cut["stop_reasons"] == {"max_tokens": 8}


def test_odd_but_valid_answers(serve: Serve, replies: Any, envs: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        turn = sum(m["role"] == "assistant" for m in body["messages"])
        if turn == 0:
            function = {"name": "count", "arguments": '{"part": '}
            return replies.chat({"content": None, "tool_calls": [{"id": "c1", "function": function}]})
        if turn == 1:
            assert "not valid JSON" in body["messages"][-1]["content"], "the model's mistake is answered"
            return replies.chat({"content": "half \ud800 pair <tool_call>{</tool_call>"})
        return replies.chat({"content": "40"})

    report = play(serve(reply).url, envs)
    assert (report["unscored"], report["success"]) == (0, 0.25)
    assert report["tool_failures"] == 1.0


def test_newer_models_name_their_limit_otherwise(serve: Serve, replies: Any, envs: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        if "max_tokens" in body:
            return 400, {}, b'{"error": {"message": "max_tokens is not supported: use max_completion_tokens"}}'
        return replies.clerk(body)

    assert play(serve(reply).url, envs)["success"] == 1.0


def test_which_model(serve: Serve, replies: Any, envs: Path) -> None:
    several = serve(replies.clerk, models=["a", "b"])
    with pytest.raises(ModelError, match="--endpoint-model NAME; it has: a, b"):
        play(several.url, envs)
    assert play(several.url, envs, settings={"endpoint.model": "b"})["endpoint_model"] == "b"
    with pytest.raises(ModelError, match="cannot be reached"):
        play("http://127.0.0.1:1/v1", envs)


@pytest.mark.parametrize("url", ["http://", "http://me:pw@host/v1", "https://host/v1?key=pw"])
def test_urls_that_are_refused_are_not_repeated(url: str) -> None:
    with pytest.raises(ModelError) as wrong:
        check_url(url)
    assert "pw" not in str(wrong.value)


def test_retry_after() -> None:
    assert retry_after("3") == 3
    assert retry_after("-1") == 0
    soon = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30)))
    assert soon is not None
    assert 25 < soon <= 30
    assert retry_after("soon") is None
    assert retry_after("") is None
