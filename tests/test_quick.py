"""`quick`: as a frozen dataclass in all but what it costs."""

import copy
import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any

import pytest

from agentgym.quick import quick


@dataclass(frozen=True, slots=True)
class Plain:
    role: str
    content: str = ""
    parts: tuple[int, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    role: str
    content: str = ""
    parts: tuple[int, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)


GIVEN: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("a",), {}),
    (("a", "b", (1,), {"x": 1}), {}),
    (("a", "b"), {"metrics": {}}),
    ((), {"role": "a", "parts": (2,)}),
]


@pytest.mark.parametrize(("args", "kwargs"), GIVEN)
def test_it_takes_what_a_dataclass_takes(args: Any, kwargs: Any) -> None:
    plain, made = Plain(*args, **kwargs), Quick(*args, **kwargs)
    assert repr(made) == repr(plain).replace("Plain", "Quick")
    assert made == Quick(*args, **kwargs)
    assert made == copy.deepcopy(made) == pickle.loads(pickle.dumps(made))
    assert repr(replace(made, content="z")) == repr(replace(plain, content="z")).replace("Plain", "Quick")


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("a",), {"roll": 1}), (("a",), {"role": "b"}), (tuple("abcde"), {})]
)
def test_it_refuses_what_a_dataclass_refuses(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError) as plain:
        Plain(*args, **kwargs)
    with pytest.raises(TypeError) as made:
        Quick(*args, **kwargs)
    assert str(made.value) == str(plain.value).replace("Plain", "Quick")


def test_it_is_frozen() -> None:
    made = Quick("a")
    with pytest.raises(FrozenInstanceError):
        made.role = "b"  # type: ignore[misc]
    assert not hasattr(made, "__dict__")


def test_what_a_factory_makes_is_not_shared() -> None:
    assert Quick("a").metrics is not Quick("a").metrics


def test_the_parameters_keep_their_names_and_types() -> None:
    of_both = [inspect.signature(cls).parameters for cls in (Plain, Quick)]
    assert list(of_both[0]) == list(of_both[1])
    assert [p.annotation for p in of_both[0].values()] == [p.annotation for p in of_both[1].values()]


def test_a_constructor_that_does_more_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        size: int

        def __post_init__(self) -> None:
            assert self.size > 0

    with pytest.raises(TypeError, match="Checked does more"):
        quick(Checked)
