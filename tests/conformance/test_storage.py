"""Every storage, against the whole of the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from databases import ENGINES, Engine, mongodb, needs, needs_mongodb
from portability import portable
from sqlalchemy import URL, Connection, NullPool, StaticPool, create_engine, delete, update

from memori.protocols import Storage
from memori.schema.tables import fact, metadata
from memori.storage.connect import connect
from memori.storage.sql import SQLStorage
from memori.testing.storage import StorageSuite


def built(storage: SQLStorage) -> Iterator[SQLStorage]:
    storage.build()
    yield storage
    storage.close()


class TestSQLiteFile(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        with portable():
            yield from built(SQLStorage(tmp_path / "memori.db"))


class TestSQLiteFactory(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        yield from built(SQLStorage(lambda: sqlite3.connect(tmp_path / "memori.db")))


class TestSQLiteEngineInMemory(StorageSuite):
    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        yield from built(SQLStorage(engine))
        engine.dispose()


class TestLiveConnectionInMemory(StorageSuite):
    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        yield from built(SQLStorage(connection))
        connection.close()


def empty(connection: Connection) -> None:
    connection.execute(update(fact).values(superseded_by=None))
    for table in reversed(metadata.sorted_tables):
        connection.execute(delete(table))


class _ServerSuite(StorageSuite):
    """The suite in one database, emptied after each test: to build one takes some engines a second."""

    engine: ClassVar[Engine]

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
        with cls.engine.empty(tmp_path_factory.getbasetemp()) as url:
            storage = SQLStorage(url)
            storage.build()
            storage.close()
            yield url

    @pytest.fixture
    def storage(self, place: URL) -> Iterator[Storage]:
        storage = SQLStorage(place)
        yield storage
        storage.close()
        database = connect(place)
        database.write(empty)
        database.close()


@needs("postgres")
class TestPostgres(_ServerSuite):
    engine = ENGINES["postgres"]


@needs("postgres-psycopg2")
class TestPostgresPsycopg2(_ServerSuite):
    engine = ENGINES["postgres-psycopg2"]


@needs("mariadb")
class TestMariaDB(_ServerSuite):
    engine = ENGINES["mariadb"]


@needs("mariadb-connector")
class TestMariaDBConnector(_ServerSuite):
    engine = ENGINES["mariadb-connector"]


@needs("mysql")
class TestMySQL(_ServerSuite):
    engine = ENGINES["mysql"]


@needs("mysql-connector")
class TestMySQLConnector(_ServerSuite):
    engine = ENGINES["mysql-connector"]


@needs("oceanbase")
class TestOceanBase(_ServerSuite):
    engine = ENGINES["oceanbase"]


@needs_mongodb
class TestMongoDB(StorageSuite):
    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        from memori.storage.mongo import MongoStorage

        with mongodb() as database:
            storage = MongoStorage(database, busy_timeout_s=30.0)
            storage.build()
            yield storage
            storage.close()


# Not in reach of tests: its dialect, on a PostgreSQL that says it is CockroachDB and is as strict with transactions.
LIKE_COCKROACHDB = """
ALTER DATABASE "{name}" SET default_transaction_isolation = 'serializable';
CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT 'CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu, built 2025/05/28 13:50:31, go1.23.7)' $$;
CREATE OR REPLACE FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) RETURNS void LANGUAGE sql VOLATILE
    AS $$ SELECT $$;
"""


@needs("postgres")
class TestCockroachDBSimulated(_ServerSuite):
    engine = ENGINES["postgres"]

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
        with cls.engine.empty(tmp_path_factory.getbasetemp()) as url:
            administrator = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            with administrator.connect() as connection:
                connection.exec_driver_sql(LIKE_COCKROACHDB.format(name=url.database))
            cockroachdb = url.set(drivername="cockroachdb")
            storage = SQLStorage(cockroachdb)
            storage.build()
            storage.close()
            yield cockroachdb
