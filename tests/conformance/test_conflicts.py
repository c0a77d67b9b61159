"""Transactions that come into conflict are done again, whole, by whatever error an engine tells of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from databases import Engine, each
from sqlalchemy import Connection, create_engine, event, func, select, update

from memori.schema.tables import entity
from memori.storage.connect import connect
from memori.storage.sql import SQLStorage
from memori.testing.storage import NOW, new_fact, revision

NAMES = ("ann", "bob")


def at_once(engine: Engine, folder: Path, isolation: str, *, same_row: bool) -> tuple[list[int], Counter[str], int]:
    """Have two transactions read the sum of all versions, then write a version greater by one.

    Return the versions then, how often each transaction was begun, and how many errors the driver raised.
    """
    tries: Counter[str] = Counter()
    errors: list[BaseException] = []
    both_have_read = threading.Barrier(2)

    def work(name: str) -> Callable[[Connection], None]:
        def run(connection: Connection) -> None:
            tries[name] += 1
            total = connection.scalar(select(func.sum(entity.c.version)))
            assert total is not None
            if tries[name] == 1:
                both_have_read.wait(60)
            written = NAMES[0] if same_row else name
            connection.execute(update(entity).where(entity.c.external_id == written).values(version=int(total) + 1))

        return run

    with engine.empty(folder) as url:
        own = create_engine(url, isolation_level=isolation)
        storage = SQLStorage(own)
        storage.build()
        for name in NAMES:
            storage.revise(name, revision(new_fact("x")), now=NOW)
        event.listen(own, "handle_error", lambda context: errors.append(context.original_exception))
        database = connect(own)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: database.write(work(name)), NAMES))

        def versions(connection: Connection) -> Any:
            return connection.scalars(select(entity.c.version)).all()

        found = sorted(database.read(versions))
        own.dispose()
    return found, tries, len(errors)


@pytest.mark.parametrize(
    "engine",
    each("postgres", "postgres-psycopg2", "mariadb", "mariadb-connector", "mysql", "mysql-connector"),
)
def test_serializable_transactions_that_write_what_the_other_read(engine: Engine, tmp_path: Path) -> None:
    """Fails when sqlstate 40001, or a deadlock's 1213, is not the reason to do the transaction again."""
    versions, tries, errors = at_once(engine, tmp_path, "SERIALIZABLE", same_row=False)
    assert versions == [3, 5]  # One after the other, in either order.
    assert sorted(tries.values()) == [1, 2]
    assert errors == 1


@pytest.mark.parametrize("engine", each("postgres", "postgres-psycopg2", "oceanbase"))
def test_repeatable_reads_that_write_the_same(engine: Engine, tmp_path: Path) -> None:
    """Fails when PostgreSQL's 40001 or OceanBase's 6235 is not the reason to do the transaction again."""
    versions, tries, errors = at_once(engine, tmp_path, "REPEATABLE READ", same_row=True)
    assert versions == [1, 5]  # Of "ann" 3, then 3 + 1 + 1; of "bob" still 1.
    assert sorted(tries.values()) == [1, 2]
    assert errors == 1
