"""`@tool`: schema, checking of arguments, output, timeouts."""

import asyncio
import threading
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Required, TypedDict

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from agentgym.errors import ToolError
from agentgym.tools import BadArguments, Episode, FunctionTool, tool
from agentgym.tools.arguments import parse_docstring
from agentgym.tools.driving import drive
from agentgym.types import Task


def run(given: FunctionTool, episode: Any = None, /, **arguments: Any) -> str:
    return drive(given.call(arguments, episode))


@tool
def order(item: str, count: int = 1, express: bool = False, *, title: str | None = None) -> str:
    """Order something
    from the shop.

    Args:
        item (str): what to order,
            by its name
        count: how many

    Returns:
        a receipt
    """
    return f"{count!r} {item!r} {express!r} {title!r}"


def test_schema_from_hints_and_docstring() -> None:
    function = order.schema["function"]
    assert order.schema["type"] == "function"
    assert function["name"] == "order"
    assert function["description"] == "Order something from the shop."
    parameters = function["parameters"]
    assert parameters["required"] == ["item"]
    assert parameters["properties"] == {
        "item": {"type": "string", "description": "what to order, by its name"},
        "count": {"type": "integer", "default": 1, "description": "how many"},
        "express": {"type": "boolean", "default": False},
        "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    }


def test_rich_types_are_described_and_built() -> None:
    @dataclass
    class Point:
        x: int
        y: int

    def far(points: list[Point], mode: Literal["near", "far"]) -> int:
        return sum(p.x + p.y for p in points)

    far.__annotations__["points"] = list[Point]
    made = tool(far)
    schema = made.schema["function"]["parameters"]
    assert schema["properties"]["mode"] == {"enum": ["near", "far"], "type": "string"}
    assert run(made, points=[{"x": 1, "y": "2"}], mode="far") == "3"
    with pytest.raises(BadArguments, match=r"argument 'points\.0\.y' is missing"):
        run(made, points=[{"x": 1}], mode="far")


class Color(Enum):
    red = "r"
    blue = "b"


class Leg(TypedDict, total=False):
    to: Required[str]
    hours: int


@dataclass
class Stop:
    to: str
    hours: int | None = None


@dataclass
class Parcel:
    kilos: float
    legs: list[Stop]


class Tree(BaseModel):
    leaves: int = Field(ge=0, description="how many")
    branches: list["Tree"] = []


@tool
def ship(
    parcel: Parcel,
    color: Color,
    at: int | str | None,
    rows: list[dict[str, int]],
    tree: Tree,
    count: Annotated[int, Field(ge=1, description="of them")],
    mode: Literal["air", "sea"] = "sea",
    legs: list[Leg] | None = None,
    tone: Color = Color.red,
) -> list[Any]:
    """Ship."""
    return [parcel.legs, color, at, rows, tree.branches[0].leaves if tree.branches else 0, count, mode, legs, tone]


SHIP: dict[str, Any] = {
    "parcel": {"kilos": 1, "legs": [{"to": "x"}]},
    "color": "b",
    "at": "here",
    "rows": [{"a": 1}],
    "tree": {"leaves": 1, "branches": [{"leaves": 2}]},
    "count": "3",
}


def test_nested_types_are_written_out_in_the_schema() -> None:
    parameters = ship.schema["function"]["parameters"]
    properties = parameters["properties"]
    leg = {
        "type": "object",
        "properties": {"to": {"type": "string"}, "hours": {"type": "integer"}},
        "required": ["to"],
        "additionalProperties": False,
    }
    assert properties["parcel"]["properties"]["legs"]["items"]["properties"]["to"] == {"type": "string"}
    assert properties["legs"] == {"anyOf": [{"items": leg, "type": "array"}, {"type": "null"}], "default": None}
    assert properties["color"] == {"enum": ["r", "b"], "type": "string"}
    assert properties["tone"] == {"enum": ["r", "b"], "type": "string", "default": "r"}
    assert properties["at"] == {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}
    assert properties["rows"]["items"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert properties["count"] == {"type": "integer", "minimum": 1, "description": "of them"}
    assert properties["tree"] == {"$ref": "#/$defs/Tree"}  # it holds itself
    assert list(parameters["$defs"]) == ["Tree"]
    assert parameters["required"] == ["parcel", "color", "at", "rows", "tree", "count"]
    Draft202012Validator.check_schema(parameters)
    Draft202012Validator(parameters).validate({**SHIP, "count": 3})


def test_nested_values_are_built() -> None:
    assert run(ship, **SHIP) == '[[{"to": "x", "hours": null}], "b", "here", [{"a": 1}], 2, 3, "sea", null, "r"]'


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"color": "green"}, "argument 'color': input should be 'r' or 'b', got 'green'"),
        ({"at": [1]}, "argument 'at': input should be a valid integer or input should be a valid string, got [1]"),
        ({"parcel": {"kilos": 1}}, "argument 'parcel.legs' is missing"),
        ({"parcel": {"kilos": 1, "legs": [{"hours": 2}]}}, "argument 'parcel.legs.0.to' is missing"),
        ({"rows": [{"a": "b"}]}, "argument 'rows.0.a': input should be a valid integer"),
        ({"tree": {"leaves": 1, "branches": [{"leaves": -1}]}}, "argument 'tree.branches.0.leaves': input should be"),
        ({"legs": [{"hours": 1}]}, "argument 'legs.0.to' is missing"),
        ({"count": 0}, "argument 'count': input should be greater than or equal to 1, got 0"),
        ({"mode": "rail"}, "color: 'r' | 'b', at: integer | string | null, rows: array of object"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_wrong_nested_values_say_where(change: dict[str, Any], part: str) -> None:
    with pytest.raises(BadArguments) as caught:
        run(ship, **{**SHIP, **change})
    assert part in str(caught.value)


def test_names_that_pydantic_reserves() -> None:
    @tool
    def odd(schema: str, copy: int, _x: int, model_fields: str) -> str:
        return f"{schema}{copy}{_x}{model_fields}"

    assert run(odd, schema="a", copy="1", _x=2, model_fields="b") == "a12b"


def test_arguments_are_coerced_and_defaults_left_alone() -> None:
    assert run(order, item="tea") == "1 'tea' False None"
    assert run(order, item=7, count="3", express="true", title="x") == "3 '7' True 'x'"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({}, ["argument 'item' is missing", "item: string, count: integer (optional)"]),
        ({"item": "tea", "number": 2}, ["there is no argument 'number'", "count: integer"]),
        ({"item": "tea", "count": "many"}, ["argument 'count'", "valid integer", "'many'"]),
        ({"item": "tea", "count": 1.5}, ["argument 'count'", "1.5"]),
        ({"item": None}, ["argument 'item'", "string", "None"]),
        ({"item": "t", "count": "x" * 500}, ["argument 'count'", "..."]),
    ],
)
def test_wrong_arguments_say_what_was_expected(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(BadArguments) as caught:
        run(order, **arguments)
    message = str(caught.value)
    assert message.startswith("order: ")
    assert all(part in message for part in parts), message
    assert len(message) < 400


def test_an_untyped_argument_is_refused_at_registration() -> None:
    def price(item) -> int:  # type: ignore[no-untyped-def]
        return 1

    with pytest.raises(ToolError, match=r"tool 'price': argument 'item' has no type hint"):
        tool(price)


def test_arguments_without_a_name_or_schema_are_refused() -> None:
    def star(*items: str) -> None: ...

    def stars(**items: str) -> None: ...

    def place(item: str, /) -> None: ...

    def array(values: np.ndarray) -> None: ...  # type: ignore[type-arg]

    def fielded(count: int = Field(3, ge=1)) -> None: ...

    for fn, name in (
        (fielded, "write Annotated"),
        (star, r"\*items"),
        (stars, r"\*\*items"),
        (place, "item"),
        (array, "no JSON schema"),
    ):
        with pytest.raises(ToolError, match=name):
            tool(fn)


def test_options_are_checked() -> None:
    def fine(x: int) -> int:
        return x

    with pytest.raises(ToolError, match="timeout"):
        tool(timeout=0)(fine)
    with pytest.raises(ToolError, match="name of letters"):
        tool(name="my tool")(fine)
    assert tool(name="other", description="Does it.")(fine).schema["function"]["name"] == "other"


def test_a_tool_is_still_its_function() -> None:
    assert order("tea", 2) == "2 'tea' False None"
    assert order.__doc__ is not None
    assert "from the shop" in order.__doc__


def test_the_episode_is_injected_and_hidden() -> None:
    @tool
    def remember(word: str, episode: Episode) -> str:
        episode.state["word"] = word
        return "ok"

    assert list(remember.schema["function"]["parameters"]["properties"]) == ["word"]
    episode = Episode(Task("0", "?"), np.random.default_rng(0))
    assert run(remember, episode, word="hi") == "ok"
    assert episode.state == {"word": "hi"}
    with pytest.raises(BadArguments, match="no argument 'episode'"):
        run(remember, episode, word="hi", episode="mine")
    with pytest.raises(ToolError, match="needs an episode"):
        run(remember, word="hi")


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain", "plain"), (3, "3"), (True, "true"), (None, "null"), (1.5, "1.5"), ({"ä": [1, 2]}, '{"ä": [1, 2]}')],
)
def test_output_is_text(value: Any, text: str) -> None:
    @tool
    def give() -> Any:
        return value

    assert run(give) == text


def test_output_of_other_types_is_json() -> None:
    @dataclass
    class Pair:
        a: int
        b: tuple[int, ...]

    @tool
    def give() -> Any:
        return [Pair(1, (2, 3))]

    assert run(give) == '[{"a": 1, "b": [2, 3]}]'


def test_long_output_is_cut_visibly() -> None:
    @tool(max_output=10)
    def long() -> str:
        return "x" * 2_010

    assert run(long) == "x" * 10 + "\n[... 2,000 more characters cut]"


def test_async_tools_and_timeouts() -> None:
    @tool(timeout=0.02)
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    waiting = threading.Event()

    @tool(timeout=0.02)
    def stuck(seconds: float) -> str:
        waiting.wait(seconds)
        return "done"

    try:
        for given in (slow, stuck):
            assert run(given, seconds=0) == "done"
            with pytest.raises(TimeoutError, match=r"timed out after 0\.02 s"):
                run(given, seconds=100)  # not waited for
    finally:
        waiting.set()
    with pytest.raises(TimeoutError, match=r"timed out after 0\.02 s"):
        asyncio.run(slow.call({"seconds": 100}))


def test_a_timeout_of_the_tool_itself_is_its_own() -> None:
    @tool(timeout=5)
    def refused() -> str:
        raise TimeoutError("the server did not answer")

    with pytest.raises(TimeoutError, match="did not answer"):
        run(refused)


def test_docstring_sections() -> None:
    summary, described = parse_docstring(
        "Does.\n\nMore.\n\nArgs:\n  a: one: two\n  *b (int): three\n\nRaises:\n  c: no"
    )
    assert summary == "Does. More."
    assert described == {"a": "one: two", "b": "three"}
