"""What crosses between the two halves of a call (`peer`): plain values by value, all else by a number.

Runs in both sandboxes, as text, beside `peer`.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import enum
import fractions
import importlib
import math
import sys
import types
import weakref
from typing import Any

from remote import Kind, Remote, awaited, make_kind, number_of, stand_in  # type: ignore[import-not-found]

_EXACT = 1 << 53
_MICROSECOND = datetime.timedelta(microseconds=1)
_BY_TEXT: dict[str, tuple[type, Any, Any]] = {
    "Decimal": (decimal.Decimal, str, decimal.Decimal),
    "Fraction": (fractions.Fraction, str, fractions.Fraction),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": (datetime.timedelta, lambda t: str(t // _MICROSECOND), lambda text: int(text) * _MICROSECOND),
}
_WHERE = {"UUID": "uuid", "PosixPath": "pathlib"}
"""Of further such kinds, which few programs need: the module, loaded when one comes."""
_ALONE: dict[str, Any] = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
CHANGED = (list, dict, set, collections.deque)
DICTIONARIES = {"Counter": collections.Counter, "OrderedDict": collections.OrderedDict}
ERRORS = ("json.decoder", "decimal", "_queue", "dataclasses", "subprocess", "struct", "binascii", "statistics")
"""Modules of the standard library whose errors the tests know by their own names."""
_OF_TUPLES = {
    *vars(collections.namedtuple("_", ())),
    *("__annotations__", "__orig_bases__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
    *("__static_attributes__", "__firstlineno__"),
}
_CONTAINERS: dict[str, Any] = {"t": tuple, "s": set, "z": frozenset, "q": collections.deque}


class Values:
    """What one half knows of the other's objects, and the other of its own."""

    tells_kinds = True

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._kinds: dict[int, Any] = {}
        self._stand_ins: Any = weakref.WeakValueDictionary()
        self._tuples: dict[Any, Any] = {}
        self._module = ""

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if value is Ellipsis or value is NotImplemented:
            return {"x": [repr(value), ""]}
        if value is None or kind is bool:
            return value
        if isinstance(value, Remote | Kind) or isinstance(kind, Kind):
            return {"r": number_of(value)}
        if (plain_kind := self.own_container(value)) is not None:
            return {**self._stranger(value, kind), "p": plain_kind.__name__}
        if isinstance(value, int):
            plain = int.__int__(value)
            return plain if -_EXACT < plain < _EXACT else {"i": hex(plain)}
        if isinstance(value, float):
            plain_float = float.__float__(value)
            return plain_float if math.isfinite(plain_float) else {"f": repr(plain_float)}
        if isinstance(value, str):
            return str.__str__(value)
        return self._encode_more(value, kind)

    def own_container(self, value: Any) -> Any:
        """The plain kind of a container of the program's own class, or of a member of an `IntEnum` and its like."""
        if not self._module or type(value).__module__ != self._module:
            return None
        kinds = (int, str) if isinstance(value, enum.Enum) else CHANGED
        return next((kind for kind in kinds if isinstance(value, kind)), None)

    def encode_container(self, value: Any) -> Any:
        """None: it is none."""
        if isinstance(value, int | str):
            return int.__int__(value) if isinstance(value, int) else str.__str__(value)
        if isinstance(value, list):
            return [self.encode(item) for item in list.__iter__(value)]
        if isinstance(value, dict):
            return {"d": [[self.encode(k), self.encode(v)] for k, v in dict.items(value)]}
        for mark, container in _CONTAINERS.items():
            if isinstance(value, container):
                return {mark: [self.encode(item) for item in container.__iter__(value)]}
        return None

    def _encode_more(self, value: Any, kind: type) -> Any:
        if kind in DICTIONARIES.values():
            return {"d": self.encode_container(value)["d"], "of": kind.__name__}
        if kind is collections.defaultdict:
            return {"d": self.encode_container(value)["d"], "missing": self.encode(value.default_factory)}
        if fields := fields_of(kind):
            self._tuples.setdefault((kind.__name__, fields), kind)
            return {"nt": [kind.__name__, list(fields), [self.encode(item) for item in tuple.__iter__(value)]]}
        if kind is type and (fields := fields_of(value)):
            self._tuples.setdefault((value.__name__, fields), value)
            defaults = [self.encode(one) for one in value._field_defaults.values()]
            return {"nt": [value.__name__, list(fields)], "defaults": defaults}
        if (container := self.encode_container(value)) is not None:
            return container
        if isinstance(value, Exception) and kind.__module__ == "builtins" and not value.__dict__:
            return {"e": [kind.__name__, [self.encode(part) for part in value.args]]}
        if isinstance(value, bytes | bytearray):
            return {"b": bytes(value).hex(), "m": kind is bytearray}
        if isinstance(value, complex):
            return {"c": [self.encode(value.real), self.encode(value.imag)]}
        if kind is range:
            return {"range": [value.start, value.stop, value.step]}
        if kind is slice:
            return {"slice": [self.encode(part) for part in (value.start, value.stop, value.step)]}
        if isinstance(value, type) and getattr(builtins, name := str(value.__name__), None) is value:
            return {"x": ["type", name]}
        for name, (known, to_text, _) in _BY_TEXT.items():
            if kind is known:
                return {"x": [name, to_text(value)]}
        if kind is getattr(sys.modules.get(_WHERE.get(kind.__name__, "")), kind.__name__, None):
            return {"x": [kind.__name__, str(value)]}
        return self._stranger(value, kind)

    def _stranger(self, value: Any, kind: type) -> Any:
        """Its number and name, and its class: so the other half can tell what is of one class, and what is an error."""
        try:
            name = str(getattr(value, "__name__", kind.__name__))
        except Exception:  # of a `__getattr__` of its own
            name = kind.__name__
        told: dict[str, Any] = {"l": self._number(value), "n": name}
        if kind in (types.GeneratorType, types.CoroutineType):
            return {**told, "p": kind.__name__}
        if self.tells_kinds and isinstance(value, type):
            if issubclass(value, Exception) and value.__module__ in ERRORS:
                return {**told, "k": None, "above": [{"x": ["error", value.__module__, name]}]}
            above = [base for base in value.__bases__ if issubclass(base, Exception)]
            return {**told, "k": None, "above": [self.encode(base) for base in above]}
        if self.tells_kinds and kind.__module__ != "builtins":
            return {**told, "k": self.encode(kind)}
        return told

    def _number(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self._numbers) + 1)
        self._objects[number] = value  # held, so that its id stays its own
        return number

    def decode(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.decode(item) for item in data]
        if not isinstance(data, dict):
            return data
        ((mark, held), *_) = data.items()
        if mark == "d":
            made = {self.decode(k): self.decode(v) for k, v in held}
            if "missing" in data:
                return collections.defaultdict(self.decode(data["missing"]), made)
            return DICTIONARIES[data["of"]](made) if "of" in data else made
        if mark in _CONTAINERS:
            return _CONTAINERS[mark](self.decode(item) for item in held)
        if mark == "nt":
            kind = self._tuple_class(str(held[0]), tuple(held[1]), data.get("defaults", ()))
            return kind if len(held) == 2 else tuple.__new__(kind, [self.decode(item) for item in held[2]])
        if mark == "e":
            return self.exception(str(held[0]), [self.decode(part) for part in held[1]])
        if mark == "slice":
            return slice(*(self.decode(part) for part in held))
        if mark == "r":
            return self._objects[held]
        if mark == "l":
            return self._stand_in(int(held), str(data["n"]), data)
        return _plain(mark, held, data)

    def exception(self, name: str, parts: list[Any]) -> Any:
        """One of Python's own."""
        kind = getattr(builtins, name, RuntimeError)
        if not (isinstance(kind, type) and issubclass(kind, Exception | SystemExit)):
            kind = RuntimeError
        made: Any = kind(*parts)
        return made

    def _tuple_class(self, name: str, fields: tuple[str, ...], defaults: Any) -> Any:
        if (name, fields) not in self._tuples:
            given = [self.decode(one) for one in defaults]
            self._tuples[name, fields] = collections.namedtuple(name, fields, defaults=given)
        return self._tuples[name, fields]

    def _stand_in(self, number: int, name: str, told: Any) -> Any:
        """For a class, where its own is None; for an object of a class that is told; for one of whatever class."""
        if "k" in told and told["k"] is None:
            if number not in self._kinds:
                self._kinds[number] = make_kind(self, number, name, [self._error_class(one) for one in told["above"]])
            return self._kinds[number]
        if (held := self._stand_ins.get(number)) is not None:  # one object is one object
            return held
        kind = self.decode(told["k"]) if "k" in told else Remote
        if kind is not Remote and not isinstance(kind, Kind):
            raise ValueError("no class of the other half")
        self._stand_ins[number] = made = stand_in(kind, self, number, name)
        if told.get("p") == "coroutine":
            return awaited(made)
        if told.get("p") is not None:
            kinds = (*CHANGED, int, str, types.GeneratorType)
            made.__dict__["_plain"] = next(known for known in kinds if known.__name__ == told["p"])
        return made

    def _error_class(self, told: Any) -> type:
        found = self.decode(told)
        if not (isinstance(found, type) and issubclass(found, Exception)):
            raise ValueError("no class of errors")
        return found


def _plain(mark: str, held: Any, data: Any) -> Any:
    if mark == "i":
        return int(held, 16)
    if mark == "f":
        return float(held)
    if mark == "b":
        return bytearray.fromhex(held) if data.get("m") else bytes.fromhex(held)
    if mark == "c":
        return complex(*(float(part) if isinstance(part, int | float) else float(part["f"]) for part in held))
    if mark == "range":
        return range(*held)
    if mark == "x" and held[0] == "type" and isinstance(found := getattr(builtins, held[1]), type):
        return found
    if mark == "x" and held[0] == "error" and held[1] in ERRORS:
        return getattr(importlib.import_module(held[1]), held[2])  # which is looked at where a class is made
    if mark == "x" and held[0] in _WHERE:
        return getattr(importlib.import_module(_WHERE[held[0]]), held[0])(held[1])
    if mark == "x":
        return _ALONE[held[0]] if held[0] in _ALONE else _BY_TEXT[held[0]][2](held[1])
    raise ValueError(f"not a value: {mark!r}")


def fields_of(kind: Any) -> tuple[str, ...] | None:
    """Of a class of named tuples that has nothing of its own, such as an `__eq__`."""
    fields = vars(kind).get("_fields") if kind.__bases__ == (tuple,) else None
    if not isinstance(fields, tuple) or not set(vars(kind)) <= {*_OF_TUPLES, *fields}:
        return None
    return fields
