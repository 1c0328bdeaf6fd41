"""Messages between the users of a workspace."""

from __future__ import annotations

from typing import Any

from agentgym.envs.function_calling.apis.base import Api, RefusedError

_USERS = {"Alice": "USR001", "Bob": "USR002", "Catherine": "USR003", "Daniel": "USR004"}


class MessageApi(Api):
    name = "MessageAPI"
    docs = "message_api"

    def load(self, config: dict[str, Any]) -> None:
        self.user_map: dict[str, str] = config.get("user_map", dict(_USERS))
        self.user_count = int(config.get("user_count", len(self.user_map)))
        self.inbox: list[dict[str, Any]] = _flat(config.get("inbox", []))
        self.message_count = int(config.get("message_count", len(self.inbox)))
        self.current_user: str | None = config.get("current_user")

    def list_users(self) -> dict[str, Any]:
        return {"user_list": list(self.user_map)}

    def get_user_id(self, user: str) -> dict[str, Any]:
        if user not in self.user_map:
            raise RefusedError(f"there is no user {user!r}")
        return {"user_id": self.user_map[user]}

    def message_login(self, user_id: str) -> dict[str, Any]:
        if user_id not in self.user_map.values():
            raise RefusedError(f"there is no user id {user_id!r}")
        self.current_user = user_id
        return {"login_status": True, "message": f"{user_id} is logged in"}

    def message_get_login_status(self) -> dict[str, Any]:
        return {"login_status": self.current_user is not None}

    def add_contact(self, user_name: str) -> dict[str, Any]:
        self._me()
        if user_name in self.user_map:
            raise RefusedError(f"there is a user {user_name!r} already")
        self.user_count += 1
        user_id = f"USR{self.user_count:03}"
        self.user_map[user_name] = user_id
        return {"added_status": True, "user_id": user_id, "message": f"{user_name} was added"}

    def send_message(self, receiver_id: str, message: str) -> dict[str, Any]:
        self._me()
        self._known(receiver_id)
        self.inbox.append({receiver_id: message})
        self.message_count += 1
        told = f"the message to {receiver_id} was sent"
        return {"sent_status": True, "message_id": self.message_count, "message": told}

    def delete_message(self, receiver_id: str) -> dict[str, Any]:
        self._me()
        for sent in reversed(self.inbox):
            if receiver_id in sent:
                self.inbox.remove(sent)
                told = f"the latest message to {receiver_id} was deleted"
                return {"deleted_status": True, "receiver_id": receiver_id, "message": told}
        raise RefusedError(f"there is no message to {receiver_id}")

    def view_messages_sent(self) -> dict[str, Any]:
        self._me()
        messages: dict[str, list[Any]] = {}
        for sent in self.inbox:
            for receiver, text in sent.items():
                messages.setdefault(receiver, []).append(text)
        return {"messages": messages}

    def search_messages(self, keyword: str) -> dict[str, Any]:
        self._me()
        found = [
            {"receiver_id": receiver, "message": text}
            for sent in self.inbox
            for receiver, text in sent.items()
            if keyword.lower() in str(text).lower()
        ]
        return {"results": found}

    def get_message_stats(self) -> dict[str, Any]:
        me = self._me()
        received = sum(me in sent for sent in self.inbox)
        contacts = {receiver for sent in self.inbox for receiver in sent} - {me}
        return {"stats": {"received_count": received, "total_contacts": len(contacts)}}

    def _me(self) -> str:
        if self.current_user is None:
            raise RefusedError("no user is logged in")
        return self.current_user

    def _known(self, user_id: str) -> None:
        if user_id not in self.user_map.values():
            raise RefusedError(f"there is no user id {user_id!r}")


def _flat(inbox: Any) -> list[dict[str, Any]]:
    """Messages as {receiver: text}, one each; rows write some of them nested or as lists."""
    if not isinstance(inbox, list):
        raise ValueError("MessageAPI: inbox: expected a list")
    messages: list[dict[str, Any]] = []
    for entry in inbox:
        if not isinstance(entry, dict):
            raise ValueError("MessageAPI: inbox: expected {receiver: message}")
        for receiver, said in entry.items():
            texts = [text for part in said.values() for text in part] if isinstance(said, dict) else said
            messages += [{receiver: text} for text in (texts if isinstance(texts, list) else [texts])]
    return messages
