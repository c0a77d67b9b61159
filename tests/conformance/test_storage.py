"""Every storage, against the whole of the contract."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import StaticPool, create_engine, make_url, text

from memori.protocols import Storage
from memori.storage.sql import SQLStorage
from memori.testing.storage import StorageSuite

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL")


def built(storage: SQLStorage) -> Iterator[SQLStorage]:
    storage.build()
    yield storage
    storage.close()


class TestSQLiteFile(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
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


@pytest.mark.skipif(POSTGRES_URL is None, reason="TEST_POSTGRES_URL names no server")
class TestPostgres(StorageSuite):
    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        server = make_url(str(POSTGRES_URL))
        name = f"memori_{uuid.uuid4().hex}"
        administrator = create_engine(server, isolation_level="AUTOCOMMIT")
        with administrator.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield from built(SQLStorage(server.set(database=name)))
        finally:
            with administrator.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name}"))
            administrator.dispose()
