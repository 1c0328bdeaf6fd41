"""Validation: sound environments pass, and each broken one is caught by the check that is meant for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import agentgym as ag
from agentgym import gym_commands
from agentgym.cli import main
from agentgym.envs.loophole import HOLES
from agentgym.envs.validate import CHECKS, leak, run_check, validate
from agentgym.envs.validate.bench import Bench, sample
from agentgym.errors import ConfigError, SandboxUnavailable, UserError
from agentgym.registry import BUILT_IN, make_env

BROKEN = Path(__file__).with_name("broken.py")
CAUGHT = {
    "GoldIsNotPaid": "gold",
    "PaysSilence": "null",
    "PaysTheQuestion": "echo",
    "TellsTheAnswer": "echo",
    "PaysContaining": "dump",
    "PaysLength": "dump",
    "NoGoldPaysContaining": "dump",
    "PaysTheWholeTalk": "tool_print",
    "PaysThought": "tool_print",
    "PaysMarksAnywhere": "tool_print",
    "PaysBeingCutShort": "null",
    "BelievesVerdicts": "inject",
    "NotANumberWins": "inject",
    "FallsOnOddAnswers": "null",
    "ShowsTheGrader": "peek",
    "CountsCalls": "deterministic",
    "DrawsFromTheWorld": "deterministic",
    "PaysByTheHour": "deterministic",
    "IgnoresTheSeed": "check_env",
    "RaisesOnUnicode": "survive",
    "SilentTool": "survive",
    "LeavesFilesOpen": "leak",
    "LeavesTasksRunning": "leak",
}


def test_a_machine_without_sandboxes_is_not_the_envs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check would tell of the machine, at length and as a failure of the env."""
    from agentgym.sandboxes.pool import Pool

    async def none_here(*_: Any, **__: Any) -> Any:
        raise SandboxUnavailable("no sandbox here")

    monkeypatch.setattr(Pool, "create", none_here)
    with pytest.raises(UserError, match="no sandbox here"):
        validate("agentgym/PythonMath-v0", tasks=4)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leak, "PATIENCE", 0.5)


def run(check: str, name: str, tasks: int = 12) -> Any:
    """One check on an env of the file."""
    bench = Bench(f"{BROKEN}:{name}", tasks=tasks)
    try:
        return run_check(bench, check)
    finally:
        bench.close()


@pytest.mark.parametrize(("name", "check"), CAUGHT.items())
def test_each_broken_env_is_caught(name: str, check: str) -> None:
    found = run(check, name)
    assert found.value is False
    assert found.why


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_env_passes_each_check(check: str) -> None:
    found = run(check, "Sound")
    assert (found.value, found.why) == (True, "")


def test_every_check_can_fail() -> None:
    assert set(CAUGHT.values()) == set(CHECKS)


QUICK = ("agentgym/Store-v0", "agentgym/GSM8KTool-v0")
"""Without sandboxes and worlds; `agentgym validate --all` plays the others, and CI runs it."""


@pytest.mark.parametrize(
    "env_id", [env_id if env_id in QUICK else pytest.param(env_id, marks=pytest.mark.slow) for env_id in BUILT_IN]
)
def test_every_registered_env_passes(env_id: str) -> None:
    report = validate(env_id, tasks=6, strict=True)
    assert report.ok, report.told()
    assert report.findings["gold"].value is True


@pytest.mark.parametrize("hole", HOLES)
def test_every_loophole_is_found(hole: str) -> None:
    report = validate("agentgym/Loophole-v0", args={"hole": hole}, tasks=6)
    want = {"grader": {"peek"}, "echo": {"echo", "peek"}, "length": {"echo", "dump", "inject"}, "none": set()}[hole]
    assert want <= set(report.failed)
    assert report.ok == (hole == "none"), report.told()


def test_loopholes_are_no_envs_to_train_on() -> None:
    assert "agentgym/Loophole-v0" not in ag.env_ids()
    assert "agentgym/Loophole-v0" in gymnasium.registry
    with pytest.raises(ConfigError, match="choose one of grader, echo, length, none"):
        make_env("agentgym/Loophole-v0", args={"hole": "x"})


@pytest.mark.parametrize("name", ["NothingIsRight", "AlwaysPaysALittle", "FewAnswers"])
def test_what_an_env_says_of_itself_is_heard(name: str) -> None:
    report = validate(f"{BROKEN}:{name}", tasks=12)
    assert report.ok, report.told()
    if name == "NothingIsRight":
        null = report.to_json()["details"]["null"]
        assert null["exempt"] == {"even": "to say nothing is right there"}


def test_the_exemption_of_one_kind_is_not_that_of_another() -> None:
    report = run("null", "NothingIsRight")
    assert report.value is True
    assert report.figures["episodes"] > 0


def test_an_env_without_gold_is_no_failure_unless_strict() -> None:
    report = validate(f"{BROKEN}:NoGold", tasks=6)
    assert report.findings["gold"].value == "na"
    assert report.ok
    assert any("no gold player" in text for text in report.warnings)
    assert not validate(f"{BROKEN}:NoGold", tasks=6, strict=True).ok


def test_an_env_that_cannot_begin_fails_everywhere() -> None:
    report = validate(f"{BROKEN}:CannotBegin", tasks=4)
    assert set(report.failed) == set(CHECKS)
    assert "LookupError: the world is missing" in report.told()


def test_few_tasks_and_no_datasheet_are_remarks() -> None:
    env = Path(__file__).parents[3] / "examples" / "01_custom_tool_env.py"
    report = validate(f"{env}:bookings", tasks=6)
    assert report.ok
    assert "only 12 tasks" in report.told()
    assert "the reward function has no docstring" in report.told()


def test_cases_cover_every_kind_of_each_split() -> None:
    cases = sample(make_env("agentgym/Store-v0"), 2, 0)
    assert len(cases) == 6
    assert {(case.split, case.task.kind) for case in cases} == {
        (split, kind) for split in ("train", "test") for kind in ("calc", "lookup", "two_lookups")
    }
    many = sample(make_env("agentgym/Store-v0"), 60, 0)
    assert len({case.task.id for case in many}) == 60


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["validate", *arguments])
    return int(end.value.code or 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, broken, out = f"{BROKEN}:Sound", f"{BROKEN}:PaysSilence", tmp_path / "out.json"
    assert command(sound, "--tasks", "4", "--json", str(out)) == 0
    row = json.loads(out.read_text())[sound]
    keys = ("gold", "null", "echo", "dump", "tool_print", "inject", "deterministic", "check_env", "survive", "leak")
    assert {key: row[key] for key in keys} == dict.fromkeys(keys, True)
    assert row["details"]["gold"]["episodes"] == 6, "three of each kind"
    capsys.readouterr()
    assert command(sound, broken, "--tasks", "4", "--json", "-") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found[sound]["ok"], found[broken]["ok"], found[broken]["null"]) == (True, False, False)
    assert command("agentgym/Loophole-v0", "--arg", "hole=none", "--tasks", "2") == 0
    assert command("agentgym/Loophole-v0", "--arg", "hole=length", "--tasks", "2") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --all"),
        (("agentgym/Store-v0", "--all"), "give --all"),
        (("agentgym/Stor-v0",), "did you mean 'agentgym/Store-v0'"),
        (("agentgym/Store-v0", "--arg", "busy"), "expected NAME=VALUE"),
        (("agentgym/Store-v0", "--share", "3"), "go with --all"),
    ],
)
def test_mistakes_are_told(arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments) == 2
    assert says in capsys.readouterr().err


def test_of_adapted_envs_a_tenth_is_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = [f"agentgym/reasoning_gym.g{i:03}-v0" for i in range(105)]
    monkeypatch.setattr(gym_commands, "env_ids", lambda: ["agentgym/Store-v0", "mine/My.Env-v0"])
    monkeypatch.setattr(gym_commands, "adapter_ids", lambda: adapted)
    shares = [gym_commands._chosen([], True, False, share) for share in range(10)]
    assert all({"agentgym/Store-v0", "mine/My.Env-v0"} <= set(share) for share in shares)
    assert sorted(env_id for share in shares for env_id in share if env_id in adapted) == adapted
    assert set(gym_commands._chosen([], True, False, None)) in [set(share) for share in shares]
    assert set(gym_commands._chosen([], True, True, None)) >= set(adapted)
