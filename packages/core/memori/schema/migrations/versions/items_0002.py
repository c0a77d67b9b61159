"""Documents of the application's own, under namespaces."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from memori.schema.columns import BigId, Blob, LongText, Name, UtcDateTime

__all__ = ["branch_labels", "depends_on", "down_revision", "downgrade", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
}


def upgrade() -> None:
    """Create their tables."""
    op.create_table(
        "memori_namespace",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("path", LongText(), nullable=False),
        sa.Column("path_hash", Name(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_memori_namespace"),
        sa.UniqueConstraint("path_hash", name="uq_memori_namespace_path_hash"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memori_namespace_prefix",
        sa.Column("prefix_hash", Name(64), nullable=False),
        sa.Column("namespace_id", BigId, nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["memori_namespace.id"],
            name="fk_memori_namespace_prefix_namespace_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("prefix_hash", "namespace_id", name="pk_memori_namespace_prefix"),
        **OPTIONS,
    )
    op.create_index("ix_memori_namespace_prefix_namespace_id", "memori_namespace_prefix", ["namespace_id"])
    op.create_table(
        "memori_item",
        sa.Column("id", BigId, sa.Identity()),
        sa.Column("namespace_id", BigId, nullable=False),
        sa.Column("key", LongText(), nullable=False),
        sa.Column("key_hash", Name(64), nullable=False),
        sa.Column("value", LongText(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("ttl_s", sa.Double(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("embedding", Blob, nullable=True),
        sa.Column("embedding_rows", sa.Integer(), nullable=True),
        sa.Column("embedding_model", LongText(), nullable=True),
        sa.ForeignKeyConstraint(["namespace_id"], ["memori_namespace.id"], name="fk_memori_item_namespace_id"),
        sa.PrimaryKeyConstraint("id", name="pk_memori_item"),
        sa.UniqueConstraint("namespace_id", "key_hash", name="uq_memori_item_namespace_id_key_hash"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_memori_item_namespace_id_id", "memori_item", ["namespace_id", "id"])
    op.create_index("ix_memori_item_expires_at", "memori_item", ["expires_at"])


def downgrade() -> None:
    """Drop their tables, with what is in them."""
    for table in ("memori_item", "memori_namespace_prefix", "memori_namespace"):
        op.drop_table(table)
