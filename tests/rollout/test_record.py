"""Trajectories survive the way to a file and back, exactly; what is wrong with a file is said with file and line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import DataError
from agentgym.rollout.record import from_row, read_trajectories, to_line, to_row, write_lines
from agentgym.types import (
    Completion,
    ImagePart,
    Message,
    Outcome,
    StopReason,
    TextPart,
    ToolCall,
    Trajectory,
    Turn,
)

TEXT = st.text(max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
CALLS = st.builds(
    ToolCall,
    st.text(min_size=1, max_size=6),
    TEXT,
    st.dictionaries(TEXT, JSON, max_size=2),
    st.none() | TEXT,
)
PARTS = st.lists(st.builds(TextPart, TEXT) | st.builds(ImagePart, TEXT), max_size=3).map(tuple)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    TEXT | PARTS,
    st.none() | TEXT,
    st.lists(CALLS, max_size=2).map(tuple),
    st.none() | TEXT,
    st.none() | TEXT,
)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(lambda values: np.array(values, np.int32))


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    ids = draw(IDS)
    n = len(ids)
    logprobs = draw(st.lists(NUMBER, min_size=n, max_size=n))
    versions = draw(st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n))
    reason = draw(st.sampled_from(["stop", "length", "abort"]))
    return Completion(ids, np.array(logprobs, np.float32), np.array(versions, np.int32), reason)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    turn = draw(
        st.builds(
            Turn,
            st.integers(0, 99),
            st.none() | st.integers(0, 99),
            IDS,
            completions(),
            MESSAGES,
            st.lists(MESSAGES, max_size=2).map(tuple),
            NUMBER,
            st.text(min_size=1, max_size=5),
            score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        )
    )
    n = len(turn.completion.ids)
    values = draw(st.none() | st.lists(NUMBER, min_size=n, max_size=n))
    return dataclasses.replace(turn, values=None if values is None else np.array(values, np.float32))


TURNS = turns()
FIGURES = st.dictionaries(TEXT, NUMBER, max_size=2)
TRAJECTORIES = st.builds(
    Trajectory,
    id=TEXT,
    task_id=TEXT,
    env_id=TEXT,
    turns=st.lists(TURNS, max_size=3).map(tuple),
    prompt=st.lists(MESSAGES, max_size=2).map(tuple),
    reward=st.none() | NUMBER,
    components=FIGURES,
    outcome=st.sampled_from(Outcome),
    stop_reason=st.sampled_from(StopReason),
    kind=TEXT,
    agent_id=st.text(min_size=1, max_size=5),
    episode=st.integers(0, 99),
    seed=st.integers(0, 2**62),
    tags=st.lists(TEXT, max_size=2).map(tuple),
    metrics=FIGURES,
    seconds=FIGURES,
    error=st.none() | TEXT,
    start_score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


def plain(value: Any) -> Any:
    """A value with its arrays as (type, list), so that == compares all of it."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if dataclasses.is_dataclass(value):
        return type(value).__name__, [plain(getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return value


@given(TRAJECTORIES)
@settings(max_examples=150)
def test_round_trip_is_exact(trajectory: Trajectory) -> None:
    assert plain(from_row(json.loads(to_line(to_row(trajectory))))) == plain(trajectory)


def example() -> Trajectory:
    call = Message("assistant", reasoning="hm", tool_calls=(ToolCall("c1", "lookup", {"item": "pear"}),))
    answer = Message("assistant", "5")
    logprobs = np.array([-0.1, -1 / 3], np.float32)
    sampled = Completion(np.array([3, 4], np.int32), logprobs, np.array([7, 8], np.int32))
    turns = (
        Turn(0, None, np.array([1, 2], np.int32), sampled, call, (Message("tool", "5", tool_call_id="c1"),)),
        Turn(1, 0, np.array([9], np.int32), sampled, answer, (), 1.0),
    )
    prompt = (Message("system", "s"), Message("user", "pear?"))
    stop, outcome = StopReason.completed, Outcome.correct
    return Trajectory("g/0", "pear", "agentgym/Store-v0", turns, prompt, 1.0, {"correct": 1.0}, outcome, stop)


def test_a_row_says_what_was_said_and_sampled() -> None:
    row = json.loads(to_line(to_row(example(), step=3)))
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert row["turns"][0]["context_ids"] == [1, 2]
    assert row["turns"][0]["ids"] == [3, 4]
    assert row["turns"][0]["versions"] == [7, 8]
    assert np.float32(row["turns"][0]["logprobs"][1]) == np.float32(-1 / 3)
    assert row["step"] == 3
    assert row["outcome"] == "correct"


def test_file_round_trip_and_odd_text(tmp_path: Path) -> None:
    odd = dataclasses.replace(example(), prompt=(Message("user", "naïve \ud800 \u2028 价格"),))
    file = tmp_path / "t.jsonl"
    file.write_bytes(write_lines([example(), odd]))
    assert len(file.read_bytes().splitlines()) == 2
    assert [plain(t) for t in read_trajectories(file)] == [plain(example()), plain(odd)]


def broken(**changes: Any) -> bytes:
    return to_line({**to_row(example()), **changes})


TURN = to_row(example())["turns"][0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{oops\n", "not valid JSON"),
        (b"[1]\n", "expected a JSON object, got list"),
        (b"\xff\xfe\n", "not valid JSON"),
        (b"{}\n", "messages is missing"),
        (broken(turns="x"), "turns: expected list, got str"),
        (broken(turns=[3]), "turns[0]: expected an object"),
        (broken(outcome="great"), "'great' is not a valid Outcome"),
        (broken(messages=[{"role": "boss"}]), "messages[0].role"),
        (broken(turns=[{**TURN, "observations": 9}]), "turns[0].observations: there are only 5 messages"),
        (broken(turns=[{**TURN, "logprobs": [-1.0]}]), "differ in length"),
        (broken(turns=[{**TURN, "ids": ["a", "b"]}]), "turns[0].ids"),
        (broken(turns=[{**TURN, "ids": [2**40, 1]}]), "turns[0].ids"),
        (broken(turns=[{**TURN, "finish_reason": "tired"}]), "turns[0].finish_reason"),
        (broken(reward="much"), "could not convert"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path: Path, line: bytes, says: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(write_lines([example()]) + b"\n" + line)
    with pytest.raises(DataError) as error:
        list(read_trajectories(file))
    assert f"{file}:3: " in str(error.value)
    assert says in str(error.value)


def test_a_missing_file_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_trajectories(tmp_path / "none.jsonl"))
