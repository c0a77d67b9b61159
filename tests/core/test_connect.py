"""Whatever leads to a database is taken, works from every thread, and is left as it was."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlmodel
from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import AssertionPool, NullPool, SingletonThreadPool, StaticPool

from memori.errors import ConfigurationError, MemoriError, NotBuiltError, StorageError, UnsupportedConnectionError
from memori.schema.migrations import upgrade
from memori.storage.choose import storage_from
from memori.storage.sql import SQLStorage
from memori.testing.storage import NOW, exchange, new_fact, revision
from memori.types import Revision

T = TypeVar("T")
ANY_THREAD = {"check_same_thread": False}


def elsewhere(work: Callable[[], T]) -> T:
    """Return what *work* returns in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(60)


def dictionaries(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def odd(path: Path | str, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    connection.row_factory = dictionaries
    connection.isolation_level = None
    return connection


def engine(path: Path, **options: Any) -> Engine:
    return create_engine(f"sqlite:///{path}", **options)


def in_memory() -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool, connect_args=ANY_THREAD)


@contextlib.contextmanager
def lent(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def lent_session(path: Path) -> Iterator[Session]:
    with Session(engine(path)) as session:
        yield session


def pair(path: Path) -> tuple[sqlite3.Connection, Callable[[sqlite3.Connection], None]]:
    return sqlite3.connect(path), sqlite3.Connection.close


def simple_pair(path: Path) -> tuple[sqlite3.Connection, Callable[[], None]]:
    connection = sqlite3.connect(path)
    return connection, lambda: connection.close()


def same(connection: T) -> Callable[[], T]:
    return lambda: connection


class Opener:
    """A callable that is no function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)


KINDS: dict[str, Callable[[Path], Any]] = {
    "URL": lambda path: f"sqlite:///{path}",
    "URL with options": lambda path: f"sqlite:///{path}?timeout=9",
    "URL of a file URI": lambda path: f"sqlite:///file:{path}?mode=rwc&uri=true",
    "URL in memory": lambda _: "sqlite://",
    "URL object": lambda path: make_url(f"sqlite+pysqlite:///{path}"),
    "path": str,
    "Path": lambda path: path,
    ":memory:": lambda _: ":memory:",
    "Engine": engine,
    "Engine without a pool": lambda path: engine(path, poolclass=NullPool),
    "Engine with one connection": lambda path: engine(path, poolclass=AssertionPool),
    "Engine with a connection a thread": lambda path: engine(path, poolclass=SingletonThreadPool),
    "Engine that commits by itself": lambda path: engine(path, isolation_level="AUTOCOMMIT"),
    "Engine in memory": lambda _: in_memory(),
    "Engine in memory, its own pool": lambda _: create_engine("sqlite://", connect_args=ANY_THREAD),
    "SQLModel engine": lambda path: sqlmodel.create_engine(f"sqlite:///{path}"),
    "Connection": lambda path: engine(path).connect(),
    "Connection in memory": lambda _: in_memory().connect(),
    "sessionmaker": lambda path: sessionmaker(engine(path)),
    "sessionmaker of a Connection": lambda path: sessionmaker(engine(path).connect()),
    "Session": lambda path: Session(engine(path)),
    "SQLModel Session": lambda path: sqlmodel.Session(engine(path)),
    "scoped_session": lambda path: scoped_session(sessionmaker(engine(path))),
    "live connection": sqlite3.connect,
    "live connection, oddly set": odd,
    "live connection in memory": lambda _: sqlite3.connect(":memory:", check_same_thread=False),
    "live connection in memory, oddly set": lambda _: odd(":memory:", check_same_thread=False),
    "live pair": pair,
    "factory": lambda path: lambda: sqlite3.connect(path),
    "factory for any thread": lambda path: lambda: sqlite3.connect(path, check_same_thread=False),
    "factory of odd connections": lambda path: lambda: odd(path),
    "factory of odd connections for any thread": lambda path: lambda: odd(path, check_same_thread=False),
    "factory of one connection": lambda path: same(sqlite3.connect(path)),
    "factory of one connection in memory": lambda _: same(sqlite3.connect(":memory:", check_same_thread=False)),
    "factory of connections in memory": lambda _: lambda: sqlite3.connect(":memory:", check_same_thread=False),
    "factory of URLs": lambda path: lambda: f"sqlite:///{path}",
    "factory of Engines": lambda path: same(engine(path)),
    "factory of Sessions": lambda path: lambda: Session(engine(path)),
    "factory of SQLAlchemy's raw connections": lambda path: engine(path).raw_connection,
    "callable object": Opener,
    "partial": lambda path: partial(sqlite3.connect, path),
    "factory of pairs": lambda path: lambda: pair(path),
    "factory of pairs that release without argument": lambda path: lambda: simple_pair(path),
    "context manager": lambda path: lambda: lent(path),
    "context manager of Sessions": lambda path: lambda: lent_session(path),
}
if sys.version_info >= (3, 12):
    for mode in (True, False):
        KINDS |= {
            f"Engine, autocommit={mode}": partial(engine, connect_args={"autocommit": mode}),
            f"factory, autocommit={mode}": lambda path, mode=mode: partial(sqlite3.connect, path, autocommit=mode),
            f"live connection, autocommit={mode}": partial(sqlite3.connect, autocommit=mode),
        }
    KINDS["live connection in memory, autocommit=True"] = lambda _: sqlite3.connect(
        ":memory:", check_same_thread=False, autocommit=True
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_every_kind_of_conn(kind: str, tmp_path: Path) -> None:
    """Fails when something that leads to a database is refused, or works in the thread that made it only."""
    storage = SQLStorage(KINDS[kind](tmp_path / "memori.db"))
    storage.build()
    storage.build()
    assert len(storage.record(exchange("From here."))) == 2
    assert len(elsewhere(lambda: storage.record(exchange("From there.")))) == 2
    storage.revise("alice", revision(new_fact("x")), now=NOW)
    said = [item.content for item in storage.messages("alice")]
    assert said == ["From here.", "Understood.", "From there.", "Understood."]
    assert elsewhere(lambda: [item.content for item in storage.messages("alice")]) == said
    assert [fact.content for fact in elsewhere(lambda: storage.facts("alice"))] == ["x"]

    def work(number: int) -> None:
        for turn in range(3):
            storage.record(exchange(f"{number}.{turn}", entity="crowd"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(storage.messages("crowd")) == 36
    elsewhere(storage.close)


REFUSED: dict[str, tuple[Any, str]] = {
    "None": (None, "URL.*Engine.*sqlite3.*callable"),
    "a number": (5, "builtins.int"),
    "an object": (object(), "conn= takes"),
    "a list": ([], "conn= takes"),
    "a class": (Opener, "conn= takes"),
    "an empty string": ("", "empty"),
    "a MongoDB URL": ("mongodb://localhost/x", "MongoDB"),
    "no URL": ("postgresql://user:hunter2@host:no/x", "cannot be read"),
    "a dialect nobody has": ("nosuch://host/x", "nosuch"),
    "an asynchronous URL": ("sqlite+aiosqlite:///memori.db", "'sqlite:///memori.db'"),
    "an asynchronous PostgreSQL URL": ("postgresql+asyncpg://me@host/x", r"'postgresql\+psycopg://me@host/x'"),
    "an asynchronous MySQL URL": ("mysql+aiomysql://me@host/x", r"'mysql\+pymysql://me@host/x'"),
    "an asynchronous URL with options": (
        "mysql+aiomysql://me@host/x?password=hunter2",
        r"'mysql\+pymysql://me@host/x'",
    ),
    "libpq's keywords": ("host=h password=hunter2 dbname=d", "connection string"),
    "ODBC's keywords": ("Driver={x};Server=h;Pwd=hunter2", "connection string"),
    "options that the driver cannot use": ("mysql+pymysql://me:hunter2@host/x?read_timeout=hunter2", "its options"),
    "a SQLite URL with options that it cannot use": ("sqlite:///memori.db?timeout=soon", "its options"),
    "the home of nobody": ("~nosuchuser/memori.db", "nosuchuser"),
    "an unbound sessionmaker": (sessionmaker(), "bind=engine"),
    "an unbound Session": (Session(), "bind=engine"),
    "a tuple": ((1, 2), "conn= takes"),
    "a pair that is none": ((1, print), "conn= takes"),
    "a thread's connection in memory": (sqlite3.connect(":memory:"), "check_same_thread=False"),
    "a thread's Engine in memory": (create_engine("sqlite://"), "StaticPool"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_at_once(kind: str) -> None:
    """Fails when what leads to no database is taken, or the message does not say what is."""
    conn, message = REFUSED[kind]
    with pytest.raises(UnsupportedConnectionError, match=message) as caught:
        SQLStorage(conn)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ConfigurationError)
    assert "hunter2" not in str(caught.value)


def test_asynchronous_functions_are_refused() -> None:
    """Fails when a function that would return a coroutine is taken for one that returns a connection."""

    async def connection() -> sqlite3.Connection:
        return sqlite3.connect(":memory:")

    with pytest.raises(UnsupportedConnectionError, match="asynchronous"):
        SQLStorage(connection)


def test_asynchronous_engines_are_refused_with_the_url_to_use() -> None:
    """Fails when an asynchronous engine, or what is bound to one, is taken, or its password is told."""
    pytest.importorskip("psycopg")
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

    asynchronous = create_async_engine("postgresql+psycopg_async://me:hunter2@host/x")
    bound = (asynchronous.connect(), async_sessionmaker(asynchronous), AsyncSession(asynchronous))
    for conn in (asynchronous, asynchronous.sync_engine, *bound):
        with pytest.raises(UnsupportedConnectionError, match=r"postgresql\+psycopg://me:\*\*\*@host/x"):
            SQLStorage(conn)
    with pytest.raises(UnsupportedConnectionError, match="the synchronous one"):
        SQLStorage(async_sessionmaker())


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a URL whose driver is not installed does not say what to install."""
    monkeypatch.setitem(sys.modules, "oracledb", None)
    with pytest.raises(ImportError, match=r"pip install 'memori-byodb\[oracle\]'"):
        SQLStorage("oracle://me@host/x")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"pip install 'memori-byodb\[cockroachdb\]'"):
        SQLStorage("cockroachdb://me@host/x")


def test_making_a_storage_reaches_for_nothing(tmp_path: Path) -> None:
    """Fails when the constructor calls the factory, opens a file, or waits for a server."""

    def factory() -> sqlite3.Connection:
        raise AssertionError("called")

    SQLStorage(factory)
    SQLStorage(tmp_path / "none" / "memori.db")
    SQLStorage(engine(tmp_path / "memori.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_factory_that_fails_is_asked_again() -> None:
    """Fails when what a factory raises gets out as it is, or a factory that failed once is given up."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    broken = True

    def factory() -> sqlite3.Connection:
        if broken:
            raise OSError("no route to the database")
        return connection

    storage = SQLStorage(factory)
    works: list[Callable[[], object]] = [storage.build, lambda: storage.version("alice")]
    for work in works:
        with pytest.raises(StorageError, match="no route to the database"):
            work()
    broken = False
    storage.build()
    assert len(storage.record(exchange("Hi."))) == 2
    connection.close()


def test_a_factory_of_connections_that_do_not_work() -> None:
    """Fails when sqlite3's own error gets out of a factory's connection that is closed, or another thread's."""
    closed = sqlite3.connect(":memory:")
    closed.close()
    with pytest.raises(StorageError, match="closed: pass an open one"):
        SQLStorage(same(closed)).facts("alice")
    bound = sqlite3.connect(":memory:")
    with pytest.raises(StorageError, match="thread"):
        elsewhere(lambda: SQLStorage(same(bound)).facts("alice"))
    bound.close()


def test_a_factory_that_does_not_return_holds_nobody_for_long() -> None:
    """Fails when another thread, or `close`, waits for the factory longer than it may."""
    called, back = threading.Event(), threading.Event()

    def factory() -> str:
        called.set()
        assert back.wait(60)
        return ":memory:"

    storage = storage_from(factory, busy_timeout_s=0.05)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: storage.build())
        try:
            assert called.wait(60)
            with pytest.raises(StorageError, match="other threads"):
                storage.facts("alice")
            storage.close()
            assert not first.done()
        finally:
            back.set()
        first.result(60)
    assert storage.facts("alice") == []
    storage.close()


def test_a_factory_of_nothing_useful() -> None:
    """Fails when a factory's mistake is reported as the database's."""
    with pytest.raises(UnsupportedConnectionError, match="NoneType"):
        SQLStorage(lambda: None).build()


# --- What is the user's stays the user's ---


def test_an_engine_is_left_as_it_was(tmp_path: Path) -> None:
    """Fails when memori keeps a connection of the user's Engine, changes its settings, or closes it."""
    own = engine(tmp_path / "memori.db", pool_size=1, max_overflow=0, connect_args={"timeout": 7})
    storage = SQLStorage(own)
    storage.build()
    storage.record(exchange("Hi."))
    with own.connect() as connection:
        assert connection.scalar(text("PRAGMA foreign_keys")) == 0
        assert connection.scalar(text("PRAGMA busy_timeout")) == 7000
    storage.close()
    assert own.pool.checkedout() == 0  # type: ignore[attr-defined]
    with own.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM memori_conversation_message")) == 2
    own.dispose()


def test_a_connection_a_thread_may_be_in_a_transaction(tmp_path: Path) -> None:
    """Fails when what the user's thread has not committed is rolled back, because memori's gets that connection too."""
    own = engine(tmp_path / "memori.db", poolclass=SingletonThreadPool)
    storage = SQLStorage(own, busy_timeout_s=0.05)
    storage.build()
    with own.connect() as connection:
        connection.execute(text("CREATE TABLE mine (x)"))
        connection.execute(text("INSERT INTO mine VALUES (1)"))
        with pytest.raises(StorageError, match="transaction of yours"):
            storage.record(exchange("Hi."))
        connection.commit()
        assert connection.scalar(text("SELECT count(*) FROM mine")) == 1
    assert len(storage.record(exchange("Hi."))) == 2
    own.dispose()


def test_the_one_connection_of_an_engine_in_use(tmp_path: Path) -> None:
    """Fails when SQLAlchemy's AssertionError gets out."""
    own = engine(tmp_path / "memori.db", poolclass=AssertionPool)
    storage = SQLStorage(own)
    storage.build()
    with own.connect(), pytest.raises(StorageError, match="in use"):
        storage.facts("alice")
    assert storage.facts("alice") == []
    own.dispose()


def test_drivers_that_do_not_tell_of_transactions_are_not_shared() -> None:
    """Fails when a live or lent connection is taken on which memori could end a transaction of the user's."""
    connections = pytest.importorskip("MySQLdb.connections", exc_type=ImportError)
    live = connections.Connection.__new__(connections.Connection)  # Without a server.
    pooled = create_engine("mysql+mysqldb://me@host/x", poolclass=StaticPool)
    for conn in (live, (live, lambda: None), pooled):
        with pytest.raises(UnsupportedConnectionError, match=r"mysqlclient.*transaction of yours.*URL"):
            SQLStorage(conn)
    given_back: list[Any] = []
    for factory in (lambda: live, lambda: (live, given_back.append)):
        with pytest.raises(UnsupportedConnectionError, match="mysqlclient"):
            SQLStorage(factory).build()
    assert given_back == [live]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has no autocommit= there")
def test_a_connection_with_a_transaction_at_all_times() -> None:
    """Fails when a shared connection that never is without a transaction is waited for."""
    options: Any = {"autocommit": False}
    connection = sqlite3.connect(":memory:", check_same_thread=False, **options)
    storage = SQLStorage(connection, busy_timeout_s=60)
    with pytest.raises(StorageError, match="autocommit=False"):
        storage.build()
    connection.close()


def test_oracle_that_commits_by_itself_is_refused() -> None:
    """Fails when a connection on which no transaction can be begun is given a statement that Oracle does not know."""
    pytest.importorskip("oracledb")

    class Driver:
        autocommit = True
        commit = rollback = close = cursor = None

    # There is no server: SQLAlchemy is kept from asking it anything.
    own = create_engine("oracle+oracledb://", creator=Driver, _initialize=False, pool_reset_on_return=None)
    with pytest.raises(StorageError, match="without autocommit"):
        SQLStorage(own).build()


def test_an_engine_that_begins_transactions_itself(tmp_path: Path) -> None:
    """Fails when SQLAlchemy's recipe for pysqlite, a listener that emits BEGIN, keeps memori from writing."""
    own = engine(tmp_path / "memori.db")

    @event.listens_for(own, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(own, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    storage = SQLStorage(own)
    storage.build()
    assert len(storage.record(exchange("Hi."))) == 2
    assert len(storage.messages("alice")) == 2
    own.dispose()


@pytest.mark.parametrize("kind", ["sqlite3", "Engine"])
def test_the_users_transaction_is_not_joined(kind: str) -> None:
    """Fails when memori commits or rolls back what the user began on a shared connection, or waits for ever."""
    if kind == "sqlite3":
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        storage = SQLStorage(connection, busy_timeout_s=0.3)
    else:
        own = in_memory()
        connection = own.raw_connection().driver_connection  # type: ignore[assignment]
        storage = SQLStorage(own, busy_timeout_s=0.3)
    storage.build()
    connection.execute("CREATE TABLE mine (x)")
    connection.execute("INSERT INTO mine VALUES (1)")
    assert connection.in_transaction
    works: list[Callable[[], object]] = [lambda: storage.record(exchange("Hi.")), lambda: storage.messages("alice")]
    for work in works:
        with pytest.raises(StorageError, match=r"transaction of yours.*commit"):
            elsewhere(work)
    assert connection.in_transaction
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM mine").fetchall() == [(0,)]
    assert len(elsewhere(lambda: storage.record(exchange("Hi.")))) == 2
    assert connection.execute("SELECT count(*) FROM memori_entity").fetchall() == [(1,)]
    storage.close()
    connection.execute("SELECT 1")
    connection.close()


def test_a_users_transaction_that_ends_is_waited_for() -> None:
    """Fails when an exchange is refused although the shared connection was free in time."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    storage = SQLStorage(connection)
    storage.build()
    connection.execute("CREATE TABLE mine (x)")
    connection.execute("INSERT INTO mine VALUES (1)")
    timer = threading.Timer(0.2, connection.commit)
    timer.start()
    assert len(elsewhere(lambda: storage.record(exchange("Hi.")))) == 2
    timer.join()
    assert connection.execute("SELECT count(*) FROM mine").fetchall() == [(1,)]
    connection.close()


def test_a_live_connection_to_a_file_is_not_needed_any_more(tmp_path: Path) -> None:
    """Fails when memori depends on a connection that it need not, or that the user has in a transaction."""
    connection = sqlite3.connect(tmp_path / "memori.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    storage = SQLStorage(connection)
    storage.build()
    connection.execute("SELECT * FROM mine")
    assert len(storage.record(exchange("Hi."))) == 2
    assert connection.execute("SELECT count(*) FROM memori_entity").fetchall() == [(1,)]
    connection.close()
    assert len(storage.messages("alice")) == 2
    storage.close()


def test_what_is_lent_is_given_back(tmp_path: Path) -> None:
    """Fails when a connection from a pair or a context manager is kept, closed, or released twice."""
    taken: list[sqlite3.Connection] = []
    released: list[sqlite3.Connection] = []

    def factory() -> tuple[sqlite3.Connection, Callable[[sqlite3.Connection], None]]:
        taken.append(sqlite3.connect(tmp_path / "memori.db", check_same_thread=False))
        return taken[-1], released.append

    storage = SQLStorage(factory)
    storage.build()
    storage.record(exchange("Hi."))
    with pytest.raises(LookupError):
        storage.revise("alice", revision_that_fails(), now=NOW)
    assert storage.version("alice") is not None
    storage.close()
    assert taken == released
    for connection in taken:
        assert not connection.in_transaction
        connection.close()


def revision_that_fails() -> Any:
    def decide(_: object) -> Any:
        raise LookupError

    return Revision(slots=frozenset(), decide=decide)


# --- Failures, and what comes after them ---


class Locker:
    """Another process that holds a SQLite file's lock."""

    CODE = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]); connection.execute('BEGIN EXCLUSIVE'); "
        "print(1, flush=True); sys.stdin.read()"
    )

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "1\n"

    def release(self) -> None:
        self.process.communicate()


FILES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "live connection": sqlite3.connect,
    "Engine": engine,
    "factory": lambda path: lambda: sqlite3.connect(path),
    "factory for any thread": lambda path: lambda: sqlite3.connect(path, check_same_thread=False),
    "factory of pairs": lambda path: lambda: pair(path),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_lock_is_waited_for_within_bounds(kind: str, tmp_path: Path) -> None:
    """Fails when a locked database blocks for longer than it may, is reported as something else, or stays broken."""
    path = tmp_path / "memori.db"
    storage = SQLStorage(FILES[kind](path), busy_timeout_s=0.5)
    storage.build()
    storage.record(exchange("Before."))
    locker = Locker(path)
    works: list[Callable[[], object]] = [
        lambda: storage.record(exchange("Now.")),
        lambda: elsewhere(lambda: storage.record(exchange("Now."))),
    ]
    for work in works:
        began = time.monotonic()
        with pytest.raises(StorageError, match="locked by another connection"):
            work()
        assert 0.4 < time.monotonic() - began < 3.0
    timer = threading.Timer(0.2, locker.release)
    timer.start()
    assert len(storage.record(exchange("After."))) == 2
    timer.join()
    assert len(elsewhere(lambda: storage.messages("alice"))) == 4
    storage.close()


@pytest.mark.parametrize("kind", FILES)
def test_a_deleted_file_is_noticed(kind: str, tmp_path: Path) -> None:
    """Fails when memories go into a file that was deleted, or memori does not work again with the new one."""
    path = tmp_path / "memori.db"
    storage = SQLStorage(FILES[kind](path))
    storage.build()
    storage.record(exchange("Before."))
    for file in tmp_path.glob("memori.db*"):
        file.unlink()
    works: list[Callable[[], object]] = [
        lambda: storage.record(exchange("Lost?")),
        lambda: elsewhere(lambda: storage.messages("alice")),
    ]
    for work in works:
        with pytest.raises(StorageError, match=r"no database file .*memori\.db: restore it, or call"):
            work()
    assert not path.exists()
    storage.build()
    assert len(storage.record(exchange("After."))) == 2
    assert [item.content for item in elsewhere(lambda: storage.messages("alice"))] == ["After.", "Understood."]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM memori_conversation_message").fetchall() == [(2,)]
    connection.close()
    storage.close()


@pytest.mark.parametrize("kind", FILES)
def test_a_replaced_file_is_noticed(kind: str, tmp_path: Path) -> None:
    """Fails when memori goes on with the file that was there before another took its place."""
    path = tmp_path / "memori.db"
    storage = SQLStorage(FILES[kind](path))
    storage.build()
    storage.record(exchange("Before."))
    backup = SQLStorage(tmp_path / "backup.db")
    backup.build()
    backup.record(exchange("From the backup."))
    backup.close()
    for file in tmp_path.glob("memori.db*"):
        file.unlink()
    os.rename(tmp_path / "backup.db", path)  # noqa: PTH104 - what an operator does
    assert [item.content for item in storage.messages("alice")] == ["From the backup.", "Understood."]
    assert len(storage.record(exchange("After."))) == 2
    storage.close()


def test_a_read_only_database_says_so(tmp_path: Path) -> None:
    """Fails when a database that cannot be written to is reported as something else, or stays broken."""
    path = tmp_path / "memori.db"
    SQLStorage(path).build()
    mode = "ro"
    storage = SQLStorage(lambda: sqlite3.connect(f"file:{path}?mode={mode}", uri=True))
    assert storage.messages("alice") == []
    with pytest.raises(StorageError, match="read-only"):
        storage.record(exchange("Hi."))
    mode = "rw"
    assert len(storage.record(exchange("Hi."))) == 2
    storage.close()


def test_a_closed_connection_says_so() -> None:
    """Fails when a connection that the user closed is reported as something else."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    storage = SQLStorage(connection)
    storage.build()
    connection.close()
    with pytest.raises(StorageError, match="closed: pass an open one"):
        storage.record(exchange("Hi."))
    with pytest.raises(UnsupportedConnectionError, match="closed"):
        SQLStorage(connection)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Fails when a path that cannot be opened raises something else, or does not work once it can be."""
    path = tmp_path / "folder" / "memori.db"
    storage = SQLStorage(path)
    with pytest.raises(NotBuiltError, match="build"):
        storage.record(exchange("Hi."))
    with pytest.raises(StorageError):
        storage.build()
    path.parent.mkdir()
    storage.build()
    assert len(storage.record(exchange("Hi."))) == 2
    storage.close()


def test_not_a_database(tmp_path: Path) -> None:
    """Fails when a file of another kind is written to, or raises something else than a `StorageError`."""
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, and nobody's database. " * 100)
    before = path.read_bytes()
    storage = SQLStorage(path)
    works: list[Callable[[], object]] = [storage.build, lambda: storage.record(exchange("Hi."))]
    for work in works:
        with pytest.raises(StorageError, match="not a database"):
            work()
    assert path.read_bytes() == before
    storage.close()


def test_errors_do_not_tell_what_was_said(tmp_path: Path) -> None:
    """Fails when the text of a message gets into an error, and from there into a log."""
    path = tmp_path / "memori.db"
    storage = SQLStorage(path)
    storage.build()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE memori_augmentation_job")
    connection.execute("DROP TABLE memori_conversation_message")
    connection.commit()
    connection.close()
    with pytest.raises(MemoriError) as caught:
        storage.record(exchange("My password is swordfish."))
    error: BaseException | None = caught.value
    while error is not None:
        assert "swordfish" not in str(error)
        error = error.__cause__
    storage.close()


def test_no_more_threads_is_no_failure_of_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a row that was committed is reported as failed, because the log could not be synced beside."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    storage = SQLStorage(tmp_path / "memori.db")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        storage.build()
        assert len(storage.record(exchange("Hi."))) == 2
        storage.close()
    assert len(storage.messages("alice")) == 2
    storage.close()


@pytest.mark.parametrize(
    "said",
    [(1062, "Duplicate entry 'sword'fish' for key 'x'"), (1366, "Incorrect string value: 'swordfish' for column 'c'")],
)
def test_errors_of_mysql_do_not_tell_what_was_said(said: tuple[int, str], tmp_path: Path) -> None:
    """Fails when the value that a server of the MySQL family refused gets into an error or its traceback."""
    pymysql = pytest.importorskip("pymysql")
    storage = SQLStorage(tmp_path / "memori.db")
    storage.build()

    def refuse() -> list[Any]:
        raise DBAPIError("INSERT", {"content": "swordfish"}, pymysql.err.DataError(*said))

    with pytest.raises(StorageError, match=f"DataError.*{said[0]}") as caught:
        storage.revise("alice", Revision(slots=frozenset({"x"}), decide=lambda _: refuse()), now=NOW)
    assert "fish" not in "".join(traceback.format_exception(caught.value))
    storage.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(tmp_path: Path) -> None:
    """Fails when parent and child write through one connection."""
    storage = SQLStorage(tmp_path / "memori.db")
    storage.build()
    storage.record(exchange("Parent."))
    child = os.fork()
    if child == 0:
        storage.reset()
        stored = 1
        with contextlib.suppress(BaseException):
            stored = len(storage.record(exchange("Child."))) - 2
        os._exit(stored)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(storage.record(exchange("Parent again."))) == 2
    assert len(storage.messages("alice")) == 6
    storage.close()


# --- PostgreSQL, where one is running ---

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL")


@pytest.fixture
def postgres() -> Iterator[URL]:
    url = make_url(str(POSTGRES_URL))
    administrator = create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"memori_connect_{os.getpid()}"
    with administrator.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield url.set(database=name)
    with administrator.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


@pytest.mark.skipif(POSTGRES_URL is None, reason="TEST_POSTGRES_URL names no server")
class TestPostgres:
    """The kinds that differ on a server."""

    @pytest.mark.parametrize("kind", ["live", "live, oddly set", "factory", "pairs", "URL", "Engine", "AUTOCOMMIT"])
    def test_kinds(self, postgres: URL, kind: str) -> None:
        """Fails when a connection to a server is unusable as it is given, or statements are not one transaction."""
        psycopg: Any = pytest.importorskip("psycopg")
        dsn = postgres.set(drivername="postgresql").render_as_string(hide_password=False)
        live = psycopg.connect(dsn, autocommit="odd" in kind)
        if "odd" in kind:
            live.row_factory = psycopg.rows.dict_row
        kinds: dict[str, Any] = {
            "live": live,
            "live, oddly set": live,
            "factory": lambda: psycopg.connect(dsn),
            "pairs": lambda: (live, lambda: None),
            "URL": dsn,
            "Engine": create_engine(postgres, poolclass=NullPool),
            "AUTOCOMMIT": create_engine(postgres, poolclass=NullPool, isolation_level="AUTOCOMMIT"),
        }
        storage = SQLStorage(kinds[kind])
        storage.build()
        storage.build()
        assert len(storage.record(exchange("Hi."))) == 2
        with pytest.raises(LookupError):
            storage.revise("alice", revision_that_fails(), now=NOW)
        version = storage.version("alice")
        assert version is not None
        assert version.number == 1
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: storage.record(exchange(f"{number}")), range(8)))
        assert len(elsewhere(lambda: storage.messages("alice"))) == 18
        assert live.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        storage.close()
        live.execute("SELECT 1")
        live.close()

    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
    def test_errors_do_not_tell_what_was_said(self, postgres: URL, driver: str) -> None:
        """Fails when the row that PostgreSQL refused gets into an error or its traceback, and so into a log."""
        pytest.importorskip(driver)
        own = create_engine(postgres.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
        storage = SQLStorage(own)
        storage.build()
        with own.begin() as connection:
            connection.execute(text("ALTER TABLE memori_conversation_message ADD CHECK (length(content) < 5)"))
        secret = "sword" + "fish"
        with pytest.raises(StorageError, match="violates check constraint") as caught:
            storage.record(exchange(f"My password is {secret}."))
        assert secret not in "".join(traceback.format_exception(caught.value))
        assert len(storage.record(exchange("Hi.", reply="Ho."))) == 2

    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    def test_who_builds_second(self, postgres: URL, level: Any) -> None:
        """Fails when one that waited for another builder makes its tables again, or fails on them."""
        first = create_engine(postgres, poolclass=NullPool)
        storage = SQLStorage(create_engine(postgres, poolclass=NullPool, isolation_level=level))
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        with first.begin() as connection, first.connect() as observer, ThreadPoolExecutor(1) as pool:
            upgrade(connection, timeout_s=60)
            second = pool.submit(storage.build)
            end = time.monotonic() + 60
            while not observer.scalar(waiting) and not second.done():
                assert time.monotonic() < end
            connection.commit()
            second.result(60)
        assert len(storage.record(exchange("Hi."))) == 2

    def test_a_builder_that_does_not_end(self, postgres: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fails when building waits without bound for another that builds."""
        monkeypatch.setattr("memori.schema.migrations._BUILD_S", 0.05)
        first = create_engine(postgres, poolclass=NullPool)
        storage = SQLStorage(postgres, busy_timeout_s=0.05)
        with first.connect() as connection:
            upgrade(connection, timeout_s=60)
            with pytest.raises(StorageError, match="locked by another connection"):
                storage.build()
            connection.rollback()
        storage.build()
        storage.close()

    def test_one_failed_statement_is_not_the_end(self, postgres: URL) -> None:
        """Fails when a live connection stays in its failed transaction for good."""
        psycopg: Any = pytest.importorskip("psycopg")
        live = psycopg.connect(postgres.set(drivername="postgresql").render_as_string(hide_password=False))
        storage = SQLStorage(live)
        with pytest.raises(NotBuiltError):
            storage.version("alice")
        storage.build()
        live.execute("SET statement_timeout = '1ms'")
        live.commit()
        with pytest.raises(StorageError):
            storage.record(exchange("x" * 20_000_000))
        live.execute("SET statement_timeout = 0")
        live.commit()
        assert len(storage.record(exchange("Hi."))) == 2
        live.close()

    def test_a_server_that_dropped_its_connections(self, postgres: URL) -> None:
        """Fails when connections that the server closed make the next use fail."""
        own = create_engine(postgres)
        storage = SQLStorage(own)
        storage.build()
        storage.record(exchange("Before."))
        administrator = create_engine(str(POSTGRES_URL), isolation_level="AUTOCOMMIT")
        with administrator.connect() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": postgres.database},
            )
        administrator.dispose()
        assert len(storage.record(exchange("After."))) == 2
        own.dispose()
