"""Which calls are the right ones, by BFCL's rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.envs.function_calling.docs import Function, read_functions
from agentgym.envs.function_calling.matching import check_answer, mismatch, right_calls, value_fits
from agentgym.types import ToolCall

FLIGHT = {
    "name": "air.book",
    "description": "Book.",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string", "description": "where"},
            "seats": {"type": "integer", "description": "how many"},
            "price": {"type": "float", "description": "at most"},
            "meal": {"type": "boolean", "description": "with one"},
            "stops": {"type": "array", "items": {"type": "string"}, "description": "on the way"},
            "bag": {
                "type": "dict",
                "description": "luggage",
                "properties": {"kilos": {"type": "integer"}, "kind": {"type": "string"}},
            },
        },
        "required": ["city", "seats"],
    },
}
FUNCTIONS = read_functions([FLIGHT, {**FLIGHT, "name": "air.cancel"}])
ANSWER: list[Any] = [
    {
        "air.book": {
            "city": ["New York", "NYC"],
            "seats": [2],
            "price": [99.5, ""],
            "meal": [True, ""],
            "stops": [["Rome", "Oslo"]],
            "bag": [{"kilos": [20, 23], "kind": ["hard-shell", ""]}],
        }
    }
]
RIGHT: dict[str, Any] = {"city": "New York", "seats": 2, "stops": ["Rome", "Oslo"], "bag": {"kilos": 20}}


def wrong(name: str = "air_book", **changed: Any) -> str:
    arguments = {key: value for key, value in {**RIGHT, **changed}.items() if value is not ...}
    return mismatch([ToolCall("c", name, arguments)], ANSWER, FUNCTIONS)


def test_names_with_dots_become_legal_and_stay_apart() -> None:
    names = [one.name for one in read_functions([{**FLIGHT, "name": name} for name in ("a.b", "a_b", "a b", "x" * 90)])]
    assert names[:3] == ["a_b", "a_b_2", "a_b_3"]
    assert len(set(names)) == 4
    assert all(len(name) <= 64 for name in names)


def test_schemas_are_openai_s() -> None:
    schema = FUNCTIONS[0].schema
    assert schema["function"]["name"] == "air_book"
    parameters = schema["function"]["parameters"]
    assert parameters["type"] == "object"
    assert parameters["properties"]["price"]["type"] == "number"
    assert parameters["properties"]["stops"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "on the way",
    }
    assert parameters["properties"]["bag"]["properties"]["kilos"] == {"type": "integer"}
    assert parameters["required"] == ["city", "seats"]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"city": "new-york"},
        {"city": "N.Y.C."},
        {"price": 99.5},
        {"meal": True},
        {"bag": {"kilos": 23, "kind": "Hard Shell"}},
    ],
)
def test_what_is_right(changed: dict[str, Any]) -> None:
    assert wrong(**changed) == ""
    assert wrong("air.book", **changed) == ""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"city": "Boston"}, "city = 'Boston' is wrong"),
        ({"seats": "2"}, "seats = '2' is wrong"),
        ({"seats": 2.0}, "seats = 2.0 is wrong"),
        ({"seats": True}, "seats = True is wrong"),
        ({"seats": ...}, "seats is missing"),
        ({"stops": ...}, "stops is missing"),
        ({"stops": ["Oslo", "Rome"]}, "stops ="),
        ({"stops": ["Rome"]}, "stops ="),
        ({"meal": 1}, "meal = 1 is wrong"),
        ({"meal": False}, "meal = False is wrong"),
        ({"bag": {}}, "bag = {} is wrong"),
        ({"bag": {"kilos": 20, "color": "red"}}, "bag ="),
        ({"bag": {"kilos": 21}}, "bag ="),
        ({"class": "first"}, "class is not expected"),
        ({"city": None}, "city = None is wrong"),
    ],
)
def test_what_is_wrong(changed: dict[str, Any], why: str) -> None:
    assert why in wrong(**changed)


def test_an_int_is_a_float_that_is_due() -> None:
    spec = {"type": "float"}
    assert value_fits(5, [5.0], spec)
    assert not value_fits(True, [1.0], spec)
    assert not value_fits("5", [5.0], spec)
    assert not value_fits(5.5, [5], {"type": "integer"})


def test_other_functions_and_other_counts_of_calls_are_wrong() -> None:
    assert "expected a call of air.book" in wrong("air_cancel")
    right = ToolCall("c", "air_book", RIGHT)
    assert mismatch([right, right], ANSWER, FUNCTIONS) == "expected 1 calls, got 2"
    assert mismatch([], ANSWER, FUNCTIONS) == "expected 1 calls, got 0"
    assert mismatch([ToolCall("c", "air_book", RIGHT, "bad JSON")], ANSWER, FUNCTIONS).startswith("malformed")


def test_parallel_calls_are_right_in_any_order_and_each_once() -> None:
    one, two = {"air.cancel": {"city": ["A", "B"], "seats": [1]}}, {"air.cancel": {"city": ["A"], "seats": [1]}}

    def calls(*cities: str) -> list[ToolCall]:
        return [ToolCall("c", "air_cancel", {"city": city, "seats": 1}) for city in cities]

    assert mismatch(calls("A", "B"), [one, two], FUNCTIONS) == ""
    assert mismatch(calls("B", "A"), [one, two], FUNCTIONS) == ""  # a greedy pairing would give A to the first
    assert mismatch(calls("A", "A"), [one, two], FUNCTIONS) == ""
    assert mismatch(calls("B", "B"), [one, two], FUNCTIONS) != ""


def test_the_name_of_a_variable_is_right_where_the_answer_has_one() -> None:
    assert value_fits("ids", ["ids"], {"type": "array", "items": {"type": "integer"}})
    assert not value_fits("others", ["ids"], {"type": "array", "items": {"type": "integer"}})
    assert not value_fits("x", [[1]], {"type": "array"})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "expected a list of calls"),
        ([{}], r"answer\[0\]: expected an object of one function"),
        ([{"other": {}}], "there is no function 'other' .there are: air.book, air.cancel"),
        ([{"air.book": []}], "expected the parameters of air.book"),
        ([{"air.book": {"city": "Rome"}}], "air.book.city: expected a list of right values"),
        ([{"air.book": {"pets": [2]}}], "air.book has no parameter 'pets'"),
    ],
)
def test_answers_that_cannot_be_used_are_told(answer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_answer(answer, FUNCTIONS)


# -- properties ------------------------------------------------------------------------------------------------------

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text("abXY01", min_size=1, max_size=6),
    "integer": st.integers(-1000, 1000),
    "float": st.floats(-1000, 1000, allow_nan=False),
    "boolean": st.booleans(),
}


@st.composite
def problems(draw: st.DrawFn) -> tuple[Function, list[Any]]:
    kinds = draw(st.dictionaries(st.sampled_from("abcde"), st.sampled_from([*SCALARS, "array"]), min_size=1))
    properties: dict[str, Any] = {}
    values: dict[str, Any] = {}
    required = []
    for name, kind in kinds.items():
        inner = draw(st.sampled_from(list(SCALARS))) if kind == "array" else kind
        properties[name] = {"type": kind, **({"items": {"type": inner}} if kind == "array" else {})}
        value = st.lists(SCALARS[inner], min_size=1, max_size=3) if kind == "array" else SCALARS[kind]
        values[name] = draw(st.lists(value, min_size=1, max_size=3))
        if draw(st.booleans()):
            required.append(name)
        elif draw(st.booleans()):
            values[name].append("")
    made = {"type": "dict", "properties": properties, "required": required}
    (function,) = read_functions([{"name": "f.g", "description": "", "parameters": made}])
    return function, [{"f.g": values}]


@settings(max_examples=40)
@given(problems())
def test_calls_made_from_an_answer_are_right(problem: tuple[Function, list[Any]]) -> None:
    function, answer = problem
    checked = check_answer(answer, [function])
    assert mismatch(right_calls(checked, [function]), checked, [function]) == ""


@settings(max_examples=40)
@given(problems(), st.data())
def test_a_changed_call_is_wrong(problem: tuple[Function, list[Any]], data: st.DataObject) -> None:
    function, answer = problem
    (call,) = right_calls(check_answer(answer, [function]), [function])
    arguments = copy.deepcopy(dict(call.arguments))
    values = answer[0]["f.g"]
    name = data.draw(st.sampled_from(list(values)))
    change = data.draw(st.sampled_from(["value", "missing", "extra"]))
    if change == "extra":
        arguments["unheard_of"] = 1
    elif change == "missing":
        if "" in values[name] and name not in function.required:
            return
        arguments.pop(name, None)
    else:
        arguments[name] = {
            "string": "?!?",
            "integer": 5000,
            "float": 5000.5,
            "boolean": "yes",
            "array": ["none", 1, 2, 3],
        }[function.parameters[name]["type"]]
    assert mismatch([ToolCall("c", "f_g", arguments)], answer, [function]) != ""
