"""The tables: what a user of the database sees. The only file with their names; migrations create them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from memori.schema.columns import BigId, Blob, JsonText, LongText, Name, UtcDateTime

__all__ = [
    "FOREIGN_TABLES",
    "PREFIX",
    "VERSION_TABLE",
    "AugmentationJob",
    "ConversationMessage",
    "Entity",
    "EntityFact",
    "FactSource",
    "Item",
    "KnowledgeGraph",
    "Namespace",
    "NamespacePrefix",
    "Process",
    "ProcessAttribute",
    "Session",
    "attribute",
    "edge",
    "entity",
    "fact",
    "item",
    "job",
    "message",
    "metadata",
    "namespace",
    "prefix",
    "process",
    "session",
    "source",
]

PREFIX = "memori_"
VERSION_TABLE = "memori_alembic_version"
# Names that another program of this kind gives its tables, beside those that it shares with ours.
FOREIGN_TABLES = frozenset(
    {
        "memori_schema_version",
        "memori_conversation",
        "memori_entity_fact_mention",
        "memori_subject",
        "memori_predicate",
        "memori_object",
    }
)

# A registry of our own: the user's `SQLModel.metadata` must neither create nor compare these tables.
_registry = registry(
    metadata=MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
)


class _Base(SQLModel, registry=_registry):
    """A model whose table is in `metadata`."""


# Some MySQL servers still make latin1 tables, which no emoji fits into.
_OPTIONS = {
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
}


def _arguments(*parts: Any) -> Any:
    # Ids are never given twice, or `forget(fact_id=7)` could erase what took the number of a fact erased before.
    return (*parts, {**_OPTIONS, "sqlite_autoincrement": True})


def _id() -> Any:
    # Without an identity Oracle numbers nothing.
    return Field(default=None, sa_column=Column("id", BigId, Identity(), primary_key=True))


def _column(name: str, *parts: Any, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(name, *parts, nullable=nullable))


def _reference(name: str, target: type[_Base], *, on_delete: str | None = "CASCADE", nullable: bool = False) -> Any:
    return _column(name, BigId, ForeignKey(f"{target.__tablename__}.id", ondelete=on_delete), nullable=nullable)


class Entity(_Base, table=True):
    """Whom memories are about.

    ``version`` grows with each change of the entity's memories. ``generation`` changes when something was forgotten;
    it is random, so that an entity that was erased and came back never looks like the one before.
    """

    __tablename__ = "memori_entity"
    __table_args__ = _arguments(UniqueConstraint("external_id"))

    id: int | None = _id()
    external_id: str = _column("external_id", Name())
    version: int = _column("version", BigId)
    generation: int = _column("generation", BigId)
    created_at: datetime = _column("created_at", UtcDateTime())


class Process(_Base, table=True):
    """The agent or program that memories are used by."""

    __tablename__ = "memori_process"
    __table_args__ = _arguments(UniqueConstraint("external_id"))

    id: int | None = _id()
    external_id: str = _column("external_id", Name())
    created_at: datetime = _column("created_at", UtcDateTime())


class Session(_Base, table=True):
    """A run of exchanges of one entity. ``next_position`` is the position that its next message will have."""

    __tablename__ = "memori_session"
    __table_args__ = _arguments(UniqueConstraint("entity_id", "uuid"))

    id: int | None = _id()
    uuid: str = _column("uuid", Name())
    entity_id: int = _reference("entity_id", Entity)
    process_id: int | None = _reference("process_id", Process, on_delete="SET NULL", nullable=True)
    started_at: datetime = _column("started_at", UtcDateTime())
    last_active_at: datetime = _column("last_active_at", UtcDateTime())
    next_position: int = _column("next_position", Integer)


class ConversationMessage(_Base, table=True):
    """One message. ``digest`` is what it is recognised by; ``version`` is the entity's of its last change."""

    __tablename__ = "memori_conversation_message"
    __table_args__ = _arguments(
        UniqueConstraint("session_id", "position"),
        Index(None, "session_id", "digest"),
        Index(None, "entity_id", "version"),
    )

    id: int | None = _id()
    session_id: int = _reference("session_id", Session)
    entity_id: int = _reference("entity_id", Entity)
    process_id: int | None = _reference("process_id", Process, on_delete="SET NULL", nullable=True)
    exchange_id: str = _column("exchange_id", Name())
    position: int = _column("position", Integer)
    role: str = _column("role", Name(32))
    author: str | None = _column("author", LongText(), nullable=True)
    kind: str = _column("kind", Name(32))
    content: str = _column("content", LongText())
    said_at: datetime = _column("said_at", UtcDateTime())
    partial: bool = _column("partial", Boolean)
    # Called metadata_ in Python only: SQLAlchemy's models reserve the name.
    metadata_: dict[str, Any] | None = _column("metadata", JsonText(), nullable=True)
    digest: str = _column("digest", Name(32))
    version: int = _column("version", BigId)
    embedding: bytes | None = _column("embedding", Blob, nullable=True)
    embedding_model: str | None = _column("embedding_model", LongText(), nullable=True)


class EntityFact(_Base, table=True):
    """One memory of an entity. ``version`` is the entity's of its last change."""

    __tablename__ = "memori_entity_fact"
    __table_args__ = _arguments(
        UniqueConstraint("entity_id", "content_hash"),
        Index(None, "entity_id", "slot"),
        Index(None, "entity_id", "version"),
        Index(None, "superseded_by"),
    )

    id: int | None = _id()
    entity_id: int = _reference("entity_id", Entity)
    kind: str = _column("kind", Name(32))
    content: str = _column("content", LongText())
    slot: str = _column("slot", Name())
    content_hash: str = _column("content_hash", Name())
    subject: str | None = _column("subject", LongText(), nullable=True)
    predicate: str | None = _column("predicate", LongText(), nullable=True)
    object: str | None = _column("object", LongText(), nullable=True)
    importance: float = _column("importance", Double)
    confidence: float = _column("confidence", Double)
    trust: str = _column("trust", Name(32))
    status: str = _column("status", Name(32))
    valid_from: datetime = _column("valid_from", UtcDateTime())
    valid_to: datetime | None = _column("valid_to", UtcDateTime(), nullable=True)
    recorded_at: datetime = _column("recorded_at", UtcDateTime())
    superseded_by: int | None = _column(
        "superseded_by", BigId, ForeignKey("memori_entity_fact.id", ondelete="SET NULL"), nullable=True
    )
    mentions: int = _column("mentions", Integer)
    last_mentioned_at: datetime = _column("last_mentioned_at", UtcDateTime())
    times_recalled: int = _column("times_recalled", Integer)
    last_recalled_at: datetime | None = _column("last_recalled_at", UtcDateTime(), nullable=True)
    version: int = _column("version", BigId)
    embedding: bytes | None = _column("embedding", Blob, nullable=True)
    embedding_model: str | None = _column("embedding_model", LongText(), nullable=True)


class FactSource(_Base, table=True):
    """Which message a fact was read from."""

    __tablename__ = "memori_fact_source"
    __table_args__ = (
        PrimaryKeyConstraint("fact_id", "message_id"),
        Index(None, "message_id"),
        _OPTIONS,
    )

    fact_id: int = _reference("fact_id", EntityFact)
    message_id: int = _reference("message_id", ConversationMessage)


class ProcessAttribute(_Base, table=True):
    """What is known of a process."""

    __tablename__ = "memori_process_attribute"
    __table_args__ = _arguments(UniqueConstraint("process_id", "name"))

    id: int | None = _id()
    process_id: int = _reference("process_id", Process)
    name: str = _column("name", Name())
    value: str = _column("value", LongText())
    mentions: int = _column("mentions", Integer)
    updated_at: datetime = _column("updated_at", UtcDateTime())


class KnowledgeGraph(_Base, table=True):
    """One edge: subject, predicate, object; as long valid as the fact that it comes from."""

    __tablename__ = "memori_knowledge_graph"
    __table_args__ = _arguments(Index(None, "entity_id"), Index(None, "fact_id"))

    id: int | None = _id()
    entity_id: int = _reference("entity_id", Entity)
    fact_id: int = _reference("fact_id", EntityFact)
    subject: str = _column("subject", LongText())
    subject_type: str | None = _column("subject_type", LongText(), nullable=True)
    predicate: str = _column("predicate", LongText())
    object: str = _column("object", LongText())
    object_type: str | None = _column("object_type", LongText(), nullable=True)
    valid_from: datetime = _column("valid_from", UtcDateTime())
    valid_to: datetime | None = _column("valid_to", UtcDateTime(), nullable=True)


class AugmentationJob(_Base, table=True):
    """The work on one exchange, and with it the record that this exchange is stored.

    Its messages are those of its session from ``first_position`` on, ``messages`` in number. ``due_at`` is when a
    waiting job may be claimed, and when the lease of a running one ends.
    """

    __tablename__ = "memori_augmentation_job"
    __table_args__ = _arguments(
        UniqueConstraint("exchange_id"), Index(None, "state", "exchanged_at", "id"), Index(None, "session_id")
    )

    id: int | None = _id()
    exchange_id: str = _column("exchange_id", Name())
    session_id: int = _reference("session_id", Session)
    process_id: int | None = _reference("process_id", Process, on_delete="SET NULL", nullable=True)
    provider: str | None = _column("provider", LongText(), nullable=True)
    model: str | None = _column("model", LongText(), nullable=True)
    exchanged_at: datetime = _column("exchanged_at", UtcDateTime())
    first_position: int = _column("first_position", Integer)
    messages: int = _column("messages", Integer)
    state: str = _column("state", Name(32))
    attempts: int = _column("attempts", Integer)
    worker: str | None = _column("worker", Name(), nullable=True)
    due_at: datetime = _column("due_at", UtcDateTime())
    last_error: str | None = _column("last_error", LongText(), nullable=True)
    failed_at: datetime | None = _column("failed_at", UtcDateTime(), nullable=True)


class Namespace(_Base, table=True):
    """A path of labels that the application keeps documents under. ``path`` is a JSON array."""

    __tablename__ = "memori_namespace"
    __table_args__ = _arguments(UniqueConstraint("path_hash"))

    id: int | None = _id()
    path: str = _column("path", LongText())
    path_hash: str = _column("path_hash", Name(64))


class NamespacePrefix(_Base, table=True):
    """Under which paths a namespace lies: its own, and each shorter one that it begins with."""

    __tablename__ = "memori_namespace_prefix"
    __table_args__ = (PrimaryKeyConstraint("prefix_hash", "namespace_id"), Index(None, "namespace_id"), _OPTIONS)

    prefix_hash: str = _column("prefix_hash", Name(64))
    namespace_id: int = _reference("namespace_id", Namespace)


class Item(_Base, table=True):
    """A document of the application's own.

    ``value`` is a JSON object. ``key`` is escaped as in a JSON string. It lives for ``ttl_s`` seconds after it was
    stored or read. ``embedding`` is ``embedding_rows`` vectors of one length, one after the other.
    """

    __tablename__ = "memori_item"
    __table_args__ = _arguments(
        UniqueConstraint("namespace_id", "key_hash"), Index(None, "namespace_id", "id"), Index(None, "expires_at")
    )

    id: int | None = _id()
    # Without a cascade: who removes an empty namespace must not remove what another has just put there.
    namespace_id: int = _reference("namespace_id", Namespace, on_delete=None)
    key: str = _column("key", LongText())
    key_hash: str = _column("key_hash", Name(64))
    value: str = _column("value", LongText())
    created_at: datetime = _column("created_at", UtcDateTime())
    updated_at: datetime = _column("updated_at", UtcDateTime())
    ttl_s: float | None = _column("ttl_s", Double, nullable=True)
    expires_at: datetime | None = _column("expires_at", UtcDateTime(), nullable=True)
    embedding: bytes | None = _column("embedding", Blob, nullable=True)
    embedding_rows: int | None = _column("embedding_rows", Integer, nullable=True)
    embedding_model: str | None = _column("embedding_model", LongText(), nullable=True)


def _table(model: type[_Base]) -> Table:
    return metadata.tables[str(model.__tablename__)]


metadata: MetaData = _registry.metadata
entity = _table(Entity)
process = _table(Process)
session = _table(Session)
message = _table(ConversationMessage)
fact = _table(EntityFact)
source = _table(FactSource)
attribute = _table(ProcessAttribute)
edge = _table(KnowledgeGraph)
job = _table(AugmentationJob)
namespace = _table(Namespace)
prefix = _table(NamespacePrefix)
item = _table(Item)
