"""What stands in one half of a call for an object of the other (`peer`), and which operators it passes on.

Runs in both sandboxes, as text, beside `peer`.
"""

from __future__ import annotations

import copy
import math
import operator
import types
from typing import Any

_ARITHMETIC = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul"),
    *("lshift", "rshift", "and", "or", "xor"),
)
_IN_PLACE = tuple(f"i{name}" for name in _ARITHMETIC if name != "divmod")
_COMPARED = ("lt", "le", "gt", "ge")
_OPERATORS = (
    *("getitem", "setitem", "delitem", "contains", "neg", "pos", "invert", "index"),
    *(*_COMPARED, *_ARITHMETIC, *_IN_PLACE),
)
_BY_NAME = {"divmod": divmod, "pow": pow}
"""What `operator` does not have, or not in full."""


def _operator(name: str) -> Any:
    return _BY_NAME.get(name) or getattr(operator, f"__{name}__")


def _reflected(name: str) -> Any:
    run = _operator(name)
    return lambda right, left: run(left, right)


def _finished(running: Any) -> Any:
    """What a coroutine comes to, in a loop of its own: this thread may be in one."""
    import asyncio  # both take longer than what most programs are tested for
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, running).result()


_DECLINED = (*_COMPARED, *_ARITHMETIC, *(f"r{name}" for name in _ARITHMETIC), *_IN_PLACE)
"""Where such a method is missing or declines, Python turns to the other of the two."""
_KINDS = ("instancecheck", "subclasscheck")
_BUILT_IN: dict[str, Any] = {
    **{f.__name__: f for f in (abs, bool, bytes, complex, float, format, int, iter, len, next, reversed, round, str)},
    **{name: _operator(name) for name in _OPERATORS},
    **{f"r{name}": _reflected(name) for name in _ARITHMETIC},
    "instancecheck": lambda kind, value: isinstance(value, kind),
    "subclasscheck": lambda kind, other: issubclass(other, kind),
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "await": _finished,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
OPERATIONS = (*_BUILT_IN, "enter", "exit")


_READ = ("__match_args__", "__members__", "__wrapped__", "__annotations__")
"""What is read of the other half though its name is Python's; the tests' half does not tell it."""


class Remote:
    """Stands for an object of the other half. Equal only to what stands for the same object."""

    def __init__(self, peer: Any, number: int, name: str):
        self.__dict__.update(_peer=peer, _number=number, __name__=name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _READ:
            raise AttributeError(name)
        return self._peer.ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set_attribute", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._peer.ask("delete_attribute", self, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            known = self.__dict__.get("_plain", types.GeneratorType) is not types.GeneratorType
            return known and bool(self._peer.ask("plain", self) == other)
        return self._number == other._number or self._peer.ask("equal", self, other) is True

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What a container is to `isinstance`, besides being of its class."""
        return self.__dict__.get("_plain", type(self))

    def __hash__(self) -> int:
        return hash(self._peer.ask("hash", self))

    def __repr__(self) -> str:
        return str(self._peer.ask("repr", self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._peer.ask("call", self, args, kwargs, changed=(*args, *kwargs.values()))


_TEXT: Any = property(lambda self: self._peer.ask("attribute", self, "__doc__"))
Remote.__doc__ = _TEXT


class Kind(type):
    """Makes the classes that stand for classes of the other half: what is of one class there is of one class here."""

    _peer: Any
    _number: int

    def __new__(cls, name: str, bases: tuple[type, ...], names: dict[str, Any]) -> Kind:
        if "_number" not in names:
            raise TypeError("a class of the program's cannot have one of the tests' below it")
        return super().__new__(cls, name, bases, names)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name not in _READ:
            raise AttributeError(name)
        return cls._peer.ask("attribute", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._peer.ask("set_attribute", cls, name, value)

    def __repr__(cls) -> str:
        return str(cls._peer.ask("repr", cls))

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._peer.ask("call", cls, args, kwargs, changed=(*args, *kwargs.values()))


Kind.__doc__ = _TEXT


class Raised:
    """What a class that stands for one of errors has besides: it is one of Python's own, and knows what it stands for.

    `_text`: what it said when it was raised, as it may fail to say it again.
    """

    _stands: Remote

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_stands"], name)

    def __str__(self) -> str:
        return str(self.__dict__.get("_text", self._stands))

    def __repr__(self) -> str:
        return repr(self._stands)

    @property
    def args(self) -> Any:
        return self._stands.args


def make_kind(peer: Any, number: int, name: str, above: list[Any]) -> Kind:
    """A class for one there; `above`: its bases that are errors, for Python asks errors' classes for theirs."""
    bases = (*([] if any(issubclass(base, Raised) for base in above) else [Raised]), *above) if above else (Remote,)
    return Kind(name, bases, {"_peer": peer, "_number": number, "__doc__": _TEXT})


def stand_in(kind: Any, peer: Any, number: int, name: str) -> Any:
    """For an object of a class, without making one there."""
    if issubclass(kind, Remote):
        made = object.__new__(kind)
        Remote.__init__(made, peer, number, name)
        return made
    error = kind.__new__(kind)
    error.__dict__["_stands"] = Remote(peer, number, name)
    return error


async def awaited(running: Remote) -> Any:
    """A coroutine of the other half's, which runs there, and to its end at once."""
    return running._peer.ask("operation", running, "await", ())


def number_of(value: Any) -> int:
    """By which the other half knows what a class, an object or an error here stands for."""
    stands = value._stands if isinstance(value, Raised) else value
    number: int = stands._number
    return number


def _operation(name: str) -> Any:
    def run(self: Any, *args: Any) -> Any:
        return self._peer.ask("operation", self, name, args)

    def kind(self: Any, other: Any) -> Any:
        """A plain value is of no class of theirs, whatever the class says."""
        known = isinstance(self, Kind) and getattr(type, f"__{name}__")(self, other)
        return known or (isinstance(other, Remote | Kind) and run(self, other))

    def left(self: Any, kind: Any, error: Any, _: Any) -> Any:
        """A traceback is of this half alone."""
        return run(self, kind, error, None)

    def copied(self: Any, *_: Any) -> Any:
        """The memo of a deep copy is of this half alone."""
        return run(self)

    return {"exit": left, "copy": copied, "deepcopy": copied, **dict.fromkeys(_KINDS, kind)}.get(name, run)


for _name in (name for name in OPERATIONS if name != "await"):  # not all can be waited for
    setattr(Remote, f"__{_name}__", _operation(_name))
    if _name not in ("copy", "deepcopy"):  # a class is its own copy
        setattr(Kind, f"__{_name}__", _operation(_name))


def operated(target: Any, name: str, args: Any) -> Any:
    """As Python does; but of two strangers the one here only says what it knows itself, so that none asks for ever."""
    run = _BUILT_IN.get(name)
    if run is not None and not any(isinstance(arg, Remote) for arg in args):
        return run(target, *args)
    if name in _DECLINED and not hasattr(type(target), f"__{name}__"):
        return NotImplemented
    return getattr(target, f"__{name}__")(*args)
