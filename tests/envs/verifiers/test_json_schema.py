"""JSON in answers: found or refused, held against a schema or a gold value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.envs.verifiers.json_schema import MAX_CHARS, read_json, verify_json, verify_schema
from agentgym.errors import ConfigError
from agentgym.types import Outcome
from tests.envs.verifiers.test_state import NESTED

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (' [1, {"b": null}]\n', [1, {"b": None}]),
        ("3", 3),
        ('Here it is:\n```json\n{"a": 1}\n```', {"a": 1}),
        ("So:\n```\n[1]\n```\n", [1]),
        ('```json\n"x"\n```', "x"),
        ('{"a": 1} no, rather {"a": 2}', {"a": 2}),
        ('```json\n{"a": 1}\n```\nThat is {"a": 2}.', {"a": 2}),
        ('The set {"a", "b"} gives {"x": 1}.', {"x": 1}),
        ('As in [1, this: {"a": 1}', {"a": 1}),
        ('{"code": "```json\\n{}\\n```"}', {"code": "```json\n{}\n```"}),
        ('{"text": "a } in { a string"} end', {"text": "a } in { a string"}),
    ],
)
def test_found(answer: str, value: Any) -> None:
    assert read_json(answer) == value


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "there is no JSON"),
        ("none here", "there is no JSON"),
        ('The answer: {"a": {"name": "x", "age": 3}', "cut off"),
        ('{"a": {"name": "x", "age": 3},}', "broken"),
        ('{"a": 1} but then {"a": 2, }', "broken"),
        ('{"a": NaN}', "NaN"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 30_000, "nested too deeply"),
        ("[ " * 3_000 + "x", "nested too deeply"),
        ("{" * 5_000, "places where JSON may begin"),
        ("1" * 5_000, "there is no JSON"),
        (" " * MAX_CHARS + "{}1", "longer than"),
    ],
)
def test_refused(answer: str, why: str) -> None:
    for verdict in (verify_schema(answer, True), verify_json(answer, {"name": "x", "age": 3})):
        assert verdict.outcome is Outcome.unparsable
        assert why in verdict.reason


def test_schema() -> None:
    assert verify_schema('{"name": "Ada", "age": 36}', PERSON)
    verdict = verify_schema('{"name": 3, "age": -1, "x": 0}', PERSON)
    assert verdict.outcome is Outcome.incorrect
    assert "$.age: -1 is less than the minimum of 0" in verdict.reason
    assert "$.name: 3 is not of type 'string'" in verdict.reason
    assert not verify_schema("{}", False)
    tree = {"type": "array", "items": {"$ref": "#"}}
    assert verify_schema("[[], [[]]]", tree)
    assert verify_schema("[[], [1]]", tree).outcome is Outcome.incorrect
    assert verify_schema("[" * 400 + "]" * 400, tree).outcome in (Outcome.correct, Outcome.incorrect)


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"required": "name"}, {"$ref": "http://127.0.0.1:9/schema.json"}]
)
def test_a_schema_that_is_none_is_the_users_mistake(schema: Any) -> None:
    with pytest.raises(ConfigError, match="schema"):
        verify_schema("{}", schema)


def test_gold() -> None:
    gold = {"to": "Ada", "lines": [{"n": 1, "price": 0.3}, {"n": 2, "price": 5}]}
    assert verify_json('{"lines": [{"price": 0.3, "n": 1}, {"n": 2.0, "price": 5}], "to": "Ada"}', gold)
    swapped = '{"to": "Ada", "lines": [{"n": 2, "price": 5.001}, {"n": 1, "price": 0.3}]}'
    assert verify_json(swapped, gold, ordered=False, tolerance=1e-2)
    assert verify_json(swapped, gold, ordered=False).outcome is Outcome.incorrect
    assert "lines[1].price: expected 5, is 7" in verify_json(json.dumps(gold).replace("5}", "7}"), gold).reason
    assert verify_json('{"to": "Bob", "lines": []}', {"to": "Ada", "lines": []}, ignore=["to"])
    assert not verify_json("true", 1)


def _finite(value: Any) -> bool:
    try:
        return bool(json.dumps(value, allow_nan=False))
    except ValueError:
        return False


@given(NESTED.filter(_finite), st.text(alphabet="abc .,:\n", max_size=20))
def test_what_is_written_is_read(value: Any, prose: str) -> None:
    answer = f"{prose}\n```json\n{json.dumps(value)}\n```"
    assert verify_json(answer, value), verify_json(answer, value).reason


@given(st.text(alphabet='{}[]",:1a `\n\\', max_size=60))
def test_any_text_is_an_answer(text: str) -> None:
    assert verify_json(text, {"a": 1}).outcome in (Outcome.correct, Outcome.incorrect, Outcome.unparsable)
