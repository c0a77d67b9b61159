"""Read-only views of what is stored, under the names that programs written for the older API use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from memori.schema.tables import entity, message, process, session

if TYPE_CHECKING:
    from memori.storage.sql import SQLStorage

__all__ = ["ConversationView", "Driver", "MessageView"]


class MessageView:
    """``driver.conversation.messages``."""

    def __init__(self, storage: SQLStorage) -> None:
        self._storage = storage

    def read(self, conversation_id: int) -> list[dict[str, str]]:
        """Return role and content of a conversation's messages, in order; none when there is no such conversation."""
        query = (
            select(message.c.role, message.c.content)
            .where(message.c.session_id == conversation_id)
            .order_by(message.c.position)
        )
        return [{"role": row.role, "content": row.content} for row in self._storage.read(query)]


class ConversationView:
    """``driver.conversation``: a conversation is a session, its id that of the row in ``memori_session``."""

    def __init__(self, storage: SQLStorage) -> None:
        self._storage = storage
        self.messages = MessageView(storage)

    def read(self, conversation_id: int) -> dict[str, Any] | None:
        """Return a conversation's id, uuid, entity, process and times; None when there is no such conversation."""
        query = (
            select(
                session.c.id,
                session.c.uuid,
                session.c.id.label("session_id"),
                entity.c.external_id.label("entity_id"),
                process.c.external_id.label("process_id"),
                session.c.started_at.label("date_created"),
                session.c.last_active_at.label("date_updated"),
            )
            .join(entity, entity.c.id == session.c.entity_id)
            .outerjoin(process, process.c.id == session.c.process_id)
            .where(session.c.id == conversation_id)
        )
        return next((dict(row._mapping) for row in self._storage.read(query)), None)


class Driver:
    """``mem.config.storage.driver``."""

    def __init__(self, storage: SQLStorage) -> None:
        self.conversation = ConversationView(storage)
