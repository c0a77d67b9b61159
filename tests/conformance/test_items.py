"""Every storage of documents, against the whole of the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from databases import Engine, each, mongodb, needs_mongodb
from sqlalchemy import URL, StaticPool, create_engine

from memori.protocols import ItemStorage
from memori.storage.sql import SQLStorage
from memori.testing.items import ItemStorageSuite


@contextmanager
def built(conn: object) -> Iterator[ItemStorage]:
    storage = SQLStorage(conn)
    storage.build()
    try:
        yield storage.items
    finally:
        storage.close()


class TestSQLiteFile(ItemStorageSuite):
    @pytest.fixture
    def items(self, tmp_path: Path) -> Iterator[ItemStorage]:
        with built(tmp_path / "memori.db") as items:
            yield items


class TestSQLiteFactory(ItemStorageSuite):
    @pytest.fixture
    def items(self, tmp_path: Path) -> Iterator[ItemStorage]:
        with built(lambda: sqlite3.connect(tmp_path / "memori.db")) as items:
            yield items


class TestSQLiteInMemory(ItemStorageSuite):
    @pytest.fixture
    def items(self) -> Iterator[ItemStorage]:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        with built(engine) as items:
            yield items
        engine.dispose()


class TestServers(ItemStorageSuite):
    """The suite in one database of each server, emptied after each test."""

    @pytest.fixture(scope="class", params=each("postgres", "mariadb", "mysql", "oceanbase"))
    @classmethod
    def place(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
        engine: Engine = request.param
        with engine.empty(tmp_path_factory.getbasetemp()) as url, built(url):
            yield url

    @pytest.fixture
    def items(self, place: URL) -> Iterator[ItemStorage]:
        with built(place) as items:
            yield items
            items.erase(())


@needs_mongodb
class TestMongoDB(ItemStorageSuite):
    @pytest.fixture
    def items(self) -> Iterator[ItemStorage]:
        from memori.storage.mongo import MongoStorage

        with mongodb() as database:
            storage = MongoStorage(database, busy_timeout_s=30.0)
            storage.build()
            yield storage.items
            storage.close()
