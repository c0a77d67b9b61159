"""Every storage of documents, against the whole of the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from databases import Engine, each, mongodb, needs_mongodb
from portability import portable
from sqlalchemy import URL, StaticPool, create_engine

import memori.schema.migrations
from memori.errors import NotBuiltError
from memori.protocols import ItemStorage
from memori.storage.sql import SQLStorage
from memori.testing.items import NOW, ItemStorageSuite, new_item
from memori.testing.storage import exchange, new_fact, revision


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
        with portable(), built(tmp_path / "memori.db") as items:
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


@pytest.mark.parametrize("engine", each("sqlite", "postgres", "mariadb", "mysql", "oceanbase"))
def test_a_database_without_documents_is_upgraded(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when build does not add the tables to an older database, or what is in that one does not survive it."""
    with engine.empty(tmp_path) as url:
        old = SQLStorage(url)
        with monkeypatch.context() as patched:
            patched.setattr(memori.schema.migrations, "HEAD", "0001")
            old.build()
        old.record(exchange("Hi."))
        old.revise("alice", revision(new_fact("likes tea", subject="user", predicate="likes", object="tea")), now=NOW)
        with pytest.raises(NotBuiltError, match="build"):
            old.items.find((), now=NOW)
        messages, facts = old.messages("alice"), old.facts("alice")
        assert (len(messages), len(facts)) == (2, 1)
        old.close()
        for _ in range(2):
            with built(url) as items:
                items.write([new_item()], now=NOW)
                assert [item.key for item in items.find((), now=NOW)] == ["key"]
        storage = SQLStorage(url)
        assert [one.content for one in storage.messages("alice")] == [one.content for one in messages]
        assert [one.content for one in storage.facts("alice")] == [one.content for one in facts]
        storage.close()
