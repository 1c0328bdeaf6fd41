"""The experts that a server tells of: pieces of one completion's, put together."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

import numpy as np

from agentgym.engines.mixture import Mixture
from agentgym.engines.sglang.sampling import Segment
from agentgym.errors import EngineFault
from agentgym.types import Experts


@dataclass(slots=True)
class Told:
    """The experts of one completion's tokens from position `known` on, which moves on with each piece.

    A server tells int32 [tokens, layers, chosen], of all tokens that it has run: all but the last.
    """

    mixture: Mixture
    known: int
    _pieces: list[Experts] = field(default_factory=list)

    def add(self, segment: Segment, sent: int) -> None:
        """What came with a segment that went on from `sent` tokens. One that was broken off may tell of less or
        nothing: then the next is asked for its tokens, too. Raises `EngineFault` for what does not fit."""
        tokens = sent + len(segment.ids) - 1 - self.known
        layers, chosen, count = self.mixture.layers, self.mixture.chosen, self.mixture.experts
        try:
            given = np.frombuffer(base64.b64decode(segment.experts), np.int32)
        except (binascii.Error, ValueError) as e:
            raise EngineFault(f"the experts of tokens cannot be read: {e}") from None
        if given.size != tokens * layers * chosen:
            if segment.reason == "abort":
                return
            raise EngineFault(
                f"experts were asked for {tokens} tokens, {chosen} in each of {layers} layers, and {given.size} came: "
                "does the server run with --enable-return-routed-experts?"
            )
        if tokens and not 0 <= int(given.min()) <= int(given.max()) < count:
            raise EngineFault(f"experts from {given.min()} to {given.max()} were told of a model that has {count}")
        self._pieces.append(given.reshape(tokens, layers, chosen).astype(self.mixture.dtype))
        self.known += tokens

    @property
    def experts(self) -> Experts | None:
        return np.concatenate(self._pieces) if self._pieces else None
