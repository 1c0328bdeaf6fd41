"""`agentgym sandbox`: what it prints, writes and exits with."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from agentgym.cli import main
from agentgym.sandbox_commands import parse_numbers

LEAKY = f"{Path(__file__).parent / 'sandboxes' / 'leaky.py'}:LeakyBackend"


def agentgym(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["sandbox", *arguments])
    return int(ended.value.code or 0)


def test_numbers() -> None:
    assert parse_numbers("") == set()
    assert parse_numbers("1, 5-7,9") == {1, 5, 6, 7, 9}


def test_doctor_says_what_works_and_why_others_do_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert agentgym("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backends"]["e2b"] == {"works": False, "why": "E2B_API_KEY is not set"}
    assert found["backends"]["docker"]["works"] is False
    assert "none.sock" in found["machine"]["docker_engine"]
    local = found["backends"]["local"]
    assert local["isolation"] == "namespaces" if local["works"] else local["why"]
    assert agentgym("doctor") == 0
    assert "user namespaces" in capsys.readouterr().out


def test_doctor_tells_the_same_remedies_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentgym.sandboxes import doctor

    async def nothing_works(name: str, options: Any = None) -> dict[str, Any]:
        return {"works": False, "why": f"{name} cannot\nWhat helps:\n  - another machine"}

    monkeypatch.setattr(doctor, "attempt", nothing_works)
    monkeypatch.setattr(doctor, "_UNSHARE", f"import os; os._exit({errno.ENOSPC})")
    assert agentgym("doctor") == 0
    out = capsys.readouterr().out
    assert out.count("another machine") == 1
    assert "landlock cannot" in out
    assert "user.max_user_namespaces" in out
    assert "No space left" not in out, "that is of namespaces, and no word about a disk"


def test_probe_exits_with_1_where_something_escapes(tmp_path: Path) -> None:
    out, table = tmp_path / "rows.json", tmp_path / "page.md"
    table.write_text("above\n<!-- probes: begin -->\nold\n<!-- probes: end -->\nbelow\n")
    assert agentgym("probe", "--backend", LEAKY, "--only", "1,5", "--json", str(out), "--markdown", str(table)) == 1
    rows = json.loads(out.read_text())["rows"]
    assert [(row["probe"], row["status"], row["control"]) for row in rows] == [
        (1, "escaped", "ok"),
        (5, "escaped", "ok"),
    ]
    assert {"probe", "name", "status", "control", "detail", "reason"} == set(rows[0])
    page = table.read_text()
    assert page.startswith("above\n<!-- probes: begin -->\n| # |")
    assert page.endswith("<!-- probes: end -->\nbelow\n")
    assert "old" not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "1,x"), "'x' is no number or range"),
        (("--only", "99"), "there is no probe 99"),
        (("--backend", "fake"), "nothing to probe"),
        (("--backend", "loca"), "did you mean 'local'"),
        (("--markdown", "/no/such/file"), "no such file"),
    ],
)
def test_what_is_said_to_mistakes(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert agentgym("probe", *arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_bench_measures(tmp_path: Path) -> None:
    import asyncio

    from agentgym.sandboxes.doctor import attempt

    if not asyncio.run(attempt("local"))["works"]:
        pytest.skip("no local sandbox on this machine")
    out = tmp_path / "bench.json"
    assert agentgym("bench", "--sessions", "3", "--calls", "50", "--ends", "1", "--json", str(out)) == 0
    figures = json.loads(out.read_text())
    assert len(figures["end"]) == 4
    assert all(times["p50"] > 0 for times in figures["end"].values())
    assert figures["exec"]["per_s"] > 0
    assert figures["session"]["create_ms"]["most"] > 0
