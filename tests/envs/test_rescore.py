"""Rewards of stored episodes, scored anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentgym as ag
from agentgym.cli import main
from agentgym.envs.rescore import Tally, rescore
from agentgym.envs.script import call, replay, say
from agentgym.protocols import Policy
from agentgym.registry import make_env
from agentgym.rollout.record import from_row, to_row
from agentgym.tools.driving import drive
from agentgym.types import Completion, Message, Outcome, StopReason, Trajectory, Turn

NOTHING = np.zeros(0, np.int32)


def stored(
    env: Any, env_id: str, policy: Policy | str, seed: int, stop: StopReason | None = None, **options: Any
) -> Any:
    """An episode as a row; with `stop` its last message is cut off, as the rollout's limits do."""
    start = drive(env.areset(seed=seed, options=options))
    player = env.expert(start.task, seed, policy) if isinstance(policy, str) else policy
    messages, turns, step = list(start.messages), [], None
    while step is None or not step.done:
        message = player(messages)
        cut = stop is not None and not message.tool_calls
        step = drive(env.finish(stop)) if cut else drive(env.astep(message))
        messages += [message, *step.messages]
        completion = Completion(NOTHING, np.zeros(0, np.float32), NOTHING, count=5)
        turns.append(
            Turn(
                len(turns), len(turns) - 1 if turns else None, NOTHING, completion, message, step.messages, step.reward
            )
        )
    trajectory = Trajectory(
        id=f"{start.task.id}/{seed}",
        task_id=start.task.id,
        env_id=env_id,
        turns=tuple(turns),
        prompt=start.messages,
        reward=sum(turn.reward for turn in turns),
        components=step.components,
        outcome=step.outcome,
        stop_reason=step.stop_reason or StopReason.completed,
        seed=seed,
        tags=step.tags,
        metrics={**step.metrics, "turns": len(turns), "rewrites": 0},
    )
    return json.loads(json.dumps(to_row(trajectory)))


def again(
    rows: Any, make: Callable[[str], Any] = make_env, how: Any = "auto"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    tally = Tally()
    return list(rescore(rows, make, tally, how=how)), tally.to_json()


@pytest.mark.parametrize(("env_id", "way"), [("agentgym/GSM8KTool-v0", "messages"), ("agentgym/Store-v0", "replay")])
def test_todays_reward_is_the_stored_one(env_id: str, way: str) -> None:
    env = make_env(env_id)
    rows = [stored(env, env_id, style, seed, index=seed) for style in ("gold", "demo") for seed in range(20)]
    new, figures = again(rows)
    assert (figures["rescored"], figures["changed"], figures["by"]) == (40, 0, {way: 40})
    assert figures["outcome_changed"] == 0
    for row, old in zip(new, rows, strict=True):
        assert row["rescored"]["by"] == way
        assert {**row, "rescored": None, "components": None} == {**old, "rescored": None, "components": None}
        assert sum(turn["reward"] for turn in row["turns"]) == row["reward"] == from_row(row).reward


@pytest.mark.parametrize("env_id", ["agentgym/GSM8KTool-v0", "agentgym/Store-v0"])
def test_a_message_that_was_cut_off_is_no_answer(env_id: str) -> None:
    env = make_env(env_id)
    rows = [stored(env, env_id, "gold", seed, StopReason.max_tokens, index=seed) for seed in range(5)]
    assert {row["reward"] for row in rows} == {0.0}
    _, figures = again(rows)
    assert (figures["rescored"], figures["changed"]) == (5, 0)


TASKS = [ag.Task(str(i), f"Say {i}", str(i)) for i in range(8)]


def exact(task: ag.Task, answer: str, episode: ag.Episode) -> float:
    return float(answer == task.answer)


def half(task: ag.Task, answer: str, episode: ag.Episode) -> Mapping[str, float]:
    return {"reward": 0.5 * (answer == task.answer), "turns": float(episode.turns)}


def small(reward: Any = exact, **more: Any) -> ag.ToolEnv:
    return ag.ToolEnv(TASKS, reward=reward, holdout=0, **more)


def said(env: ag.ToolEnv, text: str, index: int = 3, seed: int = 0) -> Any:
    return stored(env, "small", replay([say(text)]), seed, index=index)


def test_another_reward_is_counted() -> None:
    rows = [said(small(), "3"), said(small(), "4"), said(small(), "3", seed=1)]
    new, figures = again(rows, lambda _: small(half, weights={"turns": 0.0}))
    assert [row["reward"] for row in new] == [0.5, 0.0, 0.5]
    assert new[0]["components"] == {"reward": 0.5, "turns": 1.0}
    assert new[0]["rescored"]["was"]["reward"] == 1.0
    assert (figures["changed"], figures["down"], figures["outcome_changed"]) == (2, 2, 2)
    assert (figures["mean_before"], figures["mean_after"]) == pytest.approx((2 / 3, 1 / 3))


def sneaky(task: ag.Task, answer: str, episode: ag.Episode) -> float:
    try:
        return float(episode.state["seen"] == answer)
    except Exception:
        return 0.0


@pytest.mark.parametrize(
    "look",
    [
        lambda e: e.state.get("x"),
        lambda e: "x" in e.state,
        lambda e: dict(e.state),
        lambda e: {**e.state},
        lambda e: len(e.state),
        lambda e: e.rng.random(),
        lambda e: e.sandbox(),
        lambda e: bool(e.state),
        lambda e: list(e.state),
    ],
)
def test_a_reward_that_looks_at_the_state_is_never_answered_by_guess(look: Any) -> None:
    def reward(task: ag.Task, answer: str, episode: ag.Episode) -> Any:
        seen = look(episode)
        return _wait(seen) if hasattr(seen, "__await__") else 1.0

    async def _wait(seen: Any) -> float:
        await seen
        return 1.0

    row = said(small(), "3")
    _, figures = again([row], lambda _: small(reward), how="messages")
    assert figures["reasons"] == {"the messages alone do not tell its reward": 1}


class Hidden(ag.ToolEnv):
    def setup(self, episode: ag.Episode) -> None:
        episode.state["seen"] = str(int(episode.rng.integers(3)))


def test_a_reward_that_swallows_exceptions_is_replayed_all_the_same() -> None:
    env = Hidden(TASKS, reward=sneaky, holdout=0)
    rows = [said(env, "1", seed=seed) for seed in range(12)]
    assert {row["reward"] for row in rows} == {0.0, 1.0}
    _, figures = again(rows, lambda _: Hidden(TASKS, reward=sneaky, holdout=0))
    assert (figures["by"], figures["changed"]) == ({"replay": 12}, 0)


def test_what_cannot_be_rescored_is_told_and_unscored() -> None:
    def failing(task: ag.Task, answer: str, episode: ag.Episode) -> float:
        raise LookupError("no grader")

    row = said(small(), "3")
    gone = {**row, "task_id": "nobody"}
    fault = {**row, "outcome": "unscored", "reward": None, "stop_reason": "fault", "error": "engine_error: it died"}
    verifier = {**fault, "error": "verifier_error: LookupError"}
    new, figures = again([row, gone, fault, verifier], lambda _: small())
    assert [item["reward"] for item in new] == [1.0, None, None, 1.0]
    assert figures["newly_scored"] == 1
    assert figures["reasons"] == {
        "the env has no task of that id": 1,
        "it was never played to its end (engine_error)": 1,
    }
    assert new[1]["error"] == "not rescored: the env has no task of that id"
    assert from_row(new[1]).outcome is Outcome.unscored
    new, figures = again([row], lambda _: small(failing))
    assert new[0]["reward"] is None
    assert "LookupError: no grader" in next(iter(figures["reasons"]))


def test_an_env_that_answers_otherwise_does_not_rescore() -> None:
    env = make_env("agentgym/Store-v0")
    row = stored(env, "agentgym/Store-v0", "gold", 1, index=1)
    told = next(message for message in row["messages"] if message["role"] == "tool")
    told["content"] = "12345"
    _, figures = again([row])
    assert figures["reasons"] == {"played again, the env answers otherwise": 1}


def test_which_calls_failed_is_known_or_replayed() -> None:
    def counts(task: ag.Task, answer: str, episode: ag.Episode) -> float:
        return float(sum(result.error for result in episode.calls))

    for calls, way in (["1+1"], "messages"), (["1+"], "messages"), (["1+1", "1+"], "replay"):
        env = small(counts, tools=["calculator"])
        player = replay([*(call("calculator", f"c{i}", expression=e) for i, e in enumerate(calls)), say("3")])
        row = stored(env, "small", player, 0, index=3)
        _, figures = again([row], lambda _: small(counts, tools=["calculator"]))
        assert (figures["by"], figures["changed"]) == ({way: 1}, 0), calls


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = make_env("agentgym/GSM8KTool-v0")
    rows = [stored(env, "agentgym/GSM8KTool-v0", style, seed) for style in ("gold", "demo") for seed in range(5)]
    file = tmp_path / "run" / "trajectories" / "step-00001.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text("def score(task, answer, episode):\n    return 0.25\n")

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as end:
            main(["rescore", *arguments])
        return int(end.value.code or 0)

    assert run(str(tmp_path / "run")) == 0
    assert "10 of 10 episodes rescored: 10 by messages\n0 rewards changed" in capsys.readouterr().out
    out, figures = tmp_path / "again.jsonl", tmp_path / "figures.json"
    given = ("--reward", f"{tmp_path / 'mine.py'}:score", "--out", str(out), "--json", str(figures))
    assert run(str(file), *given) == 0
    assert [json.loads(line)["reward"] for line in out.read_text().splitlines()] == [0.25] * 10
    assert json.loads(figures.read_text())["changed"] == 10
    assert run(str(file), "--out", str(file)) == 2
    assert "give another file" in capsys.readouterr().err
    assert run(str(file), "--env", "agentgym/Store-v0", "--json", "-") == 1, "nothing could be rescored"
    assert json.loads(capsys.readouterr().out)["not_rescored"] == 10
    file.write_text('{"id": "x"}\n')
    assert run(str(file)) == 2
    assert f"{file}:1: not a trajectory: " in capsys.readouterr().err
    assert run(str(tmp_path / "nothing")) == 2


def test_a_runs_own_settings_are_used(tmp_path: Path) -> None:
    """A run's config says how its env was made; without it the env would answer otherwise."""
    from agentgym.config import Config
    from agentgym.evals.stored import config_beside, env_maker
    from agentgym.run_folder import RunFolder

    config = Config.model_validate({"env": {"id": "agentgym/Store-v0", "args": {"busy": 0.9}}})
    folder = RunFolder.create(tmp_path / "run", config)
    env = make_env("agentgym/Store-v0", args={"busy": 0.9})
    rows = [stored(env, "agentgym/Store-v0", "gold", seed, index=seed) for seed in range(3)]
    file = folder.path / "trajectories" / "step-00001.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, figures = again(rows, env_maker(config_beside(file)))
    assert (figures["rescored"], figures["changed"]) == (3, 0)
    _, figures = again(rows)
    assert figures["not_rescored"] > 0, "made with its defaults the store is less busy"


def test_messages_with_calls_are_no_answer() -> None:
    env = small(tools=["calculator"], max_turns=1)
    row = stored(
        env,
        "small",
        lambda _: Message("assistant", "3", tool_calls=call("calculator", expression="1").tool_calls),
        0,
        index=3,
    )
    assert row["reward"] == 0.0
    _, figures = again([row], lambda _: small(tools=["calculator"], max_turns=1))
    assert (figures["by"], figures["changed"]) == ({"messages": 1}, 0)
