"""The schema's history, run by `upgrade`. Each revision is written out, never derived from the models of the day."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, column, create_engine, func, inspect, select, table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import DropTable

from memori.errors import ForeignSchemaError, NewerSchemaError, StorageError
from memori.schema.tables import FOREIGN_TABLES, VERSION_TABLE, metadata
from memori.types import SchemaVersion

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["HEAD", "schema_version", "upgrade"]

HEAD = "0002"
_BUILD_S = 60  # A busy server of the MySQL family needs seconds for so many tables.
_LOOK_S = 0.1
_COMMITS_EACH_TABLE = ("mysql", "mariadb", "oracle")
_LOCK_KEY = 0x6D656D6F7269  # "memori": what builders on one server agree on.
# Alembic keeps the migration under way in module globals.
_one_at_a_time = threading.Lock()


def upgrade(connection: Connection, *, timeout_s: float) -> None:
    """Bring the tables behind *connection* to `HEAD`, in its transaction; do nothing when they are there already.

    On SQLite the transaction must have begun as a writing one: that is what keeps other builders out.

    Raises:
        ForeignSchemaError: There are tables of the same names that memori did not make. Nothing was changed.
        NewerSchemaError: The tables were built by a newer memori. Nothing was changed.
    """
    with _one_at_a_time, _alone(connection, timeout_s):
        version = schema_version(connection)
        if version.newer:
            raise NewerSchemaError(
                f"the tables are at revision {version.found!r}, which this memori does not know (its newest is "
                f"{HEAD!r}): nothing was changed; upgrade memori"
            )
        if version.found != HEAD:
            if connection.dialect.name in _COMMITS_EACH_TABLE:
                _clear_away(connection, version.found)
            _migrate(connection, HEAD)


def schema_version(connection: Connection) -> SchemaVersion:
    """Return which of memori's tables are behind *connection*.

    Raises:
        ForeignSchemaError: There are tables of the same names that memori did not make.
    """
    _refuse_foreign(connection)
    found = _revision(connection)
    return SchemaVersion(found=found, newest=HEAD, newer=found not in (None, HEAD) and found not in _revisions())


def _migrate(connection: Connection, revision: str) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _clear_away(connection: Connection, found: str | None) -> None:
    """Drop the empty tables that a migration left which did not come to its end.

    Where a table once made stays whatever becomes of the transaction, a builder that is killed leaves some of them, and
    the next could not make them.
    """
    left = set(inspect(connection).get_table_names()) & metadata.tables.keys()
    left -= _tables(found)
    if not left:
        return
    unfinished = [made for made in reversed(metadata.sorted_tables) if made.name in left]
    for made in unfinished:
        if connection.scalar(select(func.count()).select_from(table(made.name))):
            raise StorageError(
                f"the table {made.name} is of a newer revision than {found!r}, which memori's tables are at, and not "
                "empty: nothing was changed; restore the database"
            )
    for made in unfinished:
        connection.execute(DropTable(made))


def _tables(revision: str | None) -> set[str]:
    """Return the names of the tables of a revision."""
    if revision is None:
        return set()
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            _migrate(connection, revision)
            return set(inspect(connection).get_table_names())
    finally:
        engine.dispose()


def _revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


@contextlib.contextmanager
def _alone(connection: Connection, timeout_s: float) -> Iterator[None]:
    # Where DDL is not transactional, or takes no lock that a second builder would wait for.
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(max(_BUILD_S, timeout_s) * 1000)}")
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
        yield
    elif connection.dialect.name in ("mysql", "mariadb") and "OceanBase" in str(
        connection.scalar(select(func.version()))
    ):
        with _row_locked(connection.engine, timeout_s):
            yield
    elif connection.dialect.name in ("mysql", "mariadb"):
        # Such a lock is the whole server's: it is named after the database.
        database = str(connection.scalar(select(func.database()))).encode()
        lock = f"memori_build_{blake2b(database, digest_size=16).hexdigest()}"
        if connection.scalar(select(func.get_lock(lock, max(_BUILD_S, round(timeout_s))))) != 1:
            raise StorageError("another process has been building memori's tables for too long: try again")
        try:
            yield
        finally:
            connection.scalar(select(func.release_lock(lock)))
    else:
        yield


def _refuse_foreign(connection: Connection) -> None:
    present = set(inspect(connection).get_table_names())
    foreign = present & (metadata.tables.keys() | FOREIGN_TABLES)
    if foreign and VERSION_TABLE not in present:
        of_its_kind = "memori_schema_version" in present and "memori_conversation" in present
        raise ForeignSchemaError(
            f"this database has tables that another program made ({', '.join(sorted(foreign))}): nothing was changed. "
            "Give memori a database (or schema) of its own"
            + (
                "; 'memori import --from-memori URL' brings what MemoriLabs' memori stored here into it"
                if of_its_kind
                else ", or rename those tables"
            )
        )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    versions = table(VERSION_TABLE, column("version_num"))
    revision: str | None = connection.scalar(select(versions.c.version_num))
    return revision


@contextlib.contextmanager
def _row_locked(engine: Engine, timeout_s: float) -> Iterator[None]:
    """Keep other builders out by a row: OceanBase 4.3.5 grants GET_LOCK to several at once (seen: 3 of 10)."""
    if isinstance(engine.pool, StaticPool):  # The only connection there is: it cannot hold the row and build.
        yield
        return
    end = time.monotonic() + max(_BUILD_S, timeout_s)
    with engine.connect() as holder:
        while True:
            try:
                holder.exec_driver_sql("CREATE TABLE IF NOT EXISTS memori_build (id INTEGER PRIMARY KEY)")
                holder.exec_driver_sql("INSERT IGNORE INTO memori_build VALUES (1)")
                holder.commit()
                holder.exec_driver_sql("SELECT id FROM memori_build WHERE id = 1 FOR UPDATE")
                break
            except DBAPIError:  # Another is making the table, or the wait for the row ended, as any does after 10 s.
                holder.rollback()
                if time.monotonic() > end:
                    raise
                time.sleep(_LOOK_S)
        yield
        holder.rollback()
