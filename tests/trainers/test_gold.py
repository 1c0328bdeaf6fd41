"""A run tells where its reward is not what is meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import agentgym as ag
from agentgym.report.plain import PlainReporter
from agentgym.report.summary import headline
from agentgym.trainers.gold import GoldWatch
from agentgym.types import Group
from tests.trainers.tiny_runs import quick_runs

SMALL: dict[str, Any] = {
    "run": {"live": "off", "processes": 1},
    "model": {"layers": 1, "width": 32, "heads": 2},
    "sft": {"steps": 0},
    "trainer": {"steps": 3},
    "rollout": {"groups": 2, "group_size": 4, "max_tokens": 64},
    "eval": {"tasks": 0},
}


class Listener(PlainReporter):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_runs():
        yield


def paid(make_group: Any, rewards: list[float | None], gold: list[float | None], env: str = "env") -> Group:
    group: Group = make_group(rewards)
    parts = [{} if value is None else {"gold": value} for value in gold]
    found = [replace(t, components=p, env_id=env) for t, p in zip(group.trajectories, parts, strict=True)]
    return replace(group, trajectories=tuple(found))


def test_reward_and_gold_that_part_are_told_once(make_group: Any) -> None:
    watch = GoldWatch()
    apart = paid(make_group, [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0])
    assert watch.metrics([apart]) == {"gold/mean": 0.25, "gold/gap": 0.5}
    (told,) = watch.warnings([apart], 3)
    assert "the reward of env is 0.75, but its 'gold' is 0.25" in told
    assert watch.warnings([apart], 4) == []
    assert [row["step"] for row in watch.warned] == [3]


@pytest.mark.parametrize(
    ("rewards", "gold"),
    [
        ([1.0, 1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]),  # by 0.2, and not by more
        ([1.0, 0.0], [1.0, 0.0]),
        ([1.0, 1.0], [None, None]),
        ([None, 0.0], [0.0, 0.0]),
    ],
)
def test_what_goes_together_is_not_warned_of(make_group: Any, rewards: Any, gold: Any) -> None:
    assert GoldWatch().warnings([paid(make_group, rewards, gold)], 1) == []


def test_gold_above_the_reward_is_told_too_and_of_each_env_by_itself(make_group: Any) -> None:
    watch = GoldWatch()
    groups = [paid(make_group, [0.0, 0.0], [1.0, 1.0], "a"), paid(make_group, [1.0, 1.0], [0.0, 0.0], "b")]
    assert len(watch.warnings(groups, 1)) == 2, "over both of them the means are equal"
    assert abs(watch.metrics(groups)["gold/gap"]) == 1.0


def test_the_component_may_have_another_name(make_group: Any) -> None:
    group = paid(make_group, [1.0, 1.0], [0.0, 0.0])
    assert GoldWatch({"env": "true_success"}).warnings([group], 1) == []
    renamed = tuple(replace(t, components={"true_success": 0.0}) for t in group.trajectories)
    assert GoldWatch({"env": "true_success"}).warnings([replace(group, trajectories=renamed)], 1)


def test_a_run_on_a_rewarded_length_warns(tmp_path: Path) -> None:
    """Babble is paid by its length: the very first steps part from gold."""
    told = Listener()
    summary = ag.train(
        SMALL,
        env__id="agentgym/Loophole-v0",
        env__args={"hole": "length"},
        rollout__max_tokens=200,
        engine__max_context=512,
        run__dir=str(tmp_path / "run"),
        reporter=told,
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all({"gold/mean", "gold/gap"} <= set(row) for row in rows)
    assert max(row["gold/gap"] for row in rows) > 0.2, [row["gold/gap"] for row in rows]
    assert sum(note.startswith("warning: ") for note in told.notes) == 1
    assert [len(row.get("warnings", ())) for row in rows].count(1) == 1
    (warned,) = summary["warnings"]
    assert (warned["env"], warned["component"], warned["gold"]) == ("agentgym/Loophole-v0", "gold", 0.0)
    assert "reward and gold apart" in headline(summary)


def test_a_run_without_a_hole_does_not(tmp_path: Path) -> None:
    told = Listener()
    args = {"hole": "none"}
    summary = ag.train(
        SMALL, env__id="agentgym/Loophole-v0", env__args=args, run__dir=str(tmp_path / "run"), reporter=told
    )
    assert summary["warnings"] == []
    assert not [note for note in told.notes if "warning" in note]
