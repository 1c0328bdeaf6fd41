"""Half of a call between two sandboxes: runs in each, as text, without the package.

The grader's half runs tests whose names stand for what the agent's half holds. A call is answered through the host,
which carries nothing but the JSON made here: plain values go by value, anything else as a number that the other half
knows it by. So the tests never share a process with what they test, and a value that lies about its equality arrives
as a plain one or as a stranger that equals nothing. What a stranger says of its order, length and arithmetic is taken
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
import operator
import os
import queue
import sys
import threading
import types
from typing import Any

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
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
_OPERATORS = (
    *("getitem", "setitem", "delitem", "contains", "lt", "le", "gt", "ge", "neg", "pos", "invert"),
    *("lshift", "rshift", *_ARITHMETIC),
)


def _reflected(name: str) -> Any:
    run = getattr(operator, f"__{name}__")
    return lambda right, left: run(left, right)


_DECLINED = ("lt", "le", "gt", "ge", "lshift", "rshift", *_ARITHMETIC, *(f"r{name}" for name in _ARITHMETIC))
"""Where such a method is missing or declines, Python turns to the other of the two."""
_BUILT_IN: dict[str, Any] = {
    **{f.__name__: f for f in (abs, bool, float, int, iter, len, next, reversed, str)},
    **{name: getattr(operator, f"__{name}__") for name in _OPERATORS},
    **{f"r{name}": _reflected(name) for name in _ARITHMETIC},
}
_OPERATIONS = (*_BUILT_IN, "enter", "exit")


class Remote:
    """Stands for an object of the other half. Equal only to what stands for the same object."""

    def __init__(self, peer: Peer, number: int, name: str):
        self.__dict__.update(_peer=peer, _number=number, __name__=name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__doc__":
            raise AttributeError(name)
        return self._peer.ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set_attribute", self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        return self._number == other._number or self._peer.ask("equal", self, other) is True

    def __hash__(self) -> int:
        return hash(self._peer.ask("hash", self))

    def __repr__(self) -> str:
        return str(self._peer.ask("repr", self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._peer.ask("call", self, args, kwargs, changed=(*args, *kwargs.values()))


def _operation(name: str) -> Any:
    def run(self: Remote, *args: Any) -> Any:
        return self._peer.ask("operation", self, name, args)

    return run


for _name in _OPERATIONS:
    setattr(Remote, f"__{_name}__", _operation(_name))


class Peer:
    """One half. `handle(text)` takes a message and gives the next: an answer, or something to ask the other half."""

    def __init__(self, mark: str):
        self._mark = mark
        self._stream = sys.stdout
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what a program prints is nobody's
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._errors: dict[int, type] = {}
        self._threads: list[tuple[queue.SimpleQueue[Any], queue.SimpleQueue[Any]]] = []
        self._current = threading.local()
        self._asked_back = False
        self.names: dict[str, Any] = {}

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
            text = json.dumps({"raised": ["RuntimeError", f"the value cannot be sent: {type(e).__name__}", 0]})
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
            raise self._error(*answer["raised"])
        return self.decode(answer["value"])

    def _outcome(self, message: Any) -> Any:
        try:
            return getattr(self, f"do_{message['do']}")(*self._given(message))
        except BaseException as e:
            return {"raised": self._raised(e)}

    def _given(self, message: Any) -> list[Any]:
        if "raw" in message:
            return list(message["raw"])
        target = [self.decode(message["target"])] if "target" in message else []
        return target + [self.decode(a) for a in message.get("args", ())]

    def _raised(self, error: BaseException) -> list[Any]:
        kinds = [kind for kind in type(error).__mro__ if kind.__module__ == "builtins"]
        kind = kinds[0].__name__ if kinds and issubclass(kinds[0], Exception) else "RuntimeError"
        try:
            # a KeyError's text is the repr of what it was made of, and it is made again on the other side
            made_of = error.args[0] if isinstance(error, KeyError) and len(error.args) == 1 else None
            text = (made_of if type(made_of) is str else str(error))[:MAX_TEXT]
        except BaseException:
            text = ""
        if kind == "RuntimeError" and type(error) is not RuntimeError:
            text = f"{type(error).__name__}: {text}"
        return [kind, text, self._number(type(error)) if id(type(error)) in self._numbers else 0]

    def _error(self, kind: str, text: str, number: int) -> Exception:
        known = self._errors.get(number) or getattr(builtins, kind, RuntimeError)
        if not (isinstance(known, type) and issubclass(known, Exception)):
            known = RuntimeError
        try:
            error: Exception = known(text)
        except TypeError:  # such as UnicodeDecodeError, made of five arguments
            error = RuntimeError(f"{kind}: {text}")
        return error

    # -- what may be asked -----------------------------------------------------------------------------------------

    def do_load(self, program: str, name: str) -> Any:
        """Run a program as a module; its names, each with how the other half may know it."""
        module = types.ModuleType(name)
        sys.modules[name] = module
        self.names = module.__dict__
        exec(compile(program, f"<{name}>", "exec"), self.names)
        found: dict[str, Any] = {}
        for key, value in list(self.names.items()):
            if key.startswith("__"):
                continue
            if isinstance(value, types.ModuleType):
                found[key] = {"module": value.__name__}
            elif isinstance(value, type) and issubclass(value, Exception) and value.__module__ == name:
                base = next(kind.__name__ for kind in value.__mro__ if kind.__module__ == "builtins")
                found[key] = {"error": base, "number": self._number(value)}
            elif getattr(value, "__module__", name) in (name, None) or not hasattr(value, "__qualname__"):
                found[key] = {"value": self.encode(value)}
            else:
                found[key] = {"module": value.__module__, "name": value.__qualname__}
        return {"names": found}

    def do_call(self, target: Any, args: Any, kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        before = [json.dumps(self.encode(a)) if _mutable(a) else None for a in given]
        try:
            answer = {"value": self.encode(target(*args, **kwargs))}
        except BaseException as e:
            answer = {"raised": self._raised(e)}
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
        if name not in _OPERATIONS:
            raise AttributeError(name)
        return {"value": self.encode(_operated(target, name, args))}

    # -- values ----------------------------------------------------------------------------------------------------

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if value is Ellipsis or value is NotImplemented:
            return {"x": [repr(value), ""]}
        if value is None or kind is bool:
            return value
        if isinstance(value, Remote):
            return {"r": value._number}
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
        for name, (known, to_text, _) in _BY_TEXT.items():
            if kind is known:
                return {"x": [name, to_text(value)]}
        return {"l": self._number(value), "n": getattr(value, "__name__", kind.__name__)}

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
        if mark == "r":
            return self._objects[held]
        if mark == "l":
            return Remote(self, int(held), str(data["n"]))
        return _plain(mark, held, data)

    def take_names(self, found: Any, module: str) -> dict[str, Any]:
        """Names for the tests, from what `do_load` of the other half said."""
        names = {key: self._name(key, told) for key, told in found.items()}
        made = types.ModuleType(module)
        made.__dict__.update(names)
        sys.modules[module] = made
        return names

    def _name(self, key: str, told: Any) -> Any:
        if "error" in told:
            base = getattr(builtins, str(told["error"]), Exception)
            base = base if isinstance(base, type) and issubclass(base, Exception) else Exception
            self._errors[told["number"]] = made = type(key, (base,), {})
            return made
        if "value" in told:
            return self.decode(told["value"])
        # only what the standard library has, so that nothing of the program is imported here
        if str(told["module"]).partition(".")[0] not in sys.stdlib_module_names:
            return None
        found: Any = importlib.import_module(told["module"])
        for part in str(told.get("name", "")).split("."):
            # some give another name than the one they are imported by, as typing.List
            found = getattr(found, part, getattr(found, key, None)) if part else found
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
    if mark == "x":
        return _ALONE[held[0]] if held[0] in _ALONE else _BY_TEXT[held[0]][2](held[1])
    raise ValueError(f"not a value: {mark!r}")


def _operated(target: Any, name: str, args: Any) -> Any:
    """As Python does; but of two strangers the one here only says what it knows itself, so that none asks for ever."""
    run = _BUILT_IN.get(name)
    if run is not None and not any(isinstance(arg, Remote) for arg in args):
        return run(target, *args)
    if name in _DECLINED and not hasattr(type(target), f"__{name}__"):
        return NotImplemented
    return getattr(target, f"__{name}__")(*args)


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
