"""Run by Alembic. The connection comes from `memori.schema.migrations.upgrade`; logging is left as the user set it."""

from __future__ import annotations

from alembic import context

from memori.schema.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
