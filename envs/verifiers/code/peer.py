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
import importlib
import json
import os
import queue
import sys
import threading
import types
from typing import Any

from remote import OPERATIONS, Kind, operated  # type: ignore[import-not-found]
from values import CHANGED, DICTIONARIES, Values  # type: ignore[import-not-found]

STACK = 64 << 20
MAX_TEXT = 400
SHARED = ("typing", "collections", "collections.abc", "abc", "enum", "datetime", "decimal", "fractions", "numbers")
"""Modules of the standard library whose classes are the same in both halves."""


class Peer(Values):  # type: ignore[misc]
    """One half. `handle(text)` takes a message and gives the next: an answer, or something to ask the other half."""

    def __init__(self, mark: str):
        super().__init__()
        self._mark = mark
        self._stream = sys.stdout
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what a program prints is nobody's
        self._threads: list[tuple[queue.SimpleQueue[Any], queue.SimpleQueue[Any], threading.Lock]] = []
        self._current = threading.local()
        self._asked_back = False
        self.names: dict[str, Any] = {}
        self.given: set[str] = set()
        """Names of the tests' that the program itself has made."""

    # -- messages --------------------------------------------------------------------------------------------------

    def handle(self, text: str) -> None:
        message = json.loads(text)
        if message["do"] == "answer":
            told, out, _ = self._threads[-1]
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

        lines = told, out, threading.Lock()

        def run() -> None:
            self._current.lines = lines
            out.put(self._outcome(message))

        self._threads.append(lines)
        threading.stack_size(STACK)
        threading.Thread(target=run, daemon=True).start()
        return self._next(out)

    def _next(self, out: queue.SimpleQueue[Any]) -> Any:
        message = out.get()
        if "ask" not in message:
            self._threads.pop()
        return message

    def ask(self, operation: str, target: Any, *args: Any, changed: Any = ()) -> Any:
        """Have the other half do something with an object of its own."""
        # a thread of the tests' or the program's own asks on behalf of what is under way
        told, out, one_at_a_time = getattr(self._current, "lines", None) or self._threads[-1]
        with one_at_a_time:
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
        kind = kinds[0] if kinds and issubclass(kinds[0], Exception | SystemExit) else RuntimeError
        try:
            text = str(error)[:MAX_TEXT]
        except BaseException:
            text = ""
        if kind is RuntimeError and type(error) is not RuntimeError:
            text = f"{type(error).__name__}: {text}"
        told: dict[str, Any] = {"raised": [kind.__name__, text]}
        try:
            parts = error.args
            if isinstance(error, OSError) and len(parts) == 2 and error.filename is not None:
                parts = (*parts, error.filename)
            if type(error) is kind and str(kind(*parts)) == text:  # else made of more than it tells
                told["made_of"] = [self.encode(part) for part in parts]
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
        parts = [self.decode(part) for part in answer.get("made_of", (text,))]
        try:
            made: Exception = self.exception(name, parts)
            return made
        except TypeError:  # such as UnicodeDecodeError, made of five arguments
            return RuntimeError(f"{name}: {text}")

    # -- what may be asked -----------------------------------------------------------------------------------------

    def do_load(self, program: str, name: str) -> Any:
        """Run a program as a module; its names, each with how the other half may know it."""
        module = types.ModuleType(name)
        sys.modules[name] = module
        self._module = name
        self.names = module.__dict__
        exec(compile(program, f"<{name}>", "exec", dont_inherit=True), self.names)
        found: dict[str, Any] = {}
        for key, value in list(self.names.items()):
            if key.startswith("__"):
                continue
            if isinstance(value, types.ModuleType):
                found[key] = {"module": value.__name__}
            elif getattr(value, "__module__", "") in SHARED and (
                isinstance(value, type) or type(value).__module__ == "typing"
            ):
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

    def do_delete_attribute(self, target: Any, name: str) -> Any:
        delattr(target, name)
        return {"value": None}

    def do_equal(self, target: Any, other: Any) -> Any:
        return {"value": bool(target == other)}

    def do_plain(self, target: Any) -> Any:
        """What a container of a class of the program's holds, whatever the class says of it."""
        if self.own_container(target) is None:
            raise AttributeError("plain")
        return {"value": self.encode_container(target)}

    def do_hash(self, target: Any) -> Any:
        return {"value": hash(target)}

    def do_repr(self, target: Any) -> Any:
        return {"value": repr(target)[:MAX_TEXT]}

    def do_operation(self, target: Any, name: str, args: Any) -> Any:
        if name not in OPERATIONS:
            raise AttributeError(name)
        return {"value": self.encode(operated(target, name, args))}

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


def _mutable(value: Any) -> bool:
    return type(value) in (
        *CHANGED,
        *DICTIONARIES.values(),
        collections.defaultdict,
        bytearray,
    )  # what comes by value, as it is decoded


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
