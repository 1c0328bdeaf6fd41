"""The stream of an attached container, taken apart: the engine's packets, and the supervisor's frames in them."""

from __future__ import annotations

import struct
from typing import Any

from agentgym.sandboxes.local.jail.wire import HEADER, Garbled, parse, sizes

PACKET = struct.Struct(">BxxxI")
"""Which stream (1 stdout, 2 stderr) and how many bytes follow."""
KEPT = 4096
"""Bytes of stderr, where the supervisor says why it failed."""


class Incoming:
    """Fed with bytes as they come, gives whole frames. It trusts the engine, and nothing inside the packets.

    limit: bytes that a frame may have.
    """

    def __init__(self, limit: int = 1 << 20):
        self.limit = limit
        self.errors = b""
        self._raw = bytearray()
        self._out = bytearray()
        self._left, self._stream = 0, 0

    def feed(self, data: bytes) -> None:
        self._raw += data
        while self._raw:
            if not self._left:
                if len(self._raw) < PACKET.size:
                    return
                self._stream, self._left = PACKET.unpack(bytes(self._raw[: PACKET.size]))
                del self._raw[: PACKET.size]
            part = bytes(self._raw[: self._left])
            del self._raw[: len(part)]
            self._left -= len(part)
            if self._stream == 1:
                self._out += part
            else:
                self.errors = (self.errors + part)[-KEPT:]

    def frame(self) -> tuple[dict[str, Any], bytes] | None:
        """The next frame; None where it has not come wholly. Raises `Garbled`."""
        if len(self._out) < HEADER.size:
            return None
        text, payload = sizes(bytes(self._out[: HEADER.size]))
        end = HEADER.size + text + payload
        if end > self.limit:
            raise Garbled("a frame that is too large")
        if len(self._out) < end:
            return None
        body = bytes(self._out[HEADER.size : end])
        del self._out[:end]
        return parse(body[:text]), body[text:]
