"""What the APIs of BFCL's conversations share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

SEED = 141053
"""Of the ids that an API draws where a row gives none: the rows' own calls count on those that follow from it."""


class RefusedError(Exception):
    """A call that cannot be served: its text becomes the answer `{"error": text}`."""


class Api(ABC):
    """One API of an episode. Its methods are the documented functions; its public attributes are the state that is
    compared with that of the right calls. What begins with an underscore is not compared."""

    name: ClassVar[str]
    """As rows call it."""
    docs: ClassVar[str]
    """Stem of the file that documents its functions."""

    def __init__(self, config: Mapping[str, Any]):
        """Raises `ValueError` for a configuration that the API cannot start from."""
        self.load(copy.deepcopy(dict(config)))

    @abstractmethod
    def load(self, config: dict[str, Any]) -> None:
        """Set the state that `config` describes."""

    def state(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}


def by_number(given: Any, what: str) -> dict[int, Any]:
    """A dict whose keys JSON made into texts, with its numbers back; raises `ValueError`."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{what}: expected an object")
    return {int(key) if str(key).lstrip("-").isdigit() else key: value for key, value in given.items()}
