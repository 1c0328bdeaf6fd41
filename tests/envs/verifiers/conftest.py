"""A judge on loopback that speaks the protocol and answers as a test says."""

from __future__ import annotations

from tests.endpoint_server import serve as serve
