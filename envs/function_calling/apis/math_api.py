"""Arithmetic, statistics and units. It has no state."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

from agentgym.envs.function_calling.apis.base import Api, RefusedError

_PREFIXES = {"k": 1e3, "h": 1e2, "da": 1e1, "": 1.0, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "μ": 1e-6, "n": 1e-9}
_SI = ("meter", "metre", "gram", "liter", "litre", "second", "watt", "joule", "m", "g", "l", "L", "s", "W", "J")
_LONG = {"kilo": 1e3, "hecto": 1e2, "deca": 1e1, "deci": 1e-1, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6}
_IMPERIAL: dict[tuple[str, str], Callable[[float], float]] = {
    ("cm", "in"): lambda x: x / 2.54,
    ("m", "ft"): lambda x: x / 0.3048,
    ("m", "yd"): lambda x: x / 0.9144,
    ("km", "miles"): lambda x: x / 1.609344,
    ("kg", "lb"): lambda x: x / 0.45359237,
    ("g", "oz"): lambda x: x / 28.349523125,
    ("l", "gal"): lambda x: x / 3.785411784,
    ("celsius", "fahrenheit"): lambda x: x * 9 / 5 + 32,
    ("in", "cm"): lambda x: x * 2.54,
    ("ft", "m"): lambda x: x * 0.3048,
    ("yd", "m"): lambda x: x * 0.9144,
    ("miles", "km"): lambda x: x * 1.609344,
    ("lb", "kg"): lambda x: x * 0.45359237,
    ("oz", "g"): lambda x: x * 28.349523125,
    ("gal", "l"): lambda x: x * 3.785411784,
    ("fahrenheit", "celsius"): lambda x: (x - 32) * 5 / 9,
}
_SAME = {"mile": "miles", "mi": "miles", "inch": "in", "inches": "in", "feet": "ft", "foot": "ft", "yard": "yd"}
_SAME |= {"yards": "yd", "pound": "lb", "pounds": "lb", "lbs": "lb", "ounce": "oz", "ounces": "oz", "gallon": "gal"}
_SAME |= {"gallons": "gal", "L": "l", "liter": "l", "liters": "l", "litre": "l", "litres": "l", "°C": "celsius"}
_SAME |= {"C": "celsius", "°F": "fahrenheit", "F": "fahrenheit"}
_MOST_DIGITS = 1000


class MathApi(Api):
    name = "MathAPI"
    docs = "math_api"

    def load(self, config: dict[str, Any]) -> None:
        pass

    def absolute_value(self, number: float) -> dict[str, Any]:
        return {"result": abs(number)}

    def add(self, a: float, b: float) -> dict[str, Any]:
        return {"result": a + b}

    def subtract(self, a: float, b: float) -> dict[str, Any]:
        return {"result": a - b}

    def multiply(self, a: float, b: float) -> dict[str, Any]:
        return {"result": a * b}

    def divide(self, a: float, b: float) -> dict[str, Any]:
        if b == 0:
            raise RefusedError("cannot divide by zero")
        return {"result": a / b}

    def power(self, base: float, exponent: float) -> dict[str, Any]:
        try:
            result = math.pow(base, exponent)
        except (OverflowError, ValueError) as e:
            raise RefusedError(f"cannot raise {base} to {exponent}: {e}") from None
        return {"result": int(result) if result.is_integer() and abs(result) < 1e15 else result}

    def round_number(self, number: float, decimal_places: int = 0) -> dict[str, Any]:
        return {"result": round(number, decimal_places)}

    def percentage(self, part: float, whole: float) -> dict[str, Any]:
        if whole == 0:
            raise RefusedError("the whole cannot be zero")
        return {"result": part / whole * 100}

    def logarithm(self, value: float, base: float, precision: int) -> dict[str, Any]:
        if value <= 0 or base <= 0 or base == 1:
            raise RefusedError("value and base must be above 0, and the base not 1")
        with localcontext() as context:
            context.prec = _digits(precision)
            return {"result": float(Decimal(str(value)).ln() / Decimal(str(base)).ln())}

    def square_root(self, number: float, precision: int) -> dict[str, Any]:
        if number < 0:
            raise RefusedError("cannot take the square root of a negative number")
        with localcontext() as context:
            context.prec = _digits(precision)
            return {"result": float(Decimal(str(number)).sqrt())}

    def mean(self, numbers: list[float]) -> dict[str, Any]:
        return {"result": sum(numbers) / len(_some(numbers))}

    def standard_deviation(self, numbers: list[float]) -> dict[str, Any]:
        middle = sum(numbers) / len(_some(numbers))
        return {"result": math.sqrt(sum((x - middle) ** 2 for x in numbers) / len(numbers))}

    def max_value(self, numbers: list[float]) -> dict[str, Any]:
        return {"result": max(_some(numbers))}

    def min_value(self, numbers: list[float]) -> dict[str, Any]:
        return {"result": min(_some(numbers))}

    def sum_values(self, numbers: list[float]) -> dict[str, Any]:
        return {"result": sum(_some(numbers))}

    def si_unit_conversion(self, value: float, unit_in: str, unit_out: str) -> dict[str, Any]:
        (base_in, factor_in), (base_out, factor_out) = _si(unit_in), _si(unit_out)
        if base_in != base_out:
            raise RefusedError(f"cannot convert {unit_in} to {unit_out}")
        return {"result": value * factor_in / factor_out}

    def imperial_si_conversion(self, value: float, unit_in: str, unit_out: str) -> dict[str, Any]:
        pair = (_SAME.get(unit_in, unit_in), _SAME.get(unit_out, unit_out))
        if pair not in _IMPERIAL:
            raise RefusedError(f"cannot convert {unit_in} to {unit_out}")
        return {"result": _IMPERIAL[pair](value)}


def _some(numbers: list[float]) -> list[float]:
    if not numbers:
        raise RefusedError("the list of numbers is empty")
    return numbers


def _digits(precision: int) -> int:
    if not 1 <= precision <= _MOST_DIGITS:
        raise RefusedError(f"precision must be from 1 to {_MOST_DIGITS}")
    return precision


def _si(unit: str) -> tuple[str, float]:
    """An SI unit -> (base unit, factor)."""
    for prefix, factor in {**_LONG, **_PREFIXES}.items():
        if unit.startswith(prefix) and unit[len(prefix) :] in _SI:
            return unit[len(prefix) :], factor
    raise RefusedError(f"unknown unit {unit!r}")
