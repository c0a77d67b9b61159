"""Every storage of documents, against the whole of the contract."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import StaticPool, create_engine, make_url, text

from memori.protocols import ItemStorage
from memori.storage.sql import SQLStorage
from memori.testing.items import ItemStorageSuite

# Each with a database of its own for every test, made and dropped over the server's own.
SERVERS = {name: os.environ.get(f"TEST_{name}_URL") for name in ("POSTGRES", "MARIADB", "MYSQL")}


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


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(url, id=name, marks=pytest.mark.skipif(url is None, reason=f"TEST_{name}_URL names no server"))
        for name, url in SERVERS.items()
    ],
)
class TestServers(ItemStorageSuite):
    @pytest.fixture
    def items(self, server: str) -> Iterator[ItemStorage]:
        url = make_url(server)
        name = f"memori_{uuid.uuid4().hex}"
        administrator = create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with administrator.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            with built(url.set(database=name)) as items:
                yield items
        finally:
            with administrator.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name}"))
            administrator.dispose()
