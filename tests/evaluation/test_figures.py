"""Figures out of rows, by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from agentgym.errors import ConfigError
from agentgym.evals.figures import env_figures, macro_figures
from agentgym.evals.plan import choose_ks, read_suite
from agentgym.evals.report import report_tables
from agentgym.evals.rows import EvalRow, row_from_json
from agentgym.evals.tables import Table
from agentgym.evals.thresholds import missed, read_minimums
from agentgym.types import Outcome


def row(task: int, sample: int, won: bool | None, **more: Any) -> EvalRow:
    outcome = Outcome.unscored if won is None else Outcome.correct if won else Outcome.incorrect
    stop = "fault" if won is None else "completed"
    reward = None if won is None else float(won)
    made = EvalRow("E", task, sample, f"t{task}", 1, outcome, reward, stop, 2, 10, 4, 1, 0.5)
    return replace(made, error="engine_error: down" if won is None else None, **more)


ROWS = [row(0, 0, True), row(0, 1, True), row(1, 0, False), row(1, 1, True), row(2, 0, False), row(2, 1, None)]


def test_the_figures_of_an_environment() -> None:
    found = env_figures(ROWS, (1, 2))
    assert (found["n"], found["tasks"], found["unscored"], found["scored"]) == (6, 3, 1, 5 / 6)
    assert found["sampled"] == 3 / 5, "over episodes"
    assert found["success"] == pytest.approx((1 + 0.5 + 0) / 3), "over tasks"
    assert found["pass@1"] == pytest.approx(0.5)
    assert (found["pass@2"], found["pass^2"]) == (1.0, 0.5), "task 2 has one scored episode: it says nothing of two"
    assert found["pass_tasks"] == {"1": 3, "2": 2}
    assert found["tokens_per_success"] == 20
    assert (found["turns"], found["tool_calls"], found["tool_failures"], found["seconds"]) == (2, 4, 0.25, 0.5)
    assert found["stop_reasons"] == {"completed": 5}
    assert found["faults"] == {"engine_error": 1}


def test_figures_do_not_depend_on_the_order_of_episodes() -> None:
    rows = [row(i, s, (i * 7 + s) % 3 == 0, seconds=0.1 * i + 0.01 * s) for i in range(9) for s in range(4)]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert env_figures(shuffled, (1, 4)) == env_figures(rows, (1, 4))


def test_tokens_that_nobody_counted_make_no_figure() -> None:
    found = env_figures([row(0, 0, True), row(0, 1, True, tokens=None)], (1,))
    assert (found["tokens"], found["tokens_per_success"]) == (None, None)


def test_the_mean_of_environments_is_of_all_or_of_none() -> None:
    good, none = env_figures(ROWS, (1, 2)), env_figures([row(0, 0, None)], (1,))
    mean = macro_figures({"a": good, "b": env_figures([row(0, 0, True)], (1,))})
    assert mean["success"] == pytest.approx(0.75)
    assert mean["success_ci"][0] < 0.75 < mean["success_ci"][1]
    assert "pass@2" not in mean, "only one of them has it"
    assert macro_figures({"a": good, "b": none})["success"] is None
    assert none["success"] is None
    assert none["faults"] == {"engine_error": 1}


def test_rows_come_back_as_they_were() -> None:
    import json

    for one in ROWS:
        assert row_from_json(json.loads(json.dumps(one.to_json()))) == one
    with pytest.raises(ValueError, match="not an episode"):
        row_from_json({"tags": [], "outcome": "correct"})
    with pytest.raises(ValueError, match="fine"):
        row_from_json({**ROWS[0].to_json(), "outcome": "fine"})


def test_minimums() -> None:
    bounds = read_minimums(["success=0.9", "pass@4=0.5"])
    assert bounds == {"success": 0.9, "pass@4": 0.5}
    below = missed({"success": 0.9, "pass@4": 0.4}, bounds)
    assert [str(one) for one in below] == ["pass@4 0.4, at least 0.5 was asked for"]
    assert "nothing was scored" in str(missed({"success": None}, {"success": 0.0}, "E")[0])
    for wrong, says in (("succes=1", "no figure 'succes'"), ("success", "METRIC=NUMBER"), ("success=90", "0 and 1")):
        with pytest.raises(ConfigError, match=says):
            read_minimums([wrong])


def test_ks() -> None:
    assert choose_ks((), 6, {}) == (1, 2, 4, 6)
    assert choose_ks((3,), 6, {"pass^5": 0.1}) == (3, 5)
    with pytest.raises(ConfigError, match="pass@8 cannot be told from 4 samples a task; play more: --samples 8"):
        choose_ks((8,), 4, {})
    with pytest.raises(ConfigError, match="k starts at 1"):
        choose_ks((0,), 4, {})


def test_suites(tmp_path: Any) -> None:
    path = tmp_path / "suite.toml"
    path.write_text('samples = 2\n[[env]]\nid = "A-v0"\nargs = {busy = 0.5}\nmin = {success = 0.5}\n')
    suite = read_suite(str(path))
    (env,) = suite.env
    assert (suite.samples, env.id, env.args, env.min) == (2, "A-v0", {"busy": 0.5}, {"success": 0.5})
    for text, says in (
        ("", "env: field required"),
        ("[[env]]\nid = 'A'\ntaks = 3\n", "env.0.taks"),
        ("[[env]]\nid = 'A'\ntasks = 0\n", "env.0.tasks"),
        ("[[env]]\nid = 'A'\nmin = {speed = 1}\n", "no figure 'speed'"),
        ("[[env", "not valid TOML"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_suite(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_suite(str(tmp_path / "none.toml"))


def test_tables() -> None:
    table = Table("t", ["", "a|b"], [["x", "1"], ["y", "2"]])
    assert table.markdown() == "## t\n\n|  | a\\|b |\n|---|---|\n| x | 1 |\n| y | 2 |\n"
    assert table.turned() == Table("t", ("", "x", "y"), [("a|b", "1", "2")])
    (main, *_) = report_tables({"envs": {f"e{i}": {"success": 0.5, "n": 1} for i in range(5)}, "success": 0.5})
    assert len(main.rows) == 6, "many environments are rows"
