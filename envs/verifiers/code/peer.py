"""Half of a call between two sandboxes: runs in each, as text, without the package.

The grader's half runs tests whose names stand for what the agent's half holds. A call is answered through the host,
which carries nothing but the JSON made here: plain values go by value, anything else as a number that the other half
knows it by. So the tests never share a process with what they test, and a value that lies about its equality arrives
as a plain one or as a stranger that equals nothing. A class of the program's stands as a class, which its objects are
of; one of the tests' cannot have it as a base. What a stranger says of its order, length and arithmetic is taken
as it is, for classes are tested by that: a test that compares by a tolerance trusts it.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import json
import math
import os
import queue
import sys
import threading
import types
import weakref
from typing import Any

from remote import OPERATIONS, Kind, Remote, make_kind, number_of, operated, stand_in  # type: ignore[import-not-found]

STACK = 64 << 20
MAX_TEXT = 400
_EXACT = 1 << 53
_BY_TEXT: dict[str, tuple[type, Any, Any]] = {
    "Decimal": (decimal.Decimal, str, decimal.Decimal),
    "Fraction": (fractions.Fraction, str, fractions.Fraction),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
}
_ALONE: dict[str, Any] = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
_CONTAINERS: dict[str, Any] = {"t": tuple, "s": set, "z": frozenset, "q": collections.deque}
SHARED = ("typing", "collections", "collections.abc", "abc", "enum", "datetime", "decimal", "fractions", "numbers")
"""Modules of the standard library whose classes are the same in both halves."""


class Peer:
    """One half. `handle(text)` takes a message and gives the next: an answer, or something to ask the other half."""

    tells_kinds = True

    def __init__(self, mark: str):
        self._mark = mark
        self._stream = sys.stdout
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what a program prints is nobody's
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._kinds: dict[int, Kind] = {}
        self._stand_ins: Any = weakref.WeakValueDictionary()
        self._threads: list[tuple[queue.SimpleQueue[Any], queue.SimpleQueue[Any]]] = []
        self._current = threading.local()
        self._asked_back = False
        self.names: dict[str, Any] = {}
        self.given: set[str] = set()
        """Names of the tests' that the program itself has made."""

    # -- messages --------------------------------------------------------------------------------------------------

    def handle(self, text: str) -> None:
        message = json.loads(text)
        if message["do"] == "answer":
            told, out = self._threads[-1]
            told.put(message)
            self._say(self._next(out))
        elif message["do"].startswith("run_") or self._asked_back or '"l"' in text:
            self._asked_back = True
            self._say(self._in_thread(message))
        else:
            self._say(self._outcome(message))

    def _say(self, message: Any) -> None:
        try:
            text = json.dumps(message)
        except (RecursionError, ValueError, MemoryError) as e:
            text = json.dumps({"raised": ["RuntimeError", f"the value cannot be sent: {type(e).__name__}"]})
        self._stream.write(f"\n{self._mark}{text}\n")
        self._stream.flush()

    def _in_thread(self, message: Any) -> Any:
        """Run it where it may wait for the other half while this one goes on handling messages."""
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        out: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def run() -> None:
            self._current.lines = told, out
            out.put(self._outcome(message))

        threading.stack_size(STACK)
        threading.Thread(target=run, daemon=True).start()
        self._threads.append((told, out))
        return self._next(out)

    def _next(self, out: queue.SimpleQueue[Any]) -> Any:
        message = out.get()
        if "ask" not in message:
            self._threads.pop()
        return message

    def ask(self, operation: str, target: Any, *args: Any, changed: Any = ()) -> Any:
        """Have the other half do something with an object of its own."""
        told, out = self._current.lines
        out.put({"ask": {"do": operation, "target": self.encode(target), "args": [self.encode(a) for a in args]}})
        answer = told.get()
        for mine, theirs in zip(changed, answer.get("changed", ()), strict=False):
            if theirs is not None:
                _become(mine, self.decode(theirs))
        if "raised" in answer:
            raise self._error(answer)
        return self.decode(answer["value"])

    def _outcome(self, message: Any) -> Any:
        try:
            return getattr(self, f"do_{message['do']}")(*self._given(message))
        except BaseException as e:
            return self._failure(e)

    def _given(self, message: Any) -> list[Any]:
        if "raw" in message:
            return list(message["raw"])
        target = [self.decode(message["target"])] if "target" in message else []
        return target + [self.decode(a) for a in message.get("args", ())]

    def _failure(self, error: BaseException) -> dict[str, Any]:
        """The name and text of what is nearest to it among Python's own errors; and the error itself, where the other
        half may know it, or what such a one is made of."""
        kinds = [kind for kind in type(error).__mro__ if kind.__module__ == "builtins"]
        kind = kinds[0] if kinds and issubclass(kinds[0], Exception) else RuntimeError
        try:
            text = str(error)[:MAX_TEXT]
        except BaseException:
            text = ""
        if kind is RuntimeError and type(error) is not RuntimeError:
            text = f"{type(error).__name__}: {text}"
        told: dict[str, Any] = {"raised": [kind.__name__, text]}
        try:
            if type(error) is kind and str(kind(*error.args)) == text:  # else made of more than it tells
                told["made_of"] = [self.encode(part) for part in error.args]
            elif isinstance(error, Exception) and (self.tells_kinds or isinstance(type(error), Kind)):
                told["error"] = self.encode(error)
        except BaseException:  # of its own, such as a text that cannot be made
            return {"raised": told["raised"]}
        return told

    def _error(self, answer: Any) -> Exception:
        name, text = answer["raised"]
        error = self.decode(answer.get("error"))
        if isinstance(error, Exception):
            error.__dict__["_text"] = text
            return error
        kind = getattr(builtins, name, RuntimeError)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = RuntimeError
        try:
            made: Exception = kind(*(self.decode(part) for part in answer.get("made_of", (text,))))
        except TypeError:  # such as UnicodeDecodeError, made of five arguments
            made = RuntimeError(f"{name}: {text}")
        return made

    # -- what may be asked -----------------------------------------------------------------------------------------

    def do_load(self, program: str, name: str) -> Any:
        """Run a program as a module; its names, each with how the other half may know it."""
        module = types.ModuleType(name)
        sys.modules[name] = module
        self.names = module.__dict__
        exec(compile(program, f"<{name}>", "exec", dont_inherit=True), self.names)
        found: dict[str, Any] = {}
        for key, value in list(self.names.items()):
            if key.startswith("__"):
                continue
            if isinstance(value, types.ModuleType):
                found[key] = {"module": value.__name__}
            elif (isinstance(value, type) and value.__module__ in SHARED) or type(value).__module__ == "typing":
                found[key] = {"module": value.__module__, "name": getattr(value, "__name__", "") or key}
            else:
                made = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
                own = not made or value.__module__ == name
                found[key] = {"value": self.encode(value), "own": own}
        return {"names": found}

    def do_call(self, target: Any, args: Any, kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        before = [json.dumps(self.encode(a)) if _mutable(a) else None for a in given]
        try:
            answer = {"value": self.encode(target(*args, **kwargs))}
        except BaseException as e:
            answer = self._failure(e)
        after = [None if b is None else self.encode(a) for a, b in zip(given, before, strict=True)]
        changed = [None if b is None or json.dumps(a) == b else a for a, b in zip(after, before, strict=True)]
        return {**answer, "changed": changed} if any(c is not None for c in changed) else answer

    def do_attribute(self, target: Any, name: str) -> Any:
        return {"value": self.encode(getattr(target, name))}

    def do_set_attribute(self, target: Any, name: str, value: Any) -> Any:
        setattr(target, name, value)
        return {"value": None}

    def do_equal(self, target: Any, other: Any) -> Any:
        return {"value": bool(target == other)}

    def do_hash(self, target: Any) -> Any:
        return {"value": hash(target)}

    def do_repr(self, target: Any) -> Any:
        return {"value": repr(target)[:MAX_TEXT]}

    def do_operation(self, target: Any, name: str, args: Any) -> Any:
        if name not in OPERATIONS:
            raise AttributeError(name)
        return {"value": self.encode(operated(target, name, args))}

    # -- values ----------------------------------------------------------------------------------------------------

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if value is Ellipsis or value is NotImplemented:
            return {"x": [repr(value), ""]}
        if value is None or kind is bool:
            return value
        if isinstance(value, Remote | Kind) or isinstance(kind, Kind):
            return {"r": number_of(value)}
        if isinstance(value, int):
            plain = int.__int__(value)
            return plain if -_EXACT < plain < _EXACT else {"i": hex(plain)}
        if isinstance(value, float):
            plain_float = float.__float__(value)
            return plain_float if math.isfinite(plain_float) else {"f": repr(plain_float)}
        if isinstance(value, str):
            return str.__str__(value)
        return self._encode_more(value, kind)

    def _encode_more(self, value: Any, kind: type) -> Any:
        if isinstance(value, list):
            return [self.encode(item) for item in list.__iter__(value)]
        if isinstance(value, dict):
            return {"d": [[self.encode(k), self.encode(v)] for k, v in dict.items(value)]}
        for mark, container in _CONTAINERS.items():
            if isinstance(value, container):
                return {mark: [self.encode(item) for item in container.__iter__(value)]}
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
        return self._stranger(value, kind)

    def _stranger(self, value: Any, kind: type) -> Any:
        """Its number and name, and its class: so the other half can tell what is of one class, and what is an error."""
        told: dict[str, Any] = {"l": self._number(value), "n": getattr(value, "__name__", kind.__name__)}
        if self.tells_kinds and isinstance(value, type):
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
            return {self.decode(k): self.decode(v) for k, v in held}
        if mark in _CONTAINERS:
            return _CONTAINERS[mark](self.decode(item) for item in held)
        if mark == "slice":
            return slice(*(self.decode(part) for part in held))
        if mark == "r":
            return self._objects[held]
        if mark == "l":
            return self._stand_in(int(held), str(data["n"]), data)
        return _plain(mark, held, data)

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
        return made

    def _error_class(self, told: Any) -> type:
        found = self.decode(told)
        if not (isinstance(found, type) and issubclass(found, Exception)):
            raise ValueError("no class of errors")
        return found

    def take_names(self, found: Any, module: str) -> dict[str, Any]:
        """Names for the tests, from what `do_load` of the other half said."""
        names = {key: self._name(key, told) for key, told in found.items() if key.isidentifier() and key[:2] != "__"}
        self.given = {key for key in names if found[key].get("own")}
        made = types.ModuleType(module)
        made.__dict__.update(names)
        made.__dict__["__all__"] = [key for key in names if not hasattr(builtins, key)]
        sys.modules[module] = made
        return names

    def _name(self, key: str, told: Any) -> Any:
        """Of the program's imports those of the standard library: modules by names that say no other's, and classes.
        Functions run where the program is: `decode = eval` would run here what it likes."""
        if "value" in told:
            return self.decode(told["value"])
        module, name = str(told["module"]), str(told.get("name", ""))
        known = sys.stdlib_module_names
        if not name:
            alias = key not in (module.partition(".")[0], module.rpartition(".")[2]) and key in known
            apart = module.partition(".")[0] in ("builtins", "unittest")
            return None if alias or apart or module.partition(".")[0] not in known else importlib.import_module(module)
        if module not in SHARED:
            return None
        found: Any = importlib.import_module(module)
        found = getattr(found, name, getattr(found, key, None))  # some have another name than they are imported by
        return None if isinstance(found, types.FunctionType) or "." in name else found


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
    if mark == "x":
        return _ALONE[held[0]] if held[0] in _ALONE else _BY_TEXT[held[0]][2](held[1])
    raise ValueError(f"not a value: {mark!r}")


def _mutable(value: Any) -> bool:
    return isinstance(value, list | dict | set | bytearray | collections.deque)


def _become(mine: Any, theirs: Any) -> None:
    """Make a container hold what the callee left in its copy."""
    if isinstance(mine, list | bytearray):
        mine[:] = theirs
    elif isinstance(mine, dict | set):
        mine.clear()
        mine.update(theirs)
    elif isinstance(mine, collections.deque):
        mine.clear()
        mine.extend(theirs)
