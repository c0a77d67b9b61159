"""The tables: made by migrations, alike everywhere, and nobody else's."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import Engine, each
from sqlalchemy import Connection, create_engine, func, insert, inspect, select
from sqlalchemy.dialects import mysql, oracle, postgresql, sqlite
from sqlalchemy.schema import CreateTable
from sqlmodel import SQLModel

import memori.schema.migrations
from memori.errors import ForeignSchemaError, NotBuiltError, StorageError
from memori.schema import tables
from memori.schema.columns import UtcDateTime
from memori.schema.migrations import HEAD
from memori.storage.connect import connect
from memori.storage.sql import SQLStorage
from memori.storage.views import Driver
from memori.testing.storage import NOW, exchange, new_fact, revision, said
from memori.types import Retirement

ITEMS = {"memori_namespace", "memori_namespace_prefix", "memori_item"}
PUBLIC = {
    *ITEMS,
    "memori_entity",
    "memori_process",
    "memori_session",
    "memori_conversation_message",
    "memori_entity_fact",
    "memori_fact_source",
    "memori_process_attribute",
    "memori_knowledge_graph",
    "memori_augmentation_job",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memori.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLStorage]:
    storage = SQLStorage(path)
    storage.build()
    yield storage
    storage.close()


def rows(path: Path, query: str) -> list[Any]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_the_public_tables_are_there(path: Path, storage: SQLStorage) -> None:
    """Fails when a table that users query has another name."""
    names = {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names - {"sqlite_sequence"} == PUBLIC | {"memori_alembic_version"}


def test_the_migrations_make_what_the_models_say(path: Path, storage: SQLStorage) -> None:
    """Fails when a table was changed without a migration, or the other way round."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        assert compare_metadata(context, tables.metadata) == []
        built = {name: foreign_keys(connection, name) for name in PUBLIC}
    engine.dispose()
    fresh = create_engine("sqlite://")
    tables.metadata.create_all(fresh)
    with fresh.connect() as connection:
        assert built == {name: foreign_keys(connection, name) for name in PUBLIC}
    fresh.dispose()


def foreign_keys(connection: Connection, table: str) -> list[str]:
    return sorted(map(str, inspect(connection).get_foreign_keys(table)))


def test_head_is_the_newest_revision() -> None:
    """Fails when a migration was added and build does not run it."""
    folder = Path(memori.schema.migrations.__file__).parent
    config = Config()
    config.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_foreign_keys_are_checked(path: Path, storage: SQLStorage) -> None:
    """Fails when SQLite, which ignores foreign keys unless told otherwise, takes a row without its parent."""
    orphan = {"process_id": 77, "name": "n", "value": "v", "mentions": 1, "updated_at": NOW}
    for conn in (path, create_engine(f"sqlite:///{path}"), lambda: sqlite3.connect(path)):
        database = connect(conn)
        with pytest.raises(StorageError, match="FOREIGN KEY"):
            database.write(lambda connection: connection.execute(insert(tables.attribute), orphan).close())
        database.close()


def test_the_users_metadata_is_the_users() -> None:
    """Fails when `SQLModel.metadata.create_all` of an application would make memori's tables."""
    assert not [name for name in SQLModel.metadata.tables if name.startswith("memori_")]


def test_other_tables_are_left_alone(path: Path) -> None:
    """Fails when build touches the tables, or the migrations' version, of the application beside it."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('mine')")
        connection.execute("CREATE TABLE memories (id INTEGER)")
        connection.execute("CREATE TABLE memori_notes (id INTEGER)")
    connection.close()
    storage = SQLStorage(path)
    storage.build()
    storage.record(exchange("Hi."))
    assert rows(path, "SELECT * FROM alembic_version") == [("mine",)]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]
    storage.close()


UPSTREAM = """
CREATE TABLE memori_schema_version (num INTEGER PRIMARY KEY);
INSERT INTO memori_schema_version VALUES (2);
CREATE TABLE memori_entity (id INTEGER PRIMARY KEY, uuid TEXT, external_id VARCHAR(100) UNIQUE, date_created TEXT);
CREATE TABLE memori_process (id INTEGER PRIMARY KEY, uuid TEXT, external_id VARCHAR(100) UNIQUE);
CREATE TABLE memori_session (id INTEGER PRIMARY KEY, uuid TEXT, entity_id INTEGER, process_id INTEGER);
CREATE TABLE memori_conversation (id INTEGER PRIMARY KEY, uuid TEXT, session_id INTEGER, summary TEXT);
CREATE TABLE memori_conversation_message (id INTEGER PRIMARY KEY, conversation_id INTEGER, role TEXT, content TEXT);
CREATE TABLE memori_entity_fact (id INTEGER PRIMARY KEY, entity_id INTEGER, content TEXT, content_embedding BLOB);
CREATE TABLE memori_entity_fact_mention (id INTEGER PRIMARY KEY);
CREATE TABLE memori_subject (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE memori_predicate (id INTEGER PRIMARY KEY, content TEXT);
CREATE TABLE memori_object (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE memori_knowledge_graph (id INTEGER PRIMARY KEY, entity_id INTEGER, subject_id INTEGER);
CREATE TABLE memori_process_attribute (id INTEGER PRIMARY KEY, process_id INTEGER, content TEXT);
INSERT INTO memori_entity VALUES (1, 'u', 'alice', '2026-01-01');
"""


@pytest.mark.parametrize("script", [UPSTREAM, "CREATE TABLE memori_session (id INTEGER);"])
def test_another_programs_tables_are_refused_and_kept(path: Path, script: str) -> None:
    """Fails when build mixes its tables into those of another program, or changes anything there."""
    connection = sqlite3.connect(path)
    connection.executescript(script)
    before = list(connection.iterdump())
    storage = SQLStorage(path)
    for _ in range(2):
        with pytest.raises(ForeignSchemaError, match=r"another program.*memori_session.*database"):
            storage.build()
    with pytest.raises(StorageError, match="build"):
        storage.record(exchange("Hi."))
    assert list(connection.iterdump()) == before
    connection.close()
    storage.close()


def test_tables_of_a_newer_memori_are_left_alone(path: Path, storage: SQLStorage) -> None:
    """Fails when an older memori takes a newer schema for its own or for none."""
    storage.record(exchange("Hi."))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE memori_alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageError, match="upgrade memori"):
        storage.build()
    assert len(storage.messages("alice")) == 2


def test_logging_stays_as_it_was(path: Path) -> None:
    """Fails when the migrations' own logging setup reaches the application's loggers."""
    logger = logging.getLogger("an.application")
    before = (logging.root.level, list(logging.root.handlers), logger.level)
    SQLStorage(path).build()
    assert (logging.root.level, list(logging.root.handlers), logger.level) == before
    assert not logger.disabled
    assert not logging.getLogger("memori").disabled


BUILD = """
import sys
from memori.storage.sql import SQLStorage
from memori.testing.storage import exchange
storage = SQLStorage(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
storage.build()
storage.record(exchange("Hi.", entity=sys.argv[2]))
storage.close()
print("done", flush=True)
"""


@pytest.mark.timeout(120)
def test_processes_that_build_at_once(tmp_path: Path) -> None:
    """Fails when a process that builds beside others raises, prints something, or leaves the tables half made."""
    builders = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BUILD, str(tmp_path / "memori.db"), f"entity-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for builder in builders:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write("go\n")
        builder.stdin.flush()
    assert [builder.communicate() for builder in builders] == [("done\n", "")] * 4
    assert {builder.returncode for builder in builders} == {0}
    assert rows(tmp_path / "memori.db", "SELECT count(*) FROM memori_conversation_message") == [(8,)]
    assert rows(tmp_path / "memori.db", "SELECT version_num FROM memori_alembic_version") == [(HEAD,)]


def test_threads_that_build_at_once(path: Path) -> None:
    """Fails when threads, each with a storage of its own, cannot build one database together."""
    storages = [SQLStorage(path) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(SQLStorage.build, storages))
    for storage in storages:
        storage.close()


TRAPS: list[tuple[Any, list[str]]] = [
    (
        mysql.dialect,
        ["LONGTEXT", "DATETIME(6)", "LONGBLOB", "utf8mb4_bin", "AUTO_INCREMENT", "CHARSET=utf8mb4", "BIGINT"],
    ),
    (oracle.dialect, [" TIMESTAMP ", "IDENTITY", "CLOB", "BLOB", "VARCHAR2(256 CHAR)"]),
    (postgresql.dialect, ["TIMESTAMP WITH TIME ZONE", "IDENTITY", "TEXT", "BYTEA", "BIGINT"]),
    (sqlite.dialect, ["AUTOINCREMENT", "TEXT", "BLOB"]),
]


@pytest.mark.parametrize(("dialect", "words"), TRAPS, ids=lambda value: getattr(value, "name", ""))
def test_columns_lose_nothing_on_any_engine(dialect: Callable[..., Any], words: list[str]) -> None:
    """Fails when a column becomes one that cuts off, rounds, or folds case on some engine."""
    ddl = "\n".join(str(CreateTable(table).compile(dialect=dialect())) for table in tables.metadata.sorted_tables)
    assert [word for word in words if word not in ddl] == []
    forbidden = {"mysql": (" TEXT", " BLOB", "DATETIME "), "oracle": (" DATE ", " DATE,", "TIME ZONE")}
    assert [word for word in forbidden.get(dialect().name, ()) if word in ddl] == []


def test_times_without_a_zone_are_refused() -> None:
    """Fails when a naive time, which may mean anything, is stored as if it were UTC."""
    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), sqlite.dialect())  # noqa: DTZ001 - that is the point
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert UtcDateTime().process_bind_param(east, sqlite.dialect()) == datetime(2026, 1, 1)  # noqa: DTZ001
    engine: Any = postgresql.dialect
    assert UtcDateTime().process_bind_param(east, engine()) == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_graph_follows_the_facts(path: Path, storage: SQLStorage) -> None:
    """Fails when a triple has no edge, or an edge outlives what it was read from."""
    triple: dict[str, Any] = {
        "subject": "user",
        "predicate": "lives_in",
        "subject_type": "person",
        "object_type": "city",
    }
    (old, _) = storage.revise(
        "alice", revision(new_fact("in Rome", object="Rome", **triple), new_fact("no triple")), now=NOW
    )
    change = Retirement(fact_id=old.id, valid_to=NOW + timedelta(days=1), superseded_by="in Oslo")
    storage.revise("alice", revision(new_fact("in Oslo", object="Oslo", **triple), change), now=NOW)
    edges = "SELECT subject, subject_type, predicate, object, object_type, fact_id, valid_to IS NULL FROM "
    assert rows(path, edges + "memori_knowledge_graph ORDER BY id") == [
        ("user", "person", "lives_in", "Rome", "city", old.id, 0),
        ("user", "person", "lives_in", "Oslo", "city", old.id + 2, 1),
    ]
    storage.forget("alice", fact_id=old.id)
    assert [row[3] for row in rows(path, edges + "memori_knowledge_graph")] == ["Oslo"]


def test_what_is_learned_of_a_process(path: Path, storage: SQLStorage) -> None:
    """Fails when an attribute is lost, doubled, or given to another process; or a long name loses the whole job."""
    for number, process in enumerate(["support", "support", "sales", None]):
        storage.record(exchange("Hi.", process=process, session=f"session-{number}"))
        (job,) = storage.claim("worker", now=NOW, lease=timedelta(minutes=1), limit=1)
        attributes = {"tone": f"tone {number}", "n" * 300: "long"}
        assert storage.complete(job, revision(attributes=attributes), now=NOW)
    query = (
        "SELECT external_id, value, mentions FROM memori_process_attribute a "
        "JOIN memori_process p ON p.id = a.process_id WHERE name = 'tone' ORDER BY a.id"
    )
    assert rows(path, query) == [("support", "tone 1", 2), ("sales", "tone 2", 1)]


def test_forgetting_leaves_no_row(path: Path, storage: SQLStorage) -> None:
    """Fails when any table still has a row of an entity that was erased."""
    for entity in ("alice", "bob"):
        (message, _) = storage.record(exchange("Hi.", entity=entity))
        triple: dict[str, Any] = {"subject": "s", "predicate": "p", "object": "o"}
        storage.revise(entity, revision(new_fact("a", sources=[message.id], **triple)), now=NOW)
    counts = {name: rows(path, f"SELECT count(*) FROM {name}") for name in PUBLIC}  # noqa: S608 - our own names
    assert storage.forget("alice") == 3
    storage.forget("bob")
    left = {name for name in PUBLIC if rows(path, f"SELECT count(*) FROM {name}") != [(0,)]}  # noqa: S608
    assert left == {"memori_process"}
    assert {name for name, count in counts.items() if count == [(0,)]} == {"memori_process_attribute", *ITEMS}


def test_conversations_can_be_read_as_before(storage: SQLStorage) -> None:
    """Fails when the read-only views that programs for the older API use do not find a conversation."""
    driver = Driver(storage)
    assert storage.session_row("alice", "session-1") is None
    storage.record(exchange("Hi.", said("tool", "x", kind="tool_result"), reply="Hello."))
    storage.record(exchange("Bob here.", entity="bob"))
    row = storage.session_row("alice", "session-1")
    assert row is not None
    assert storage.session_row("bob", "session-1") not in (row, None)
    conversation = driver.conversation.read(row)
    assert conversation is not None
    assert (conversation["id"], conversation["session_id"], conversation["uuid"]) == (row, row, "session-1")
    assert (conversation["entity_id"], conversation["process_id"]) == ("alice", "support")
    assert driver.conversation.messages.read(row) == [
        {"role": "user", "content": "Hi."},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": "Hello."},
    ]
    assert driver.conversation.read(10**9) is None
    assert driver.conversation.messages.read(10**9) == []


def test_a_database_without_tables_says_what_to_do(tmp_path: Path) -> None:
    """Fails when an unbuilt database is reported as something else, or reading makes a file."""
    (tmp_path / "empty.db").touch()
    for name in ("empty.db", "none.db"):
        with pytest.raises(NotBuiltError, match=r"config\.storage\.build\(\)"):
            SQLStorage(tmp_path / name).version("alice")
    assert not (tmp_path / "none.db").exists()


# Not OceanBase's, whose indexes SQLAlchemy does not read.
@pytest.mark.parametrize("engine", each("postgres", "mariadb", "mysql"))
def test_the_migrations_make_what_the_models_say_on_a_server(engine: Engine, tmp_path: Path) -> None:
    """Fails when a server's tables differ from the models."""
    with engine.empty(tmp_path) as url:
        own = create_engine(url)
        storage = SQLStorage(own)
        storage.build()
        with own.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
            assert connection.scalar(select(func.count()).select_from(tables.entity)) is not None
            assert compare_metadata(context, tables.metadata) == []
        own.dispose()
