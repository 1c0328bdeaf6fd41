"""Is the answer the JSON that was asked for? Found in the text, held against a schema or a gold value."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from agentgym.envs.verifiers.state import verify_state
from agentgym.envs.verifiers.verdict import Verdict, correct, incorrect, unparsable
from agentgym.errors import ConfigError

MAX_CHARS = 200_000
"""Of an answer; a longer one is not searched."""
MAX_TRIES = 2_000
"""Places of an answer where JSON may begin."""
SHOWN = 5
"""Violations of a schema that a verdict names."""
_FENCE = re.compile(r"```[ \t]*(?:json[c5l]?)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_START = re.compile(r"[{\[]")
_OBJECT = re.compile(r'\{\s*"')
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]]')


def read_json(answer: str) -> Any:
    """The JSON value that an answer gives: the whole text, or what its last fenced block holds if nothing follows it,
    else the last object or array in it. A piece of a larger value that is broken or cut off does not count, nor do
    NaN and Infinity, which JSON has not. Raises `ValueError` that says why there is none."""
    if len(answer) > MAX_CHARS:
        raise ValueError(f"the answer is longer than {MAX_CHARS} characters")
    text = answer.strip()
    fenced = list(_FENCE.finditer(text))
    for whole in (text, fenced[-1].group(1) if fenced and fenced[-1].end() == len(text) else ""):
        try:
            return _decoder().decode(whole.strip())
        except ValueError:
            pass
        except RecursionError:
            raise ValueError("the answer is nested too deeply") from None
    return _last_value(text)


def _last_value(text: str) -> Any:
    decoder = _decoder()
    found: list[Any] = []
    closings: dict[int, int] | None = None
    broken, position, tries = "there is no JSON in the answer", 0, 0
    while (start := _START.search(text, position)) is not None:
        tries += 1
        if tries > MAX_TRIES:
            raise ValueError(f"there are more than {MAX_TRIES} places where JSON may begin")
        try:
            value, position = decoder.raw_decode(text, start.start())
            found = [value]
        except RecursionError:
            raise ValueError("the answer is nested too deeply") from None
        except ValueError as e:
            closings = _closings(text) if closings is None else closings
            end = closings.get(start.start())
            if end is None and _OBJECT.match(text, start.start()):
                raise ValueError(f"the answer's JSON is cut off or broken: {e}") from None
            if _OBJECT.match(text, start.start()):  # an earlier value is not what the answer ends with
                found, broken = [], f"the answer's JSON is broken: {e}"
            position = start.end() if end is None else end
    if not found:
        raise ValueError(broken)
    return found[0]


def _closings(text: str) -> dict[int, int]:
    """Where each bracket that is closed is closed, strings skipped."""
    found: dict[int, int] = {}
    open_at: list[int] = []
    for token in _TOKEN.finditer(text):
        if token.group() in ("{", "["):
            open_at.append(token.start())
        elif token.group() in ("}", "]") and open_at:
            found[open_at.pop()] = token.end()
    return found


def verify_json(
    answer: str, gold: Any, *, tolerance: float = 0.0, ordered: bool = True, ignore: Collection[str] = ()
) -> Verdict:
    """`correct` where the answer's JSON equals `gold`; `unparsable` where it has none.

    Keys have no order; 1 equals 1.0, true is no 1. tolerance, ordered, ignore: as `verify_state` has them.
    """
    try:
        value = read_json(answer)
    except ValueError as e:
        return unparsable(str(e))
    return verify_state(gold, value, tolerance=tolerance, ordered=ordered, ignore=ignore)


def verify_schema(answer: str, schema: Mapping[str, Any] | bool) -> Verdict:
    """`correct` where the answer's JSON satisfies a JSON Schema (draft by its `$schema`, else 2020-12); `unparsable`
    where it has none. The reason names the first violations. Nothing is fetched: a `$ref` must lead into the schema.

    Raises `ConfigError` for a schema that is none. How long it takes is the schema's doing: a `pattern` that
    backtracks, or `uniqueItems` of objects, can be slow on a hostile answer.
    """
    checker = _checker(schema)
    try:
        value = read_json(answer)
    except ValueError as e:
        return unparsable(str(e))
    try:
        errors = sorted(checker.iter_errors(value), key=lambda e: list(map(str, e.absolute_path)))
    except RecursionError:
        return incorrect("the answer is nested too deeply")
    except Exception as e:
        if type(e).__name__ in ("_WrappedReferencingError", "Unresolvable", "PointerToNowhere"):
            raise ConfigError(f"the schema refers to what is not in it: {e}") from None
        raise
    if not errors:
        return correct()
    told = [f"{e.json_path}: {e.message[:200]}" for e in errors[:SHOWN]]
    more = [f"and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
    return incorrect("\n".join([*told, *more]))


def _checker(schema: Mapping[str, Any] | bool) -> Any:
    import jsonschema
    import referencing

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as e:
        raise ConfigError(f"the schema is no JSON Schema: {e.json_path}: {e.message[:200]}") from None
    return kind(schema, registry=referencing.Registry())


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
