"""The schema's history, run by `upgrade`. Each revision is written out, never derived from the models of the day."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, column, func, inspect, select, table

from memori.errors import ForeignSchemaError, StorageError
from memori.schema.tables import FOREIGN_TABLES, VERSION_TABLE, metadata

__all__ = ["HEAD", "upgrade"]

HEAD = "0002"
_LOCK_KEY = 0x6D656D6F7269  # "memori": what builders on one server agree on.
# Alembic keeps the migration under way in module globals.
_one_at_a_time = threading.Lock()


def upgrade(connection: Connection, *, timeout_s: float) -> None:
    """Bring the tables behind *connection* to `HEAD`, in its transaction; do nothing when they are there already.

    On SQLite the transaction must have begun as a writing one: that is what keeps other builders out.

    Raises:
        ForeignSchemaError: There are tables of the same names that memori did not make. Nothing was changed.
        StorageError: The tables were built by a newer memori.
    """
    with _one_at_a_time, _alone(connection, timeout_s):
        _refuse_foreign(connection)
        found = _revision(connection)
        if found == HEAD:
            return
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        try:
            command.upgrade(config, HEAD)
        except CommandError as error:
            raise StorageError(
                f"the tables are at revision {found!r}, which this memori does not know: upgrade memori ({error})"
            ) from error


@contextlib.contextmanager
def _alone(connection: Connection, timeout_s: float) -> Iterator[None]:
    # Where DDL is not transactional, or takes no lock that a second builder would wait for.
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
        yield
    elif connection.dialect.name in ("mysql", "mariadb"):
        if connection.scalar(select(func.get_lock("memori_build", max(1, round(timeout_s))))) != 1:
            raise StorageError("another process has been building memori's tables for too long: try again")
        try:
            yield
        finally:
            connection.scalar(select(func.release_lock("memori_build")))
    else:
        yield


def _refuse_foreign(connection: Connection) -> None:
    present = set(inspect(connection).get_table_names())
    foreign = present & (metadata.tables.keys() | FOREIGN_TABLES)
    if foreign and VERSION_TABLE not in present:
        raise ForeignSchemaError(
            f"this database has tables that another program made ({', '.join(sorted(foreign))}): nothing was changed. "
            "Give memori a database (or schema) of its own, or rename those tables"
        )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    versions = table(VERSION_TABLE, column("version_num"))
    revision: str | None = connection.scalar(select(versions.c.version_num))
    return revision
