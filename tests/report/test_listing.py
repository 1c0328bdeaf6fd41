"""The list of environments: ours made, others named, and which of them has been seen to be learned."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from rich.console import Console

from agentgym.registry import adapter_ids, env_ids
from agentgym.report import listing

ROOT = Path(__file__).parents[2]


def test_curves_are_those_of_the_studies() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "curves.py"))["curves"]()
    assert json.loads((ROOT / "agentgym" / "recipes" / "curves.json").read_text()) == made
    assert made["agentgym/Store-v0"]["recipe"] == "store"
    assert all(row["after"] - row["before"] >= 0.3 and row["seeds"] >= 2 for row in made.values())


def test_an_env_without_a_curve_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    found = [listing._describe("agentgym/Store-v0"), listing._describe("agentgym/GSM8KTool-v0")]
    listing.print_envs(Console(width=120), found)
    store, gsm = capsys.readouterr().out.split("agentgym/GSM8KTool-v0")
    assert "held out (3 seeds): agentgym train store" in store
    assert "never trained" in gsm
    assert "never trained" not in store


def test_every_id_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(listing, "_describe", lambda env_id: {"id": env_id, "error": "not made here"})
    monkeypatch.setattr(listing, "adapter_ids", lambda: ["agentgym/reasoning_gym.a-v0", "agentgym/reasoning_gym.b-v0"])
    found = listing.describe_all()
    assert [env["id"] for env in found][: len(env_ids())] == env_ids()
    assert [env["gym"] for env in found[len(env_ids()) :]] == ["reasoning_gym"] * 2
    listing.print_envs(Console(width=120), found)
    assert "agentgym/reasoning_gym.NAME-v0  2 generators" in capsys.readouterr().out
    assert not set(adapter_ids()) & set(env_ids())
