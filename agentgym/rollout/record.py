"""Trajectories as JSON lines and back, exactly.

A row holds enough to recompute every figure of a run:

    id task_id env_id kind agent_id episode seed   what was played
    messages        the conversation in OpenAI's shape; its first `prompt_messages` are the prompt
    turns           one a sampled message: id, parent, agent_id, reward, finish_reason, how many `observations` (the
                    messages that follow it) the env answered, and its tokens: `context_ids` were added and are never
                    trained (mask 0), `ids` were sampled (mask 1), with `logprobs` and policy `versions` one a token;
                    where an endpoint sampled there are none, but their number, `tokens`, if it said so;
                    `cause` and `prompt` (messages) where a program branched its conversation; `score` (of the state
                    after it) and `values` (a critic's, one a token) where credit asked for them
    start_score     score of the state that it began in, where credit asked for scores
    reward components outcome stop_reason error    how it ended
    tags metrics seconds                           what else is known of it

Floats are written so that they come back as the same float32. Keys beside these are kept and not read.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.errors import DataError
from agentgym.types import Completion, Group, Message, Outcome, StopReason, Trajectory, Turn

FINISH_REASONS = ("stop", "length", "abort")


def to_row(trajectory: Trajectory, **extra: Any) -> dict[str, Any]:
    """A trajectory as a dict of JSON values; `extra` keys are added to it."""
    t = trajectory
    began = {} if t.start_score is None else {"start_score": t.start_score}
    return {
        "id": t.id,
        "task_id": t.task_id,
        "env_id": t.env_id,
        "kind": t.kind,
        "agent_id": t.agent_id,
        "episode": t.episode,
        "seed": t.seed,
        "reward": t.reward,
        "components": dict(t.components),
        "outcome": t.outcome.value,
        "stop_reason": t.stop_reason.value,
        "error": t.error,
        "tags": list(t.tags),
        "metrics": dict(t.metrics),
        "seconds": dict(t.seconds),
        "prompt_messages": len(t.prompt),
        "messages": [message.to_openai() for message in t.messages],
        "turns": [_turn_out(turn) for turn in t.turns],
        **began,
        **extra,
    }


def from_row(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory of a row; raises `ValueError` naming the field that is missing or wrong."""
    messages = [_message_in(i, message) for i, message in enumerate(_get(row, "messages", list))]
    position = _get(row, "prompt_messages", int)
    prompt, turns = tuple(messages[:position]), []
    for i, given in enumerate(_get(row, "turns", list)):
        turn, position = _turn_in(i, given, messages, position)
        turns.append(turn)
    reward = row.get("reward")
    return Trajectory(
        id=_get(row, "id", str),
        task_id=_get(row, "task_id", str),
        env_id=_get(row, "env_id", str),
        turns=tuple(turns),
        prompt=prompt,
        reward=None if reward is None else float(reward),
        components=dict(row.get("components") or {}),
        outcome=Outcome(_get(row, "outcome", str)),
        stop_reason=StopReason(_get(row, "stop_reason", str)),
        kind=row.get("kind") or "",
        agent_id=row.get("agent_id") or "agent",
        episode=row.get("episode") or 0,
        seed=row.get("seed") or 0,
        tags=tuple(row.get("tags") or ()),
        metrics=dict(row.get("metrics") or {}),
        seconds=dict(row.get("seconds") or {}),
        error=row.get("error"),
        start_score=_score(row, "start_score"),
    )


def to_line(row: Mapping[str, Any]) -> bytes:
    """A row as one line of a JSONL file, readable UTF-8 wherever the text allows it."""
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, as tools that read odd bytes hand out: escaped, it comes back
        return json.dumps(row, default=_plain).encode() + b"\n"


def write_lines(trajectories: Sequence[Trajectory]) -> bytes:
    """The contents of a file of trajectories."""
    return b"".join([to_line(to_row(trajectory)) for trajectory in trajectories])


def write_groups(groups: Sequence[Group]) -> bytes:
    """The contents of a file of groups: a line a trajectory, with the `group` that it belongs to."""
    return b"".join([to_line(to_row(t, group=group.id)) for group in groups for t in group.trajectories])


def read_groups(path: str | Path) -> list[Group]:
    """What `write_groups` wrote; a group without trajectories is not in it. Raises `DataError`."""
    members: dict[str, list[Trajectory]] = {}
    for (_, row), trajectory in zip(read_rows(path), read_trajectories(path), strict=True):
        members.setdefault(str(row["group"]), []).append(trajectory)
    return [Group(name, own[0].task_id, own[0].env_id, tuple(own)) for name, own in members.items()]


def read_trajectories(path: str | Path) -> Iterator[Trajectory]:
    """The trajectories of a JSONL file, one by one; raises `DataError` naming file and line."""
    for number, row in read_rows(path):
        try:
            yield from_row(row)
        except (ValueError, TypeError, AttributeError) as e:
            raise DataError(f"{path}:{number}: not a trajectory: {e}") from None


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line of a JSONL file (.gz too) that is not empty; raises `DataError`."""
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _object(path, number, line)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from None


def _object(path: str | Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as e:  # UnicodeDecodeError too
        raise DataError(f"{path}:{number}: not valid JSON: {e}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
    return row


def _turn_out(turn: Turn) -> dict[str, Any]:
    completion = turn.completion
    more: dict[str, Any] = {} if completion.count is None else {"tokens": completion.count}
    if turn.cause:
        more["cause"] = turn.cause
    if turn.prompt:
        more["prompt"] = [message.to_openai() for message in turn.prompt]
    if turn.score is not None:
        more["score"] = turn.score
    if turn.values is not None:
        more["values"] = turn.values.tolist()
    return {
        "id": turn.id,
        "parent": turn.parent,
        "agent_id": turn.agent_id,
        "reward": turn.reward,
        "observations": len(turn.observations),
        "finish_reason": completion.finish_reason,
        "context_ids": turn.context_ids.tolist(),
        "ids": completion.ids.tolist(),
        "logprobs": completion.logprobs.tolist(),
        "versions": completion.versions.tolist(),
        **more,
    }


def _turn_in(index: int, row: Any, messages: Sequence[Message], position: int) -> tuple[Turn, int]:
    where = f"turns[{index}]."
    if not isinstance(row, Mapping):
        raise ValueError(f"turns[{index}]: expected an object, got {type(row).__name__}")
    end = position + 1 + _get(row, "observations", int, where)
    if not position < end <= len(messages):
        raise ValueError(f"{where}observations: there are only {len(messages)} messages")
    ids = _array(row, "ids", np.int32, where)
    logprobs, versions = _array(row, "logprobs", np.float32, where), _array(row, "versions", np.int32, where)
    if not len(ids) == len(logprobs) == len(versions):
        raise ValueError(f"{where}ids, logprobs and versions differ in length")
    values = _array(row, "values", np.float32, where) if row.get("values") is not None else None
    if values is not None and len(values) != len(ids):
        raise ValueError(f"{where}values: {len(values)} for {len(ids)} ids")
    finish_reason = row.get("finish_reason", "stop")
    if finish_reason not in FINISH_REASONS:
        raise ValueError(f"{where}finish_reason: expected one of {', '.join(FINISH_REASONS)}, got {finish_reason!r}")
    turn = Turn(
        id=_get(row, "id", int, where),
        parent=row.get("parent"),
        context_ids=_array(row, "context_ids", np.int32, where),
        completion=Completion(ids, logprobs, versions, finish_reason, row.get("tokens")),
        message=messages[position],
        observations=tuple(messages[position + 1 : end]),
        reward=row.get("reward", 0.0),
        agent_id=row.get("agent_id") or "agent",
        prompt=tuple(_message_in(i, message) for i, message in enumerate(row.get("prompt") or ())),
        cause=row.get("cause") or "",
        score=_score(row, "score", where),
        values=values,
    )
    return turn, end


def _score(row: Mapping[str, Any], key: str, where: str = "") -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}{key}: expected a number, got {value!r}")
    return float(value)


def _message_in(index: int, row: Any) -> Message:
    if not isinstance(row, Mapping):
        raise ValueError(f"messages[{index}]: expected an object, got {type(row).__name__}")
    try:
        return Message.from_openai(row)
    except ValueError as e:
        raise ValueError(f"messages[{index}].{e}") from None


def _array(row: Mapping[str, Any], key: str, dtype: Any, where: str) -> Any:
    values = _get(row, key, list, where)
    try:
        array = np.array(values, dtype)
    except (ValueError, TypeError, OverflowError) as e:
        raise ValueError(f"{where}{key}: {e}") from None
    if array.ndim != 1:
        raise ValueError(f"{where}{key}: expected a flat list of numbers")
    return array


def _get(row: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:
    if key not in row:
        raise ValueError(f"{where}{key} is missing")
    value = row[key]
    if not isinstance(value, kind):
        raise ValueError(f"{where}{key}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, as they come in metrics."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
