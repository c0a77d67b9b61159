"""Read-only views of what is stored, under the names that programs written for the older API use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memori.storage.choose import AnyStorage

__all__ = ["ConversationView", "Driver", "MessageView"]


class MessageView:
    """``driver.conversation.messages``."""

    def __init__(self, storage: AnyStorage) -> None:
        self._storage = storage

    def read(self, conversation_id: int) -> list[dict[str, str]]:
        """Return role and content of a conversation's messages, in order; none when there is no such conversation."""
        return self._storage.said_in(conversation_id)


class ConversationView:
    """``driver.conversation``: a conversation is a session, its id that of the row in ``memori_session``."""

    def __init__(self, storage: AnyStorage) -> None:
        self._storage = storage
        self.messages = MessageView(storage)

    def read(self, conversation_id: int) -> dict[str, Any] | None:
        """Return a conversation's id, uuid, entity, process and times; None when there is no such conversation."""
        return self._storage.conversation(conversation_id)


class Driver:
    """``mem.config.storage.driver``."""

    def __init__(self, storage: AnyStorage) -> None:
        self.conversation = ConversationView(storage)
