"""A company's support tickets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgym.envs.function_calling.apis.base import Api, RefusedError

_FIELDS = ("title", "description", "status", "priority")


class TicketApi(Api):
    name = "TicketAPI"
    docs = "ticket_api"

    def load(self, config: dict[str, Any]) -> None:
        self.ticket_queue: list[dict[str, Any]] = config.get("ticket_queue", [])
        if not isinstance(self.ticket_queue, list):
            raise ValueError("TicketAPI: ticket_queue: expected a list")
        self.ticket_counter = int(config.get("ticket_counter", 1))
        self.current_user: str | None = config.get("current_user")

    def ticket_login(self, username: str, password: str) -> dict[str, Any]:
        if not username or not password:
            return {"success": False}
        self.current_user = username
        return {"success": True}

    def ticket_get_login_status(self) -> dict[str, Any]:
        return {"login_status": self.current_user is not None}

    def logout(self) -> dict[str, Any]:
        was_in = self.current_user is not None
        self.current_user = None
        return {"success": was_in}

    def create_ticket(self, title: str, description: str = "", priority: int = 1) -> dict[str, Any]:
        me = self._me()
        if not 1 <= priority <= 5:
            raise RefusedError("priority must be from 1 to 5")
        ticket = {
            "id": self.ticket_counter,
            "title": title,
            "description": description,
            "status": "Open",
            "priority": priority,
            "created_by": me,
        }
        self.ticket_queue.append(ticket)
        self.ticket_counter += 1
        return dict(ticket)

    def get_ticket(self, ticket_id: int) -> dict[str, Any]:
        return dict(self._ticket(ticket_id))

    def get_user_tickets(self, status: str | None = None) -> dict[str, Any]:
        me = self._me()
        mine = [ticket for ticket in self.ticket_queue if ticket.get("created_by") == me]
        if status not in (None, "None"):
            mine = [ticket for ticket in mine if str(ticket.get("status", "")).lower() == str(status).lower()]
        return {"tickets": mine}

    def edit_ticket(self, ticket_id: int, updates: Mapping[str, Any]) -> dict[str, Any]:
        ticket = self._ticket(ticket_id)
        if unknown := [key for key in updates if key not in _FIELDS]:
            raise RefusedError(f"cannot change {', '.join(unknown)}: give {', '.join(_FIELDS)}")
        ticket.update(updates)
        return {"status": f"ticket {ticket_id} was updated"}

    def close_ticket(self, ticket_id: int) -> dict[str, Any]:
        ticket = self._ticket(ticket_id)
        if ticket.get("status") == "Closed":
            raise RefusedError(f"ticket {ticket_id} is closed already")
        ticket["status"] = "Closed"
        return {"status": f"ticket {ticket_id} was closed"}

    def resolve_ticket(self, ticket_id: int, resolution: str) -> dict[str, Any]:
        ticket = self._ticket(ticket_id)
        if ticket.get("status") == "Resolved":
            raise RefusedError(f"ticket {ticket_id} is resolved already")
        ticket.update(status="Resolved", resolution=resolution)
        return {"status": f"ticket {ticket_id} was resolved"}

    def _me(self) -> str:
        if self.current_user is None:
            raise RefusedError("no user is logged in")
        return self.current_user

    def _ticket(self, ticket_id: int) -> dict[str, Any]:
        for ticket in self.ticket_queue:
            if ticket.get("id") == ticket_id:
                return ticket
        raise RefusedError(f"there is no ticket {ticket_id}")
