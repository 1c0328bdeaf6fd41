"""The two halves of a function test in the tests' own process: values, calls, errors, and what may not be asked."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import importlib
import io
import json
import math
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.envs.verifiers.code import function
from agentgym.envs.verifiers.code.function import grade_functions
from agentgym.envs.verifiers.code.report import CodeReport
from agentgym.execution import ExecResult, ExecStatus
from agentgym.sandboxes.fake import FakeSandbox
from agentgym.types import Outcome

FOLDER = Path(function.__file__).parent
MODULES = ("remote", "values", "peer", "grading", "solution")


@pytest.fixture(scope="module")
def peer() -> Iterator[Any]:
    """The module `peer`, imported by the name that it has in a sandbox, where `grading` finds it."""
    sys.path.insert(0, str(FOLDER))
    stack = threading.stack_size()
    try:
        yield importlib.import_module("peer")
    finally:
        sys.path.remove(str(FOLDER))
        threading.stack_size(stack)
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def _same_modules(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "_loading", lambda *names: f"import {names[-1]} as m\n")


class Here(FakeSandbox):
    """A half that runs in this process: the code that a sandbox would run, and what it writes to its stdout."""

    def __init__(self) -> None:
        super().__init__({"*": self._run})
        self._said = io.StringIO()
        self._names: dict[str, Any] = {"open": lambda path: io.StringIO(self.files[path].decode())}

    def _run(self, code: str) -> ExecResult:
        before = self._said.tell()
        with contextlib.redirect_stdout(self._said):
            try:
                exec(code, self._names)
            except Exception as e:
                return ExecResult(ExecStatus.error, error=f"{type(e).__name__}: {e}")
        return ExecResult(ExecStatus.ok, stdout=self._said.getvalue()[before:])


def grade(program: str, *tests: str, entry_point: str = "") -> CodeReport:
    halves = {"agent": Here(), "grader": Here()}
    return asyncio.run(grade_functions(program, tests, entry_point, timeout=30.0, **halves))


@pytest.fixture
def pair(peer: Any) -> tuple[Any, Any]:
    return tuple(make_peer(peer) for _ in range(2))  # type: ignore[return-value]


def make_peer(peer: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        return peer.Peer("#")


# -- values -----------------------------------------------------------------------------------------------------------

DATES = st.dates() | st.datetimes(timezones=st.none() | st.just(datetime.UTC)) | st.times()
NUMBERS = st.integers() | st.integers(-(1 << 90), 1 << 90) | st.floats(allow_nan=False) | st.decimals(allow_nan=False)
HASHED = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.just(...), NUMBERS, st.fractions(), DATES),
        *(st.text(), st.text('a\ud800\0"'), st.binary(), st.complex_numbers(allow_nan=False)),
        st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
VALUES = st.recursive(
    HASHED,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(collections.deque),
        st.dictionaries(HASHED, inner, max_size=3),
        st.sets(HASHED, max_size=3),
        st.binary(max_size=9).map(bytearray),
    ),
    max_leaves=6,
)


def kinds(value: Any) -> Any:
    """The types in a value, however deep."""
    if isinstance(value, dict):
        return [(kinds(key), kinds(held)) for key, held in value.items()]
    if isinstance(value, (list, tuple, collections.deque)):
        return [type(value), *map(kinds, value)]
    return (
        [type(value), *sorted(str(kinds(item)) for item in value)]
        if isinstance(value, (set, frozenset))
        else type(value)
    )


@given(VALUES)
def test_plain_values_arrive_as_they_were(peer: Any, value: Any) -> None:
    sent = json.loads(json.dumps(make_peer(peer).encode(value)))
    arrived = make_peer(peer).decode(sent)
    assert arrived == value
    assert kinds(arrived) == kinds(value)


@pytest.mark.parametrize("value", [math.nan, -0.0, Decimal("NaN"), Decimal("-0.00"), complex(math.nan, -math.inf)])
def test_values_that_equality_does_not_tell(value: Any, pair: tuple[Any, Any]) -> None:
    arrived = pair[1].decode(json.loads(json.dumps(pair[0].encode(value))))
    assert (type(arrived), repr(arrived)) == (type(value), repr(value))


def test_what_only_looks_plain_is_made_plain(pair: tuple[Any, Any]) -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

        def __int__(self) -> int:
            return 5

    class Shout(str):
        def __str__(self) -> str:
            return "loud"

    class Hidden(list[int]):
        def __iter__(self) -> Iterator[int]:
            return iter((9, 9))

    arrived = pair[1].decode(pair[0].encode([Liar(7), Shout("low"), Hidden([1, 2]), collections.Counter("aab")]))
    assert arrived == [7, "low", [1, 2], {"a": 2, "b": 1}]
    assert [type(item) for item in arrived] == [int, str, list, collections.Counter]


def test_an_object_is_known_by_a_number_and_comes_back_as_itself(pair: tuple[Any, Any]) -> None:
    mine = object()
    stands = pair[1].decode(pair[0].encode({"it": [mine]}))["it"][0]
    assert type(stands).__name__ == "Remote"
    assert pair[0].decode(pair[1].encode(stands)) is mine
    assert pair[0].encode(mine) == pair[0].encode(mine)
    assert pair[0].encode(mine) != pair[0].encode(object())


FORGED = [
    *[{"x": ["type", "eval"]}, {"x": ["type", "Nothing"]}, {"slice": "abcd"}, {"l": 1, "n": "a\0", "k": None}],
    *[{"l": 1, "n": "y", "k": ["x"]}, {"l": 1, "n": "y", "k": [1]}],
    *[{}, {"r": 99}, {"y": 1}, {"x": ["os", "system"]}, {"x": ["Decimal", "no"]}, {"l": "x", "n": "y"}],
    *[{"i": "0xz"}, {"b": "zz"}, {"c": ["1"]}, {"range": "ab"}, {"d": [[[1], 2]]}, {"s": [[1]]}],
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
def test_what_is_no_value(forged: Any, pair: tuple[Any, Any]) -> None:
    """It becomes an error of the half that reads it, and no more."""
    assert pair[0]._outcome({"do": "repr", "args": [forged]})["raised"][0] != ""


# -- calls ------------------------------------------------------------------------------------------------------------

NUMBER = """
class V:
    def __init__(self, x): self.x = x
    def __eq__(self, o): return isinstance(o, V) and o.x == self.x
    def __add__(self, o): return V(self.x + o.x) if isinstance(o, V) else NotImplemented
    def __radd__(self, o): return self if o == 0 else NotImplemented
    def __mul__(self, k): return V(self.x * k)
    __rmul__ = __mul__
    def __mod__(self, k): return V(self.x % k)
    def __floordiv__(self, k): return V(self.x // k)
    def __pow__(self, k): return V(self.x ** k)
    def __matmul__(self, o): return self.x * o.x
    def __and__(self, o): return V(self.x & o.x)
    def __neg__(self): return V(-self.x)
    def __abs__(self): return V(abs(self.x))
    def __invert__(self): return V(~self.x)
    def __rsub__(self, o): return V(o - self.x)
    def __int__(self): return self.x
    def __float__(self): return self.x / 1
    def __str__(self): return f'<{self.x}>'
"""
NUMBER_TESTS = """
assert V(1) + V(2) == V(3) and sum([V(1), V(2)]) == V(3)
assert V(2) * 3 == V(6) == 3 * V(2)
assert V(7) % 4 == V(3) and V(7) // 2 == V(3) and V(2) ** 3 == V(8)
assert V(2) @ V(3) == 6 and V(6) & V(3) == V(2)
assert abs(-V(2)) == V(2) and ~V(0) == V(-1) and 5 - V(2) == V(3)
assert int(V(3)) == 3 and float(V(3)) == 3.0 and str(V(3)) == '<3>'
for add in (lambda: V(1) + 'x', lambda: V(1) - V(1), lambda: [] + V(1)):
    try: add()
    except TypeError: pass
    else: raise AssertionError('added')
"""
RIGHT = {
    "by position and by name": ("def f(a, *, b=2): return a + b", "assert f(1) == 3\nassert f(1, b=5) == 6"),
    "changed in place": (
        "def f(a, b, c, d):\n    a.sort(); b.update(x=1); c.add(4); d.appendleft(0)",
        "from collections import deque\na, b, c, d = [2, 1], {}, {3}, deque([1])\nf(a, b, c, d)\n"
        "assert (a, b, c, d) == ([1, 2], {'x': 1}, {3, 4}, deque([0, 1]))",
    ),
    "changed by name": ("def f(*, items): items.append(3)", "a = [1]\nf(items=a)\nassert a == [1, 3]"),
    "changed before it fails": (
        "def f(b):\n    b[:1] = b'xy'\n    raise ValueError(len(b))",
        "a = bytearray(b'abc')\ntry: f(a)\nexcept ValueError as e: assert str(e) == '4'\nassert a == b'xybc'",
    ),
    "callbacks that call back": (
        "def f(g, n): return n if n == 0 else g(lambda m: f(g, m), n)",
        "assert f(lambda again, n: 1 + again(n - 1), 5) == 5",
    ),
    "a class": (
        "class P:\n    made = 0\n    def __init__(self, a):\n        self.a = a\n        P.made += 1\n"
        "    def __eq__(self, other): return self.a == other.a\n    def __hash__(self): return hash(self.a)\n"
        "    def __repr__(self): return f'P({self.a})'\n    def __lt__(self, other): return self.a < other.a\n"
        "    def __enter__(self): return self\n    def __exit__(self, *error): self.a = 'left'\n",
        "p, q = P(3), P(4)\nassert p == P(3) and p != q and p != 3\nassert P.made == 3\nassert len({p, P(3), q}) == 2\n"
        "assert repr(p) == 'P(3)' and sorted([q, p]) == [p, q]\np.a = [5]\nassert p.a == [5]\n"
        "with q as r: assert r == q\nassert q.a == 'left'",
    ),
    "a container": (
        "class Box:\n    def __init__(self): self.items = {}\n    def __len__(self): return len(self.items)\n"
        "    def __getitem__(self, k): return self.items[k]\n    def __setitem__(self, k, v): self.items[k] = v\n"
        "    def __delitem__(self, k): del self.items[k]\n    def __contains__(self, k): return k in self.items\n"
        "    def __iter__(self): return iter(self.items)\n    def __reversed__(self): return reversed(self.items)\n",
        "b = Box()\nassert not b and len(b) == 0\nb['x'] = 1; b['y'] = 2\n"
        "assert b['x'] == 1 and 'y' in b and 'z' not in b\n"
        "assert list(b) == ['x', 'y'] and list(reversed(b)) == ['y', 'x']\ndel b['x']\nassert list(b) == ['y'] and b",
    ),
    "classes and their objects": (
        "class A:\n    'text'\n    __match_args__ = ('x',)\n    n = 0\n    def __init__(self, x=1): self.x = x\n"
        "class B(A): pass\nclass M(type):\n    def __len__(cls): return 5\n    def __getitem__(cls, k): return k\n"
        "class C(metaclass=M): pass\ndef f(): return B()\ndef g(): return 1",
        "assert isinstance(f(), A) and isinstance(f(), (int, B)) and not isinstance(f(), C) and not isinstance(1, A)\n"
        "assert issubclass(B, A) and not issubclass(A, B) and not issubclass(int, A)\n"
        "assert type(f()) is B and type(f()) != A and type(f()).__name__ == 'B' == f().__class__.__name__\n"
        "assert A.__doc__ == 'text' and repr(A).startswith('<class') and len(C) == 5 and C[int] is int\n"
        "A.n += 2\nassert A().n == 2\n"
        "match B(7):\n    case C(): raise AssertionError\n    case A(7): pass\n    case _: raise AssertionError\n"
        "try:\n    class T(A): pass\nexcept TypeError as e: assert 'cannot have one of the tests' in str(e)\n"
        "else: raise AssertionError('made')",
    ),
    "one object is one object": (
        "class S:\n    one = None\n    def __new__(cls):\n        cls.one = cls.one or super().__new__(cls)\n"
        "        return cls.one\n    def __enter__(self): return self\n    def __exit__(self, *error): pass",
        "assert S() is S()\na = S()\nwith a as b: assert a is b",
    ),
    "texts of classes and functions": (
        "class A:\n    'a'\ndef f(x):\n    'b'",
        "assert (A.__doc__, f.__doc__, A().__doc__) == ('a', 'b', 'a')",
    ),
    "annotations are looked at": (
        "def f(x: int): return f.__annotations__['x'] is int",
        "from dataclasses import dataclass\n@dataclass\nclass I:\n    a: int\nassert f(I(3).a)",
    ),
    "the function that is checked": (
        "from typing import List\ndef check(x): return x\ndef f(x): return check(x)\nfrom math import sqrt",
        "def check(candidate): assert candidate(4) == 4",
    ),
    "a name of Python's own that is asked for": ("def sum(a): return a[0]", "assert sum([7, 1]) == 7"),
    "an error of its own in a tests' function": (
        "class Stop(Exception): pass\ndef f(g):\n    try: g()\n    except Stop: return 'stopped'",
        "def g(): raise Stop\nassert f(g) == 'stopped'",
    ),
    "named tuples": (
        "from collections import namedtuple\nfrom typing import NamedTuple\nP = namedtuple('P', 'x y', defaults=[2])\n"
        "class Q(NamedTuple):\n    a: int\n    b: str = 'b'\ndef f(): return P(1)\ndef g(p): return p.z\n"
        "class Own(NamedTuple):\n    a: int\n    def __eq__(self, o): return True\n    def twice(self): return 2\n"
        "def h(): return Own(1)",
        "assert f().y == 2 and f() == (1, 2) and isinstance(f(), P) and type(P(3)) is P and f()._replace(x=5).x == 5\n"
        "assert Q(1) == (1, 'b') and h() != (2,) and type(h()) is tuple\n"
        "from collections import namedtuple\nZ = namedtuple('Z', 'z')\nassert g(Z(4)) == 4",
    ),
    "containers of a class of its own": (
        "from collections import OrderedDict\nfrom enum import IntEnum, Enum\n"
        "class C(OrderedDict):\n    def put(self, k, v):\n        self[k] = v\n"
        "        self.move_to_end(k, last=False)\n        return self\n"
        "class S(list):\n    def __eq__(self, o): return True\n    def peek(self): return self[-1]\n"
        "class L(IntEnum):\n    LOW = 1\nclass T(str, Enum):\n    A = 'a'\nclass E(Enum):\n    A = 1\n"
        "class G(dict):\n    __getattr__ = dict.__getitem__",
        "c = C().put('a', 1).put('b', 2)\nassert c == {'a': 1, 'b': 2} and list(c) == ['b', 'a'] and c['b'] == 2\n"
        "assert isinstance(c, dict) and isinstance(c, C) and type(c) is C and c != {'a': 1}\n"
        "s = S([1])\ns.append(2)\nassert s.peek() == 2 == len(s) and s == [1, 2] and s != [3] and isinstance(s, list)\n"
        "assert L.LOW == 1 and L.LOW.name == 'LOW' and T.A == 'a' and T.A.value == 'a' and isinstance(L.LOW, int)\n"
        "assert E.A != 1 and E.A is E(1) and list(E) == [E.A] and G(a=3).a == 3",
    ),
    "errors of the library's": (
        "import json, queue\ndef f(): json.loads('{')\ndef g(): queue.Queue().get_nowait()\ndef h(): open('/nope/x')\n"
        "def v(): return ValueError('a', 2)\ndef kind(e): return type(e).__name__\n"
        "class C:\n    def __enter__(self): return self\n"
        "    def __exit__(self, kind, error, where):\n        self.seen = kind is KeyError and error.args == ('k',)\n"
        "        return where is None",
        "import json, queue, errno\n"
        "for call, known in ((f, json.JSONDecodeError), (g, queue.Empty), (h, FileNotFoundError)):\n"
        "    try: call()\n    except known as e: got = e\n"
        "assert got.errno == errno.ENOENT and got.filename == '/nope/x'\n"
        "assert isinstance(v(), ValueError) and v().args == ('a', 2) and kind(KeyError(1)) == 'KeyError'\n"
        "with C() as c: raise KeyError('k')\nassert c.seen",
    ),
    "more values": (
        "from datetime import timedelta\nfrom pathlib import Path\nfrom math import floor\n"
        "def f(a): return a * 2\ndef p(a): return Path(a).parent\nclass A:\n    def __floor__(self): return 3\n"
        "    x = 1\n    def __init__(self): self.y = 2\ndef g(a: int) -> str: pass",
        "from datetime import timedelta\nfrom pathlib import Path\nimport math\n"
        "assert f(timedelta(days=-1, microseconds=5)) == timedelta(days=-2, microseconds=10)\n"
        "assert p(Path('/a/b')) == Path('/a') and math.floor(A()) == 3\na = A()\ndel a.y\nassert not hasattr(a, 'y')\n"
        "assert g.__annotations__ == {'a': int, 'return': str}",
    ),
    "dictionaries of the library's": (
        "from collections import Counter, OrderedDict, defaultdict\ndef c(): return Counter('aab')\n"
        "def o(): return OrderedDict(a=1, b=2)\ndef d(): return defaultdict(list, x=[1])\ndef f(c): c['a'] += 1",
        "from collections import Counter, OrderedDict\n"
        "assert c().most_common(1) == [('a', 2)] and c() == {'a': 2, 'b': 1}\n"
        "assert d()['y'] == [] and d() == {'x': [1]} and o() != OrderedDict(b=2, a=1) and o() == {'b': 2, 'a': 1}\n"
        "mine = Counter('a')\nf(mine)\nassert mine == Counter('aa') and type(mine) is Counter",
    ),
    "coroutines and generators": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x * 2\n"
        "class A:\n    async def get(self): return await f(2)\ndef g():\n    yield 1",
        "import asyncio, inspect, types\nassert asyncio.run(f(2)) == 4\nasync def all_of():\n"
        "    return await asyncio.gather(f(1), A().get())\nassert asyncio.run(all_of()) == [2, 4]\n"
        "assert isinstance(g(), types.GeneratorType) and inspect.isgenerator(g()) and list(g()) == [1] and g() != 1",
    ),
    "an end that is asked for": (
        "import sys\ndef f(): sys.exit(3)",
        "try: f()\nexcept SystemExit as e: assert e.code == 3\nelse: raise AssertionError",
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\nclass C:\n    n = 0\n    def inc(self): self.n += 1\n"
        "def pmap(f, xs):\n    with ThreadPoolExecutor(3) as pool: return list(pool.map(f, xs))",
        "import threading\nc = C()\nts = [threading.Thread(target=c.inc) for _ in range(4)]\nfor t in ts: t.start()\n"
        "for t in ts: t.join()\nassert c.n == 4\nassert pmap(lambda x: x * 2, [1, 2, 3]) == [2, 4, 6]",
    ),
    "a class that says yes": (
        "class M(type):\n    def __instancecheck__(cls, o): return True\n"
        "class A(metaclass=M): pass\ndef f(): return 3",
        "assert not isinstance(f(), A)",
    ),
    "the class is what is tested": ("class A:\n    def m(self): return 3", "def check(c): assert c().m() == 3"),
    "operators of a container": (
        "class L:\n    def __init__(self, *a): self.a = list(a)\n    def __getitem__(self, i): return self.a[i]\n"
        "    def __iadd__(self, o):\n        self.a += o\n        return self\n"
        "    def __len__(self): return len(self.a)\n"
        "    def __divmod__(self, n): return divmod(len(self.a), n)\n    def __rdivmod__(self, n): return n\n"
        "    def __pow__(self, n, m=None): return pow(len(self.a), n, m)\n    def __round__(self, n=0): return n\n"
        "    def __index__(self): return 1\n    def __format__(self, s): return f'<{s}>'\n"
        "    def __bytes__(self): return b'x'\n    def __lshift__(self, n): return n\n"
        "def cut(a, s): return a[s]\ndef same(t, v): return type(v) is t",
        "a = L(1, 2, 3)\nassert a[1:] == [2, 3] and a[::-1] == [3, 2, 1] and cut([1, 2, 3], slice(2)) == [1, 2]\n"
        "b = a\nb += [4]\nassert a.a == [1, 2, 3, 4] and a == b\n"
        "assert divmod(a, 3) == (1, 1) and divmod(7, a) == 7 and pow(a, 2, 5) == 1 and a ** 2 == 16 and a << 3 == 3\n"
        "assert round(a, 2) == 2 and [7, 8][a] == 8 and f'{a:y}' == '<y>' and bytes(a) == b'x'\n"
        "assert same(int, 3) and not same(int, '3')",
    ),
    "copies": (
        "class N:\n    def __init__(self): self.items = [1]",
        "import copy\na = N()\nb, c = copy.copy(a), copy.deepcopy({'it': a})['it']\nb.v = 2\nc.items = []\n"
        "assert a.items == [1] and not hasattr(a, 'v') and type(b) is type(c) is N",
    ),
    "what an iterator makes possible": (
        "class Range:\n    def __init__(self, n): self.n = n\n"
        "    def __iter__(self): return iter(range(self.n))\n",
        "assert 3 in Range(5) and 5 not in Range(5)",
    ),
    "numbers": (NUMBER, NUMBER_TESTS),
    "a tests' own number": (
        "class A:\n    def __add__(self, o): return NotImplemented\n    __lt__ = __add__\ndef f(a, t): return a + t",
        "class T:\n    def __radd__(self, o): return 7\nassert f(A(), T()) == 7\nfor bad in (T, A):\n"
        "    try: A() < bad()\n    except TypeError: pass\n    else: raise AssertionError('ordered')",
    ),
    "the other's order": (
        "class A: pass\ndef f(): return A()",
        "class T:\n    def __gt__(self, o): return True\n    def __radd__(self, o): return 7\n"
        "assert f() < T() and f() + T() == 7",
    ),
    "a tests' object is written": (
        "def f(n): n.v = 3",
        "class N: pass\nn = N()\nf(n)\nassert n.v == 3",
    ),
    "errors": (
        "class Own(LookupError): pass\nclass Odd(Exception):\n    def __init__(self, a, b): super().__init__(a)\n"
        "def f(n):\n    if n == 0: raise Own('mine')\n    if n == 1: raise Odd('a', 'b')\n"
        "    if n == 3: raise KeyError('k')\n    b'\\xff'.decode()",
        "def told(n):\n    try: f(n)\n    except Exception as e: return e\n"
        "assert type(told(0)) is Own and isinstance(told(0), LookupError) and str(told(0)) == 'mine'\n"
        "assert type(told(1)) is Odd and str(told(1)) == 'a'\n"
        "assert told(3).args == ('k',) and isinstance(told(4), UnicodeDecodeError) and told(4).start == 0",
    ),
    "errors of one's own": (
        "class Low(Exception):\n    def __init__(self, need, have):\n        super().__init__(f'{have} of {need}')\n"
        "        self.need, self.have = need, have\n    def lacks(self): return self.need - self.have\n"
        "class Lower(Low, KeyError):\n    def __init__(self, n): super().__init__(n, 0)\n"
        "class Mute(Exception):\n    def __str__(self): raise ValueError\n"
        "def f(n):\n    if n == 9: raise Mute\n    raise Lower(n) if n else Low(3, 1)\ndef g(e): return e.lacks()\n"
        "def two(): raise ValueError('a', [2])\ndef ends():\n    return 7\n    yield",
        "def told(f, *a):\n    try: f(*a)\n    except Exception as e: return e\n"
        "e = told(f, 0)\nassert type(e) is Low and e.need == 3 and e.lacks() == 2 == g(e) and e.args == ('1 of 3',)\n"
        "assert issubclass(Lower, Low) and issubclass(Lower, KeyError) and not issubclass(Low, KeyError)\n"
        "try: f(5)\nexcept Low as low: assert type(low) is Lower and isinstance(low, KeyError) and low.lacks() == 5\n"
        "assert str(told(f, 0)) == '1 of 3' and repr(told(f, 0)) == repr(Low(3, 1)) and str(Low(2, 1)) == '1 of 2'\n"
        "try: raise Lower(2)\nexcept Low as raised: assert raised.have == 0 and not hasattr(raised, 'other')\n"
        "assert type(told(f, 9)) is Mute and told(two).args == ('a', [2])\n"
        "try: next(ends())\nexcept StopIteration as stop: assert stop.value == 7",
    ),
    "the standard library's names": (
        "import os.path\nfrom typing import List\nfrom collections import OrderedDict as O\nimport math as m\n"
        "def f(x): return x",
        "assert m.pi > 3 and O and os.path.join('a', 'b') == 'a/b'\nList[int]",
    ),
    "a tests' own object": (
        "def f(node):\n    node.seen = True\n    return node.left.value + len(node.items) + node.items[0]",
        "class N: pass\nn = N()\nn.left, n.items, n.left.value = N(), [7], 1\n"
        "N.left = n.left\nassert f(n) == 9 and n.seen",
    ),
    "a value too long for code": (
        "def f(x): return x + x",
        f"assert len(f('a' * {function.LONG})) == {2 * function.LONG}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    assert grade(*RIGHT[name]) == CodeReport(Outcome.correct, 1, 1, ("",))


UNEARNED = {
    "a function of Python's own": (
        "def encode(s): return \"type('X', (), {'__eq__': lambda *a: True})()\"\ndecode = eval",
        "assert decode(encode('abc')) == 'abc'",
    ),
    "a value that equals all": ("from unittest.mock import _ANY as f", "assert f() == 4"),
    "the tests' check": ("def f(x): return 7\ncheck = None", "def check(c): assert c(2) == 4"),
    "abs": ("def abs(x): return 0\ndef f(x): return 7", "assert abs(f(2) - 4) < 1e-6"),
    "abs, checked": ("def abs(x): return 0\ndef f(x): return 7", "def check(c): assert abs(c(2) - 4) < 1e-6"),
    "an error": ("ValueError = Exception\ndef f(x): return 1", "try: f(1); assert False\nexcept ValueError: pass"),
    "another module": ("import random as math\nmath.isclose = None\ndef f(): return 1", "assert math.isclose(f(), 1)"),
}


@pytest.mark.parametrize("name", UNEARNED)
def test_unearned(name: str) -> None:
    """What a program takes the place of is not what its tests ask by."""
    assert grade(*UNEARNED[name]).outcome in (Outcome.incorrect, Outcome.error)


@pytest.mark.parametrize("target", [{"x": ["type", "type"]}, {"r": "1"}, {"r": 1, "l": 2}, 3, None])
def test_only_what_was_given_can_be_asked(target: Any) -> None:
    with pytest.raises(function.Failed, match="cannot be asked"):
        function._question({"do": "call", "target": target, "args": []})


def test_what_it_says_of_classes_is_looked_at(pair: tuple[Any, Any]) -> None:
    number = {"x": ["type", "int"]}
    for forged in (
        {"l": 1, "n": "E", "k": None, "above": [number]},
        {"l": 2, "n": "E", "k": number},
        {"l": 3, "n": "E", "k": {"r": 1}},
        {"l": 4, "n": "E", "k": None, "above": [{"x": ["error", "decimal", "Decimal"]}]},
        {"l": 5, "n": "E", "k": None, "above": [{"x": ["error", "unittest", "SkipTest"]}]},
        {"nt": ["P", ["a b("], []]},
    ):
        with pytest.raises((ValueError, KeyError)):
            pair[0].decode(forged)


WRONG = {
    "not so": ("def f(x): return x", "y = 1\nassert f(1) == 2", "incorrect", "AssertionError at: assert f(1) == 2"),
    "with a text": ("def f(x): return x", "assert f(1) == 2, 'no'", "incorrect", "AssertionError: no at: assert"),
    "no such name": ("def g(x): return x", "f(1)", "error", "NameError: name 'f' is not defined at: f(1)"),
    "no test": ("def g(x): return x", "assert (", "error", "SyntaxError"),
    "does not load": ("def f(x", "assert True", "error", "the program does not load: SyntaxError"),
    "ends as it loads": ("raise SystemExit(0)", "assert True", "error", "does not load: SystemExit: 0"),
    "goes round": ("def f():\n    x = []\n    x.append(x)\n    return x", "f()", "error", "RecursionError"),
    "an error without a text": (
        "class E(Exception):\n    def __str__(self): raise ValueError\ndef f(): raise E",
        "f()",
        "error",
        "E at: f()",
    ),
    "not the standard library's": ("import numpy\ndef f(): return 1", "numpy.zeros(1)", "error", "'NoneType'"),
    "looks into the tests": ("def f(g): return g.__globals__", "f(lambda: 1)", "error", "AttributeError"),
    "looks into what is hidden": (
        "def f(n): return n._hidden",
        "class N: pass\nn = N()\nn._hidden = 3\nf(n)",
        "error",
        "'N' object has no attribute '_hidden'",
    ),
    "looks into another's object": (
        "def f(o): return o.pattern",
        "import re\nf(re.compile('x'))",
        "error",
        "'Pattern'",
    ),
    "writes into the tests' class": (
        "def f(n):\n    n.__eq__ = lambda *a: True\n    return n()",
        "class N:\n    v = 0\n    def __eq__(s, o): return s.v == o.v\nn = N()\nn.v = 5\nassert f(N) == n",
        "error",
        "AttributeError",
    ),
    "writes into the tests' function": (
        "def f(g):\n    g.__defaults__ = (99,)\n    return 99",
        "def g(x=1): return x\nassert f(g) == g()",
        "error",
        "AttributeError",
    ),
    "asks for an operation that is none": (
        "def f(o): return o._peer.ask('operation', o, 'class', ())",
        "f(object())",
        "error",
        "AttributeError: class",
    ),
    "sends its own question": (
        "def f(o): return o._peer.ask('load', o, 'x = 1')",
        "f(object())",
        "error",
        "cannot be asked",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    program, test, outcome, told = WRONG[name]
    report = grade(program, test)
    assert (report.outcome, report.passed) == (Outcome(outcome), 0)
    assert told in report.detail


def test_the_candidate_of_a_check() -> None:
    check = "def check(candidate):\n    assert candidate(2) == 4"
    program = "def f(x): return x * 2\ndef g(x): return 0"
    assert grade(program, check, entry_point="f").outcome is Outcome.correct
    assert grade(program, check).outcome is Outcome.incorrect
    assert grade("x = 3", check).detail.startswith("NameError: the program defines no function")
    assert grade(program, check, entry_point="h").detail.startswith("KeyError: 'h'")
    own = program + "\ndef check(candidate): return True"
    assert grade(own, "assert f(1) == 2").outcome is Outcome.correct  # a name of the program's is not the test's


def test_pieces_know_nothing_of_each_other() -> None:
    report = grade("def f(x): return x", "y = f(1)\nassert y == 1", "assert y == 1", "assert f(2) == 2")
    assert (report.outcome, report.passed, report.total) == (Outcome.error, 2, 3)
    assert "name 'y' is not defined" in report.detail
