"""What validation found: one finding a check, one report an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Value: TypeAlias = bool | Literal["na"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict: True it holds, False it does not, "na" it says nothing here. `why` tells the reason."""

    value: Value
    why: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one environment. `warnings` are what `strict` does not let pass."""

    id: str
    findings: Mapping[str, Finding]
    warnings: tuple[str, ...] = ()
    strict: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that do not hold."""
        return tuple(name for name, finding in self.findings.items() if finding.value is False)

    @property
    def ok(self) -> bool:
        return not self.failed and not (self.strict and self.warnings)

    def to_json(self) -> dict[str, Any]:
        """{check: true | false | "na", ..., "details": {check: {"why", figures}}, "warnings", "ok", "seconds"}."""
        return {
            "id": self.id,
            "ok": self.ok,
            **{name: finding.value for name, finding in self.findings.items()},
            "details": {name: {"why": f.why, **f.figures} for name, f in self.findings.items()},
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 2),
        }

    def told(self) -> str:
        """What is wrong, a line each."""
        lines = [f"{name}: {self.findings[name].why}" for name in self.failed]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])
