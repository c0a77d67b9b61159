"""Connections that applications have already: every driver of theirs, set up as they like it, and Django's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import ENGINES, needs
from sqlalchemy import URL

from memori.storage.sql import SQLStorage
from memori.testing.storage import NOW, exchange, new_fact, revision
from memori.types import Fact, NewFact, Revision

# Driver → the engine that it is tried on, and what an application may set that changes what statements give or do.
DRIVERS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "psycopg": (
        "postgres",
        lambda: {"autocommit": True, "row_factory": importlib.import_module("psycopg.rows").dict_row},
    ),
    "psycopg2": (
        "postgres",
        lambda: {"cursor_factory": importlib.import_module("psycopg2.extras").RealDictCursor},
    ),
    "pymysql": (
        "mariadb",
        lambda: {"autocommit": True, "cursorclass": importlib.import_module("pymysql.cursors").DictCursor},
    ),
    "mysql.connector": ("mysql", lambda: {"autocommit": True, "buffered": True}),
    "MySQLdb": ("mariadb", lambda: {"cursorclass": importlib.import_module("MySQLdb.cursors").DictCursor}),
    "mariadb": ("mariadb", lambda: {"autocommit": True}),
}
KINDS = ("factory", "live connection", "pair", "oddly set factory", "oddly set live connection")
CASES = [
    pytest.param(driver, kind, marks=needs(DRIVERS[driver][0]))
    for driver in DRIVERS
    for kind in KINDS
    # Its connections do not say whether a transaction is open, so that they are not shared.
    if driver != "MySQLdb" or "factory" in kind
]


def opener(driver: str, url: URL) -> Callable[..., Any]:
    """Return what opens a connection with *driver*, as an application does."""
    names = {"host": url.host, "port": url.port, "user": url.username}
    if driver.startswith("psycopg"):
        names["dbname"] = url.database
    else:
        names |= {"password": url.password, "database": url.database}
    if driver in ("pymysql", "MySQLdb", "mysql.connector"):
        names["charset"] = "utf8mb4"
    return partial(importlib.import_module(driver).connect, **names)


def refuse(_: Sequence[Fact]) -> list[NewFact]:
    raise LookupError("no decision")


def use(storage: SQLStorage) -> None:
    """Store, fail, and store again, from several threads."""
    storage.build()
    storage.build()
    assert len(storage.record(exchange("Größe 🙂", session="first"))) == 2
    before = storage.version("alice")
    with pytest.raises(LookupError):
        storage.revise("alice", Revision(slots=frozenset({"x"}), decide=refuse), now=NOW)
    assert storage.version("alice") == before
    storage.revise("alice", revision(new_fact("likes tea")), now=NOW)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: storage.record(exchange(f"{number}", session="second")), range(8)))
        (fact,) = pool.submit(storage.facts, "alice").result()
        assert len(pool.submit(storage.messages, "alice").result()) == 18
    assert (fact.content, fact.valid_from) == ("likes tea", NOW)
    assert [item.content for item in storage.messages("alice", session_id="first")] == ["Größe 🙂", "Understood."]


@pytest.mark.parametrize(("driver", "kind"), CASES)
# mysqlclient and mariadb leave connections that nobody closed to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_every_driver(driver: str, kind: str, tmp_path: Path) -> None:
    """Fails when a driver's connections are unusable as an application has them, or come back changed."""
    pytest.importorskip(driver, exc_type=ImportError)
    engine, odd = DRIVERS[driver]
    with ENGINES[engine].empty(tmp_path) as url:
        options = odd() if "odd" in kind else {}
        open_one = opener(driver, url)
        live = open_one(**options)
        conn: Any = {"factory": partial(open_one, **options), "pair": lambda: (live, lambda: None)}.get(
            kind.removeprefix("oddly set "), live
        )
        storage = SQLStorage(conn)
        use(storage)
        storage.close()
        cursor = live.cursor()
        cursor.execute("SELECT count(*) AS number FROM memori_entity")
        (row,) = cursor.fetchall()
        assert list(row.values() if isinstance(row, dict) else row) == [1]
        live.close()


# --- Django ---


@pytest.fixture(scope="module")
def django_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Django, set up once for a file of SQLite's and, if there is one, a PostgreSQL server."""
    pytest.importorskip("django.db")
    import django
    from django.conf import settings
    from django.db import connections
    from django.urls import path

    folder = tmp_path_factory.mktemp("django")
    databases: dict[str, Any] = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3", "ATOMIC_REQUESTS": True},
        "memory": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:shared?mode=memory&cache=shared"},
    }
    postgres = ENGINES["postgres"]
    with postgres.empty(folder) if not postgres.missing else ENGINES["sqlite"].empty(folder) as url:
        if not postgres.missing:
            databases["postgres"] = {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.database,
                "USER": url.username,
                "HOST": url.host,
                "PORT": url.port,
                "ATOMIC_REQUESTS": True,
            }
        settings.configure(
            DATABASES=databases,
            ROOT_URLCONF=(path("note/<alias>/", note),),
            ALLOWED_HOSTS=["testserver"],
            # Not UTC, and times without a zone: what Django's own connections would give memori.
            USE_TZ=False,
            TIME_ZONE="Asia/Tokyo",
        )
        django.setup()
        yield connections
        connections.close_all()


storages: dict[str, SQLStorage] = {}


def note(request: Any, alias: str) -> Any:
    """Answer a request: write a row of the application's own, have memori store an exchange, then fail if asked to."""
    from django.db import connections
    from django.http import HttpResponse

    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO note (said) VALUES (%s)", [request.GET["said"]])
    storages[alias].record(exchange(request.GET["said"], entity="visitor"))
    if "fail" in request.GET:
        raise RuntimeError("the view failed")
    return HttpResponse("noted")


ALIASES = ["default", pytest.param("postgres", marks=needs("postgres"))]


@pytest.mark.parametrize("alias", [*ALIASES, "memory"])
def test_djangos_connections(django_databases: Any, alias: str) -> None:
    """Fails when a connection of Django's is refused, or works in its own thread only."""
    wrapper = django_databases[alias]
    wrapper.ensure_connection()  # A database in memory lives as long as someone is connected.
    storage = SQLStorage(wrapper)
    use(storage)
    storage.close()
    storage = SQLStorage(lambda: wrapper)
    assert len(storage.messages("alice")) == 18
    storage.close()


def test_djangos_default_connection(django_databases: Any) -> None:
    """Fails when `django.db.connection` is refused."""
    from django.db import connection

    storage = SQLStorage(connection)
    storage.build()
    assert len(storage.record(exchange("Hi.", entity="default"))) == 2
    storage.close()


@pytest.mark.parametrize("alias", ALIASES)
def test_djangos_transactions_are_left_alone(django_databases: Any, alias: str) -> None:
    """Fails when what a view wrote is committed by memori, or memori's exchange is rolled back with the view."""
    from django.test import Client

    wrapper = django_databases[alias]
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE note (said text)")
    storages[alias] = storage = SQLStorage(wrapper, busy_timeout_s=0.5)
    storage.build()
    client = Client(raise_request_exception=False)
    # Where one may write at a time, SQLite's transaction of the request has to end first.
    if wrapper.vendor != "sqlite":
        assert client.get(f"/note/{alias}/?said=one").status_code == 200
        assert client.get(f"/note/{alias}/?said=two&fail=1").status_code == 500
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT said FROM note")
            assert cursor.fetchall() == [("one",)]
        said = [item.content for item in storage.messages("visitor") if item.role == "user"]
        assert said == ["one", "two"]
    else:
        assert client.get(f"/note/{alias}/?said=one").status_code == 500
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT said FROM note")
            assert cursor.fetchall() == []
        assert len(storage.record(exchange("later", entity="visitor"))) == 2
    storage.close()
