"""What a probe found: one act seen from both sides, and a row for the whole group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["escaped", "contained", "na", "broken"]


@dataclass(frozen=True, slots=True)
class Seen:
    """How an act went on one side. broken: it could not be carried out, and so shows nothing."""

    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One act: inside the sandbox, and as a control without one, where it has to succeed."""

    act: str
    inside: Seen
    control: Seen


@dataclass(frozen=True, slots=True)
class Row:
    """A probe's outcome. A probe shows something where its status is `contained` and its control `ok`."""

    probe: int
    name: str
    status: Literal["contained", "escaped", "na"]
    control: Literal["ok", "failed", "na"]
    detail: str = ""
    """By act, how it ended inside."""
    reason: str = ""
    """Why something does not apply, or what is wrong with a control."""

    @property
    def bad(self) -> bool:
        return self.status == "escaped" or self.control == "failed"


def row(number: int, name: str, findings: Sequence[Finding]) -> Row:
    """The worst of the acts counts."""
    inside = {finding.inside.verdict for finding in findings}
    controls = {_control(finding) for finding in findings}
    reasons = [f"{f.act}: {why}" for f in findings for why in _reasons(f)]
    return Row(
        number,
        name,
        status="escaped" if "escaped" in inside else "contained" if "contained" in inside else "na",
        control="failed" if "failed" in controls else "ok" if "ok" in controls else "na",
        detail="; ".join(
            f"{f.act}: {f.inside.detail or f.inside.verdict}" for f in findings if f.inside.verdict != "na"
        ),
        reason="; ".join(reasons),
    )


def _control(finding: Finding) -> Literal["ok", "failed", "na"]:
    if finding.inside.verdict == "broken" or finding.control.verdict in ("broken", "contained"):
        return "failed"
    return "na" if finding.control.verdict == "na" else "ok"


def _reasons(finding: Finding) -> list[str]:
    told = []
    if finding.inside.verdict in ("na", "broken"):
        told.append(finding.inside.detail)
    if finding.control.verdict != "escaped" and finding.control.detail not in told:
        told.append(f"control: {finding.control.detail}")
    return told
