"""Forward from every released schema, on every engine: nothing lost, one at a time, and never from a newer one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from databases import Engine, each
from openai import OpenAI
from sqlalchemy import (
    URL,
    Boolean,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    Table,
    create_engine,
    insert,
    select,
    text,
)

import memori.schema.migrations
from memori import Memori, Settings
from memori.errors import NewerSchemaError, StorageError
from memori.schema import tables
from memori.schema.migrations import HEAD
from memori.storage.sql import SQLStorage
from memori.testing.provider import ProviderServer
from memori.testing.storage import NOW, exchange, new_fact, revision

RELEASED = ["0001"]
"""The revisions that a released memori, or one that counts as such, has built."""
ROWS = 3
SERVERS = each("sqlite", "postgres", "mariadb", "mysql", "oceanbase")
# What SQLAlchemy says of OceanBase's way to describe a table.
pytestmark = pytest.mark.filterwarnings("ignore:Unknown schema content")


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Callable[[URL, str], None]:
    """What builds the tables as an older memori did."""

    def build(url: URL, revision: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(memori.schema.migrations, "HEAD", revision)
            storage = SQLStorage(url)
            storage.build()
            storage.close()

    return build


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def ours(connection: Connection) -> list[Table]:
    """Return memori's tables as the database itself describes them, parents first."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name.startswith("memori_") and name != tables.VERSION_TABLE)
    # OceanBase does not tell what refers to what.
    order = [table.name for table in tables.metadata.sorted_tables]
    # Builders on OceanBase lock a row in a table of their own, which holds no one's data.
    kept = [table for table in found.tables.values() if table.name != "memori_build"]
    return sorted(kept, key=lambda table: order.index(table.name))


def fill(connection: Connection) -> None:
    """Put rows into every table, whatever its columns are."""
    keys: dict[str, list[Any]] = {}
    for table in ours(connection):
        keys[table.name] = []
        for number in range(ROWS):
            row = {
                column.name: value(column, number, keys)
                for column in table.columns
                if not (column.name == "id" and column.primary_key)
            }
            key = connection.execute(insert(table), row).inserted_primary_key
            keys[table.name].append(None if key is None else key[0])


def value(column: Column[Any], number: int, keys: dict[str, list[Any]]) -> Any:
    for reference in tables.metadata.tables[column.table.name].c[column.name].foreign_keys:
        parents = keys[reference.column.table.name]
        return parents[number] if number < len(parents) else None
    if isinstance(column.type, Boolean):
        return number % 2 == 1
    if isinstance(column.type, DateTime):
        return datetime(2026, 1, 2, 3, 4, 5, 678901) + timedelta(days=number)  # noqa: DTZ001 - as rows hold it
    if column.type.python_type is bytes:
        return bytes(range(8))
    if isinstance(column.type, Float):
        return number / 2
    if isinstance(column.type, Integer):
        return number
    if column.name == "metadata":
        return json.dumps({"n": number})
    return f"{column.name[:20]} {number} ☕"


def contents(connection: Connection) -> dict[str, tuple[list[str], list[Any]]]:
    """Return the columns and the rows of every table."""
    found = {}
    for table in ours(connection):
        rows = connection.execute(select(table).order_by(*table.primary_key.columns)).all()
        found[table.name] = ([column.name for column in table.columns], [tuple(row) for row in rows])
    return found


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
    return list(compare_metadata(context, tables.metadata))


@pytest.mark.parametrize("engine", SERVERS)
@pytest.mark.parametrize("released", RELEASED)
def test_a_populated_database_is_upgraded(
    released: str, engine: Engine, old: Callable[[URL, str], None], tmp_path: Path
) -> None:
    """Fails when an upgrade loses or changes a row, or leaves other tables than a new database gets."""
    with engine.empty(tmp_path) as url:
        old(url, released)
        with connected(url) as connection:
            fill(connection)
        with connected(url) as connection:
            before = contents(connection)
        assert {len(rows) for _, rows in before.values()} == {ROWS}
        storage = SQLStorage(url)
        assert storage.schema().found == released
        storage.build()
        assert (storage.schema().found, storage.schema().newer) == (HEAD, False)
        with connected(url) as connection:
            after = contents(connection)
            for name, (columns, rows) in before.items():
                columns_now, rows_now = after[name]
                found = [dict(zip(columns_now, row, strict=True)) for row in rows_now]
                assert [tuple(row[column] for column in columns) for row in found] == rows
            if engine.name != "oceanbase":  # Whose indexes SQLAlchemy does not read.
                assert differences(connection) == []
        storage.record(exchange("Hi.", entity="someone new"))
        storage.revise("someone new", revision(new_fact("likes tea")), now=NOW)
        assert len(storage.facts("someone new")) == 1
        storage.close()


@pytest.mark.parametrize("engine", SERVERS)
def test_tables_of_a_newer_memori_are_refused(engine: Engine, tmp_path: Path) -> None:
    """Fails when an older memori builds on tables that it does not know, or does not say what to do."""
    with engine.empty(tmp_path) as url:
        storage = SQLStorage(url)
        storage.build()
        storage.record(exchange("Hi."))
        with connected(url) as connection:
            connection.execute(text(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
        for _ in range(2):
            with pytest.raises(NewerSchemaError, match=r"'9999'.*nothing was changed; upgrade memori"):
                storage.build()
        assert (storage.schema().found, storage.schema().newer) == ("9999", True)
        # What still fits goes on: programs are not all upgraded in one moment.
        assert len(storage.messages("alice")) == 2
        storage.close()


def test_a_call_passes_when_a_newer_memori_changed_the_tables(tmp_path: Path) -> None:
    """Fails when an upgrade by another program ends the calls of this one, or loses what they said."""
    url = URL.create("sqlite", database=str(tmp_path / "memori.db"))
    settings = Settings(retry_min_s=0.01, retry_max_s=0.05)
    with (
        ProviderServer() as server,
        Memori(conn=url, settings=settings) as mem,
        OpenAI(base_url=f"{server.url}/v1", api_key="local") as client,
    ):
        mem.config.storage.build()
        mem.llm.register(client).attribution("ann")
        with connected(url) as connection:
            connection.execute(text(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
            connection.execute(text("ALTER TABLE memori_conversation_message RENAME COLUMN said_at TO uttered_at"))
        asked: Any = [{"role": "user", "content": "I live in Rome."}]
        assert client.chat.completions.create(model="m", messages=asked).choices[0].message.content
        end = time.monotonic() + 60
        while "memori's tables here are not this version's" not in (mem.status().last_failure or ""):
            assert time.monotonic() < end, mem.status()
            assert not mem.augmentation.wait(0.05)
        assert mem.status().pending == 1
        with connected(url) as connection:
            connection.execute(text("ALTER TABLE memori_conversation_message RENAME COLUMN uttered_at TO said_at"))
        assert mem.augmentation.wait(60)
        assert [fact.content for fact in mem.facts()] == ["The user lives in Rome."]


UPGRADE = """
import sys
from memori.storage.sql import SQLStorage
storage = SQLStorage(sys.argv[1])
storage.schema()
print("ready", flush=True)
sys.stdin.readline()
storage.build()
print(storage.schema().found, flush=True)
storage.close()
"""


@pytest.mark.parametrize("engine", SERVERS)
def test_processes_that_upgrade_at_once(engine: Engine, old: Callable[[URL, str], None], tmp_path: Path) -> None:
    """Fails when two that upgrade one database at the same moment get into each other's way."""
    with engine.empty(tmp_path) as url:
        old(url, RELEASED[0])
        upgraders = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", UPGRADE, url.render_as_string(hide_password=False)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for upgrader in upgraders:
            assert upgrader.stdout is not None
            assert upgrader.stdout.readline() == "ready\n"
        for upgrader in upgraders:
            assert upgrader.stdin is not None
            upgrader.stdin.write("go\n")
            upgrader.stdin.flush()
        assert [upgrader.communicate(timeout=100) for upgrader in upgraders] == [(f"{HEAD}\n", "")] * 2


@pytest.mark.parametrize("engine", SERVERS)
@pytest.mark.parametrize("came_to", [None, *RELEASED])
def test_a_build_that_was_killed_is_done_again(
    came_to: str | None,
    engine: Engine,
    old: Callable[[URL, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails when a builder that dies between two tables leaves a database that nobody can build any more."""
    made: list[str] = []
    make = Operations.create_table

    def one_table(operations: Operations, name: str, *parts: Any, **options: Any) -> Any:
        if made:
            raise KeyboardInterrupt  # Nothing of memori's or of SQLAlchemy's catches it.
        made.append(name)
        return make(operations, name, *parts, **options)

    with engine.empty(tmp_path) as url:
        before: dict[str, Any] = {}
        if came_to is not None:
            old(url, came_to)
            with connected(url) as connection:
                fill(connection)
            with connected(url) as connection:
                before = contents(connection)
        storage = SQLStorage(url)
        with monkeypatch.context() as patched:
            # As `alembic.op` has it, which is bound to the class when it is first used.
            patched.setattr(Operations, "create_table", one_table)
            with pytest.raises(KeyboardInterrupt):
                storage.build()
        assert made
        storage.build()
        assert storage.schema().found == HEAD
        with connected(url) as connection:
            after = contents(connection)
        assert {name: after[name] for name in before} == before
        assert set(after) == set(tables.metadata.tables)
        storage.close()


@pytest.mark.parametrize("engine", each("mysql"))
def test_what_is_not_memoris_to_drop_stays(engine: Engine, old: Callable[[URL, str], None], tmp_path: Path) -> None:
    """Fails when clearing away after a killed builder drops a table that has rows."""
    with engine.empty(tmp_path) as url:
        old(url, RELEASED[0])
        with connected(url) as connection:
            connection.execute(text("CREATE TABLE memori_item (id INTEGER)"))
            connection.execute(text("INSERT INTO memori_item VALUES (1)"))
        storage = SQLStorage(url)
        with pytest.raises(StorageError, match="memori_item is of a newer revision than '0001'"):
            storage.build()
        with connected(url) as connection:
            assert connection.scalar(text("SELECT count(*) FROM memori_item")) == 1
        storage.close()
