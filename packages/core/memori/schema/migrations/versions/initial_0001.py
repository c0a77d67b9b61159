"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from memori.schema.columns import BigId, Blob, JsonText, LongText, Name, UtcDateTime

__all__ = ["branch_labels", "depends_on", "down_revision", "downgrade", "revision", "upgrade"]

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
}


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "memori_entity",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("external_id", Name(), nullable=False),
        sa.Column("version", BigId, nullable=False),
        sa.Column("generation", BigId, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_memori_entity"),
        sa.UniqueConstraint("external_id", name="uq_memori_entity_external_id"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memori_process",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("external_id", Name(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_memori_process"),
        sa.UniqueConstraint("external_id", name="uq_memori_process_external_id"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memori_session",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("uuid", Name(), nullable=False),
        sa.Column("entity_id", BigId, nullable=False),
        sa.Column("process_id", BigId, nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("last_active_at", UtcDateTime(), nullable=False),
        sa.Column("next_position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["memori_entity.id"], name="fk_memori_session_entity_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["process_id"], ["memori_process.id"], name="fk_memori_session_process_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_memori_session"),
        sa.UniqueConstraint("entity_id", "uuid", name="uq_memori_session_entity_id_uuid"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memori_conversation_message",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("session_id", BigId, nullable=False),
        sa.Column("entity_id", BigId, nullable=False),
        sa.Column("process_id", BigId, nullable=True),
        sa.Column("exchange_id", Name(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("role", Name(32), nullable=False),
        sa.Column("author", LongText(), nullable=True),
        sa.Column("kind", Name(32), nullable=False),
        sa.Column("content", LongText(), nullable=False),
        sa.Column("said_at", UtcDateTime(), nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("metadata", JsonText(), nullable=True),
        sa.Column("digest", Name(32), nullable=False),
        sa.Column("version", BigId, nullable=False),
        sa.Column("embedding", Blob, nullable=True),
        sa.Column("embedding_model", LongText(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["memori_entity.id"], name="fk_memori_conversation_message_entity_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["process_id"], ["memori_process.id"], name="fk_memori_conversation_message_process_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["memori_session.id"], name="fk_memori_conversation_message_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_memori_conversation_message"),
        sa.UniqueConstraint("session_id", "position", name="uq_memori_conversation_message_session_id_position"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_memori_conversation_message_entity_id_version", "memori_conversation_message", ["entity_id", "version"]
    )
    op.create_index(
        "ix_memori_conversation_message_session_id_digest", "memori_conversation_message", ["session_id", "digest"]
    )
    op.create_table(
        "memori_entity_fact",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("entity_id", BigId, nullable=False),
        sa.Column("kind", Name(32), nullable=False),
        sa.Column("content", LongText(), nullable=False),
        sa.Column("slot", Name(), nullable=False),
        sa.Column("content_hash", Name(), nullable=False),
        sa.Column("subject", LongText(), nullable=True),
        sa.Column("predicate", LongText(), nullable=True),
        sa.Column("object", LongText(), nullable=True),
        sa.Column("importance", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("trust", Name(32), nullable=False),
        sa.Column("status", Name(32), nullable=False),
        sa.Column("valid_from", UtcDateTime(), nullable=False),
        sa.Column("valid_to", UtcDateTime(), nullable=True),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.Column("superseded_by", BigId, nullable=True),
        sa.Column("mentions", sa.Integer(), nullable=False),
        sa.Column("last_mentioned_at", UtcDateTime(), nullable=False),
        sa.Column("times_recalled", sa.Integer(), nullable=False),
        sa.Column("last_recalled_at", UtcDateTime(), nullable=True),
        sa.Column("version", BigId, nullable=False),
        sa.Column("embedding", Blob, nullable=True),
        sa.Column("embedding_model", LongText(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["memori_entity.id"], name="fk_memori_entity_fact_entity_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["superseded_by"],
            ["memori_entity_fact.id"],
            name="fk_memori_entity_fact_superseded_by",
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_memori_entity_fact"),
        sa.UniqueConstraint("entity_id", "content_hash", name="uq_memori_entity_fact_entity_id_content_hash"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_memori_entity_fact_entity_id_slot", "memori_entity_fact", ["entity_id", "slot"])
    op.create_index("ix_memori_entity_fact_entity_id_version", "memori_entity_fact", ["entity_id", "version"])
    op.create_index("ix_memori_entity_fact_superseded_by", "memori_entity_fact", ["superseded_by"])
    op.create_table(
        "memori_fact_source",
        sa.Column("fact_id", BigId, nullable=False),
        sa.Column("message_id", BigId, nullable=False),
        sa.ForeignKeyConstraint(
            ["fact_id"], ["memori_entity_fact.id"], name="fk_memori_fact_source_fact_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["memori_conversation_message.id"],
            name="fk_memori_fact_source_message_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("fact_id", "message_id", name="pk_memori_fact_source"),
        **OPTIONS,
    )
    op.create_index("ix_memori_fact_source_message_id", "memori_fact_source", ["message_id"])
    op.create_table(
        "memori_process_attribute",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("process_id", BigId, nullable=False),
        sa.Column("name", Name(), nullable=False),
        sa.Column("value", LongText(), nullable=False),
        sa.Column("mentions", sa.Integer(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["process_id"], ["memori_process.id"], name="fk_memori_process_attribute_process_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_memori_process_attribute"),
        sa.UniqueConstraint("process_id", "name", name="uq_memori_process_attribute_process_id_name"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memori_knowledge_graph",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("entity_id", BigId, nullable=False),
        sa.Column("fact_id", BigId, nullable=False),
        sa.Column("subject", LongText(), nullable=False),
        sa.Column("subject_type", LongText(), nullable=True),
        sa.Column("predicate", LongText(), nullable=False),
        sa.Column("object", LongText(), nullable=False),
        sa.Column("object_type", LongText(), nullable=True),
        sa.Column("valid_from", UtcDateTime(), nullable=False),
        sa.Column("valid_to", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["memori_entity.id"], name="fk_memori_knowledge_graph_entity_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["fact_id"], ["memori_entity_fact.id"], name="fk_memori_knowledge_graph_fact_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_memori_knowledge_graph"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_memori_knowledge_graph_entity_id", "memori_knowledge_graph", ["entity_id"])
    op.create_index("ix_memori_knowledge_graph_fact_id", "memori_knowledge_graph", ["fact_id"])
    op.create_table(
        "memori_augmentation_job",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("exchange_id", Name(), nullable=False),
        sa.Column("session_id", BigId, nullable=False),
        sa.Column("process_id", BigId, nullable=True),
        sa.Column("provider", LongText(), nullable=True),
        sa.Column("model", LongText(), nullable=True),
        sa.Column("exchanged_at", UtcDateTime(), nullable=False),
        sa.Column("first_position", sa.Integer(), nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.Column("state", Name(32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", Name(), nullable=True),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("last_error", LongText(), nullable=True),
        sa.Column("failed_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["process_id"], ["memori_process.id"], name="fk_memori_augmentation_job_process_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["memori_session.id"], name="fk_memori_augmentation_job_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_memori_augmentation_job"),
        sa.UniqueConstraint("exchange_id", name="uq_memori_augmentation_job_exchange_id"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_memori_augmentation_job_session_id", "memori_augmentation_job", ["session_id"])
    op.create_index(
        "ix_memori_augmentation_job_state_exchanged_at_id", "memori_augmentation_job", ["state", "exchanged_at", "id"]
    )


def downgrade() -> None:
    """Drop all tables, with what is in them."""
    for table in (
        "memori_augmentation_job",
        "memori_knowledge_graph",
        "memori_process_attribute",
        "memori_fact_source",
        "memori_entity_fact",
        "memori_conversation_message",
        "memori_session",
        "memori_process",
        "memori_entity",
    ):
        op.drop_table(table)
