"""Policy versions as a server's names for weights (`weight_version`), and back."""

from __future__ import annotations

import re
import uuid

from agentgym.errors import EngineGone

FORM = re.compile(r"v(\d+)-([0-9a-f]{8})")


class UnknownWeights(EngineGone):
    """A server runs weights that this run has not sent: it was started anew, and nobody has brought it those of now."""


class Labels:
    """`first` is what the server called its weights when it was met: those of version `version`; empty: unknown.

    An earlier run may have left a label of the same version on a server, with other weights: hence each client marks
    its own. A label of another client of the same run is understood by its form; where all of them share a `mark`
    (`new_mark`), by that alone.
    """

    def __init__(self, first: str, version: int, mark: str = ""):
        self._first, self._version = first, version
        self._mark, self._shared = mark or new_mark(), bool(mark)

    def of(self, version: int) -> str:
        return f"v{version}-{self._mark}"

    def version(self, label: str) -> int:
        """Raises `UnknownWeights` for those that no run of this project has sent; of a shared mark, this run."""
        if label and label == self._first:
            return self._version
        found = FORM.fullmatch(label)
        if found is None or (self._shared and found[2] != self._mark):
            raise UnknownWeights(f"it runs weights labelled {label!r}, which this run has not sent")
        return int(found[1])


def new_mark() -> str:
    return uuid.uuid4().hex[:8]
