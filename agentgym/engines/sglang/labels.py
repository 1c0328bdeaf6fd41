"""Policy versions as a server's names for weights (`weight_version`), and back."""

from __future__ import annotations

import re
import uuid

FORM = re.compile(r"v(\d+)-[0-9a-f]{8}")


class Labels:
    """`first` is what the server called its weights when it was met: those of version `version`.

    An earlier run may have left a label of the same version on a server, with other weights: hence each client marks
    its own. A label of another client of the same run is understood by its form.
    """

    def __init__(self, first: str, version: int):
        self._first, self._version = first, version
        self._mark = uuid.uuid4().hex[:8]

    def of(self, version: int) -> str:
        return f"v{version}-{self._mark}"

    def version(self, label: str) -> int:
        """Raises `ValueError` for weights that no run of this project has sent."""
        if label == self._first:
            return self._version
        found = FORM.fullmatch(label)
        if found is None:
            raise ValueError(f"the server runs weights labelled {label!r}, which this run has not sent")
        return int(found[1])
