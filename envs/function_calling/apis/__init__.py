"""The APIs of BFCL's conversations, one a file, written from their function docs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from agentgym.envs.function_calling.apis.base import Api

_HOME = "agentgym.envs.function_calling.apis"
WRITTEN: Mapping[str, str] = {
    "GorillaFileSystem": "gorilla_file_system:GorillaFileSystem",
    "MathAPI": "math_api:MathApi",
    "MessageAPI": "message_api:MessageApi",
    "TwitterAPI": "posting_api:PostingApi",
    "TicketAPI": "ticket_api:TicketApi",
    "TradingBot": "trading_bot:TradingBot",
    "TravelAPI": "travel_booking:TravelBooking",
    "VehicleControlAPI": "vehicle_control:VehicleControl",
}
"""Name in the rows -> where its class is."""


def api_class(name: str) -> type[Api]:
    """The class of an API; raises `ValueError` for one that is not written."""
    if name not in WRITTEN:
        raise ValueError(f"the API {name!r} is not written here (there are: {', '.join(WRITTEN)})")
    module, _, attribute = WRITTEN[name].partition(":")
    found: type[Api] = getattr(import_module(f"{_HOME}.{module}"), attribute)
    return found
