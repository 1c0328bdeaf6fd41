"""Frames on a stream: 4 bytes of length, 4 of a payload's length, JSON, payload. Never pickle: the other side lies."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

HEADER = struct.Struct("=II")
MAX_JSON, MAX_PAYLOAD = 1 << 20, 1 << 28


class Garbled(Exception):
    """What came is no frame."""


def pack(message: Mapping[str, Any], payload: bytes = b"") -> bytes:
    text = json.dumps(message).encode()
    return HEADER.pack(len(text), len(payload)) + text + payload


def sizes(header: bytes) -> tuple[int, int]:
    text, payload = HEADER.unpack(header)
    if text > MAX_JSON or payload > MAX_PAYLOAD:
        raise Garbled("a frame that is too large")
    return text, payload


def parse(text: bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Garbled("a frame that is no JSON") from None
    if not isinstance(message, dict):
        raise Garbled("a frame that is no object")
    return message


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next frame, waiting for it; None at the end of the stream."""
    header = _exactly(connection, HEADER.size)
    if header is None:
        return None
    text, payload = sizes(header)
    body = _exactly(connection, text + payload)
    return None if body is None else (parse(body[:text]), body[text:])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
