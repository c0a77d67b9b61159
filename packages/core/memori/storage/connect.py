"""Anything that leads to a database, turned into a `Database`: an Engine, and the care that its connections need.

Connections that memori opens are its own: pooled, set up as it needs them. What the user passed in stays the user's:
no listener is put on an Engine of theirs, what is changed on a connection is put back after each use, their
transactions are never joined, and nothing of theirs is closed.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy import exc as sqlalchemy_errors
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import AssertionPool, NullPool, PoolProxiedConnection, QueuePool, SingletonThreadPool, StaticPool

from memori.errors import MemoriError, MissingExtraError, StorageError
from memori.errors import UnsupportedConnectionError as Unsupported
from memori.storage.database import Access, Database, connected, execute, file_of, relax
from memori.storage.django import database_of, is_django, new_connection
from memori.storage.pool import PerThreadPool

__all__ = ["NotRelationalError", "connect", "is_dsn", "is_factory", "speaks_mongo"]

TAKEN = (
    "a database URL ('postgresql+psycopg://…', 'sqlite:///memori.db'), a file path, a SQLAlchemy or SQLModel Engine, "
    "Connection, sessionmaker, Session or scoped_session, a connection of Django's, a DB-API connection (sqlite3, "
    "psycopg, psycopg2, pymysql, mysqlclient, mysql-connector, mariadb, oracledb), a callable that returns one of "
    "these, or a pair of a connection and the function that releases it"
)
# Module of the DB-API driver → SQLAlchemy's name of the dialect that speaks through it.
_DRIVERS = {
    "sqlite3": "sqlite",
    "psycopg": "postgresql+psycopg",
    "psycopg2": "postgresql+psycopg2",
    "pg8000": "postgresql+pg8000",
    "pymysql": "mysql+pymysql",
    "MySQLdb": "mysql+mysqldb",
    "mysql": "mysql+mysqlconnector",
    "mariadb": "mariadb+mariadbconnector",
    "oracledb": "oracle+oracledb",
}
# URL without a driver → (with the driver that our extra brings, the driver's distribution, the extra).
_DEFAULTS = {
    "postgres": ("postgresql+psycopg", "psycopg", "postgres"),
    "postgresql": ("postgresql+psycopg", "psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "pymysql", "mysql"),
    "mariadb": ("mariadb+pymysql", "pymysql", "mysql"),
    "cockroachdb": ("postgresql+psycopg", "psycopg", "cockroachdb"),
    "oracle": ("oracle+oracledb", "oracledb", "oracle"),
}
_SYNCHRONOUS = {
    "asyncpg": "psycopg",
    "psycopg_async": "psycopg",
    "aiosqlite": "",
    "aiomysql": "pymysql",
    "asyncmy": "pymysql",
    "oracledb_async": "oracledb",
    "aioodbc": "pyodbc",
}
# Drivers whose connections do not say whether a transaction is open on them.
_SILENT = {"mysql+mysqldb": "mysqlclient", "mariadb+mysqldb": "mysqlclient", "postgresql+pg8000": "pg8000"}
_KEYWORD = re.compile(
    r"^\s*(host|hostaddr|port|dbname|user|service|sslmode|server|driver|data source)\s*=|\b(password|passwd|pwd)\s*=",
    re.IGNORECASE,
)
_ANY_THREAD = (
    "memori works from several threads: connect with sqlite3.connect(…, check_same_thread=False), an Engine with "
    "create_engine('sqlite://', poolclass=StaticPool, connect_args={'check_same_thread': False})"
)


def connect(conn: object, *, busy_timeout_s: float = 5.0) -> Database:
    """Return the database behind *conn*, without reaching for it. A callable is called when it is first needed.

    A connection to a database in memory is used itself: close memori before it, because Python's sqlite3 crashes when a
    connection is closed while another thread uses it.

    Args:
        busy_timeout_s: Seconds to wait for a lock on SQLite, or for a turn on a connection that is shared.

    Raises:
        UnsupportedConnectionError: *conn* leads to no database; says what does.
        MissingExtraError: The driver that *conn* names is not installed.
    """
    if is_factory(conn):
        _refuse_asynchronous(conn)
        if inspect.iscoroutinefunction(conn) or inspect.isasyncgenfunction(conn):
            raise Unsupported(f"got the asynchronous function {conn!r}: pass one that returns a synchronous connection")
        return Database(lambda: _from_factory(conn, busy_timeout_s), busy_timeout_s)
    access = _access(conn, busy_timeout_s)
    return Database(lambda: access, busy_timeout_s)


class NotRelationalError(Unsupported):
    """What was passed as conn= leads to a MongoDB database.

    Attributes:
        conn: What does: what a callable returned.
        release: What gives that back; None where it stays the user's.
    """

    def __init__(self, conn: object, release: Callable[[], object] | None) -> None:
        super().__init__("got what leads to MongoDB: pass it to Memori, or to memori.storage.mongo.MongoStorage")
        self.conn = conn
        self.release = release


def is_factory(conn: object) -> TypeGuard[Callable[[], Any]]:
    """Return whether *conn* is a callable that returns a connection, and none itself."""
    # A sqlite3 connection is callable too, and so is a pymongo Database.
    return callable(conn) and not (isinstance(conn, type | sessionmaker | scoped_session) or _is_known(conn))


def speaks_mongo(conn: object) -> bool:
    """Return whether *conn* is of PyMongo, or a URL for it."""
    if isinstance(conn, str):
        return conn.startswith(("mongodb://", "mongodb+srv://"))
    return any(base.__module__.partition(".")[0] in ("pymongo", "motor") for base in type(conn).__mro__)


def is_dsn(conn: str) -> bool:
    """Return whether *conn* looks like a connection string of keywords ('host=… dbname=…'), not like a path."""
    return "://" not in conn and _KEYWORD.search(conn) is not None


def _access(conn: Any, busy_timeout_s: float) -> Access:
    """Return the way to the database behind *conn*, which is not a factory."""
    if speaks_mongo(conn):
        raise NotRelationalError(conn, None)
    _refuse_asynchronous(conn)
    if isinstance(conn, str):
        return _from_string(conn, busy_timeout_s)
    if isinstance(conn, os.PathLike):
        return _sqlite_file(os.fsdecode(conn), busy_timeout_s)
    if isinstance(conn, URL):
        return _from_url(conn, busy_timeout_s)
    if isinstance(conn, Engine):
        return _from_engine(conn, busy_timeout_s)
    if isinstance(conn, Connection):
        # Its engine opens others beside it: the transaction that it may be in is the user's.
        return _from_engine(conn.engine, busy_timeout_s)
    if isinstance(conn, sessionmaker | scoped_session | Session):
        return _from_engine(_bind(conn), busy_timeout_s)
    if isinstance(conn, tuple) and len(conn) == 2 and callable(conn[1]) and _dialect(conn[0]) is not None:
        return _from_connection(conn[0], busy_timeout_s, release=_releasing(*conn))
    if _dialect(conn) is not None:
        return _from_connection(conn, busy_timeout_s)
    if is_django(conn):
        return _from_django(conn, busy_timeout_s)
    raise Unsupported(f"got {type(conn).__module__}.{type(conn).__qualname__}: conn= takes {TAKEN}")


def _from_string(conn: str, busy_timeout_s: float) -> Access:
    if not conn.strip():
        raise Unsupported(f"got an empty string: conn= takes {TAKEN}")
    if conn == ":memory:":
        return _sqlite_memory()
    if is_dsn(conn):
        # It may hold a password.
        raise Unsupported("got the keywords of a connection string: write dialect+driver://user:password@host/name")
    if "://" not in conn:
        return _sqlite_file(conn, busy_timeout_s)
    try:
        url = make_url(conn)
    except (sqlalchemy_errors.ArgumentError, ValueError):
        # The text may hold a password.
        raise Unsupported("the database URL cannot be read: write dialect+driver://user:password@host/name") from None
    return _from_url(url, busy_timeout_s)


def _from_url(url: URL, busy_timeout_s: float) -> Access:
    backend, _, driver = url.drivername.partition("+")
    if driver in _SYNCHRONOUS:
        raise Unsupported(f"got a URL for the asynchronous driver {driver}: pass {_synchronous(url)!r}")
    if backend == "cockroachdb" and driver:
        url = url.set(drivername=f"postgresql+{driver}")
    elif not driver and backend in _DEFAULTS:
        url = url.set(drivername=_DEFAULTS[backend][0])
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_timeout": busy_timeout_s}
    if backend == "sqlite":
        if not url.query:
            path = url.database
            return _sqlite_memory() if path in (None, "", ":memory:") else _sqlite_file(path, busy_timeout_s)
        options = {"connect_args": {"timeout": busy_timeout_s}}
    elif url.drivername.endswith(("+psycopg", "+psycopg2", "+pymysql")) and "connect_timeout" not in url.query:
        # A host that does not answer would hold a thread for minutes.
        options["connect_args"] = {"connect_timeout": max(1, round(busy_timeout_s))}
    try:
        engine = create_engine(_ours(url), **options, **_dialect_options(url.drivername))
    except ModuleNotFoundError as error:
        _, package, extra = _DEFAULTS.get(backend, ("", "", ""))
        if error.name == package:
            raise MissingExtraError(package, extra=extra) from error
        raise Unsupported(f"{url.drivername}: its driver {error.name} is not installed") from error
    except sqlalchemy_errors.NoSuchModuleError as error:
        raise Unsupported(f"SQLAlchemy has no dialect {url.drivername!r}: install it, or correct the URL") from error
    except (sqlalchemy_errors.ArgumentError, TypeError, ValueError):
        # The text may hold what the options do.
        raise Unsupported(f"the database URL cannot be used by {url.drivername}: correct its options") from None
    if backend == "sqlite":
        event.listen(engine, "connect", lambda connection, _: _prepare(connection, busy_timeout_s))
    return Access(engine=engine, made_for_us=True, close=engine.dispose)


def _sqlite_file(path: str, busy_timeout_s: float) -> Access:
    try:
        file = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise Unsupported(f"the folder of the path {path!r} is unknown: {error}") from error
    uri = f"{file.as_uri()}?mode=rw"  # Only `build` may make the file.

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, check_same_thread=False)
        _prepare(connection, busy_timeout_s)
        return connection

    engine = create_engine(
        URL.create("sqlite", database=str(file)), creator=opened, poolclass=QueuePool, pool_timeout=busy_timeout_s
    )
    return Access(engine=engine, made_for_us=True, file=file, close=engine.dispose)


def _sqlite_memory() -> Access:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    _prepare(connection, 0.0)
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    return Access(engine=engine, single=True, made_for_us=True, close=engine.dispose)


def _prepare(connection: Any, busy_timeout_s: float) -> None:
    """Set up a SQLite connection of memori's own, for good."""
    connection.row_factory = None
    connection.text_factory = str
    execute(connection, "PRAGMA foreign_keys = 1")
    execute(connection, f"PRAGMA busy_timeout = {round(busy_timeout_s * 1000)}")
    relax(connection)


def _from_engine(engine: Engine, busy_timeout_s: float) -> Access:
    if engine.dialect.is_async:
        raise Unsupported(f"got the engine of an asynchronous driver: pass {_synchronous(engine.url)!r}")
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        # Whatever the pool, there is one database a connection: this thread's, which the user looks into.
        with connected(engine) as connection:
            driver: Any = connection.connection.driver_connection
        return _from_connection(driver, busy_timeout_s, keep=engine)
    # A connection that the user's thread gets as well may be in a transaction of theirs.
    single = isinstance(engine.pool, StaticPool | AssertionPool | SingletonThreadPool)
    if single:
        _refuse_silent(f"{engine.dialect.name}+{engine.dialect.driver}")
    return Access(engine=engine, single=single)


def _bind(conn: Any) -> Engine:
    factory = conn.session_factory if isinstance(conn, scoped_session) else conn
    session = factory if isinstance(factory, Session) else factory()
    try:
        bind = session.get_bind()
    except sqlalchemy_errors.SQLAlchemyError as error:
        raise Unsupported(f"the {type(conn).__name__} is bound to no database: give it bind=engine") from error
    return bind.engine


def _from_connection(
    connection: Any, busy_timeout_s: float, *, release: Callable[[], object] | None = None, keep: object = None
) -> Access:
    """Return the way to the database of a live DB-API connection.

    Args:
        keep: What must live as long as the connection is used.
    """
    dialect = _dialect(connection) or ""
    _refuse_silent(dialect)
    if dialect == "sqlite":
        try:
            path = file_of(connection)
        except sqlite3.ProgrammingError as error:
            raise Unsupported(f"the sqlite3 connection cannot be used here ({error}): {_ANY_THREAD}") from error
        if path is not None:
            # sqlite3 binds a connection to its thread; the file can be opened from every one.
            if release is not None:
                release()
            return _sqlite_file(str(path), busy_timeout_s)
        if not _works_from_any_thread(connection):
            raise Unsupported(f"an in-memory database whose connection works in one thread only: {_ANY_THREAD}")
    engine = create_engine(
        _ours(make_url(f"{dialect}://")),
        creator=lambda: _Borrowed(connection, None, keep),
        poolclass=StaticPool,
        pool_reset_on_return=None,
        **_dialect_options(dialect),
    )
    return Access(engine=engine, single=True, close=release)


def _from_factory(factory: Callable[[], Any], busy_timeout_s: float) -> Access:
    value, release = _take(factory)
    if speaks_mongo(value):
        raise NotRelationalError(value, release)
    dialect = _dialect(value)
    if dialect is None:
        access = _access(value, busy_timeout_s)
        return replace(access, close=_both(access.close, release))
    if dialect == "sqlite" and file_of(value) is None:
        return _from_connection(value, busy_timeout_s, release=release)
    options: dict[str, Any] = _dialect_options(dialect)
    if release is not None:
        release()
        _refuse_silent(dialect)
        # What it lends may be the same one each time: one after the other.
        engine = create_engine(
            _ours(make_url(f"{dialect}://")), creator=lambda: _Borrowed(*_take(factory)), poolclass=NullPool, **options
        )
        return Access(engine=engine, single=True)
    second, _ = _take(factory)
    if second is value:
        return _from_connection(value, busy_timeout_s)
    second.close()
    # sqlite3 binds connections to their threads unless told otherwise.
    pool: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_pre_ping": dialect != "sqlite",
        "pool_timeout": busy_timeout_s,
    }
    if dialect == "sqlite" and not _works_from_any_thread(value):
        pool = {"poolclass": PerThreadPool}
    value.close()

    def opened() -> Any:
        connection, _ = _take(factory)
        if dialect == "sqlite":
            _prepare(connection, busy_timeout_s)
            return connection
        return _Borrowed(connection, connection.close)

    engine = create_engine(_ours(make_url(f"{dialect}://")), creator=opened, **pool, **options)
    return Access(engine=engine, made_for_us=True, close=engine.dispose)


def _refuse_silent(dialect: str) -> None:
    """Refuse to share a connection on which a transaction of the user's would be ended with memori's."""
    if dialect in _SILENT:
        raise Unsupported(
            f"a connection of {_SILENT[dialect]} does not say whether a transaction of yours is open on it: "
            "pass a URL, or a callable that opens one"
        )


def _from_django(conn: Any, busy_timeout_s: float) -> Access:
    alias, file = database_of(conn)
    if file is not None:
        return _sqlite_file(file, busy_timeout_s)
    return _from_factory(lambda: new_connection(alias), busy_timeout_s)


def _take(factory: Callable[[], Any]) -> tuple[Any, Callable[[], object] | None]:
    """Return what *factory* returns, and what gives it back; None where that is to close it."""
    try:
        value = factory()
        if isinstance(value, tuple) and len(value) == 2 and callable(value[1]):
            return value[0], _releasing(*value)
        # DB-API connections and SQLAlchemy's objects are context managers too, but are what they yield.
        if isinstance(value, contextlib.AbstractContextManager) and not _is_known(value):
            return value.__enter__(), lambda: value.__exit__(None, None, None)
    except MemoriError:
        raise
    except Exception as error:
        # The function is the user's and may raise anything; it stands for a database that cannot be reached.
        raise StorageError(f"the callable passed as conn= failed: {type(error).__name__}: {error}") from error
    return value, None


def _releasing(connection: Any, release: Callable[..., object]) -> Callable[[], object]:
    if getattr(release, "__self__", None) is connection:
        return release
    try:
        inspect.signature(release).bind()
    except TypeError:
        return lambda: release(connection)
    except ValueError:  # A function in C that does not tell its signature.
        return lambda: release(connection)
    return release


def _both(first: Callable[[], object] | None, second: Callable[[], object] | None) -> Callable[[], object] | None:
    if first is None or second is None:
        return first or second

    def close() -> None:
        first()
        second()

    return close


def _is_known(value: object) -> bool:
    return isinstance(value, Engine | Connection | Session) or speaks_mongo(value) or _dialect(value) is not None


def _dialect(connection: Any) -> str | None:
    """Return the dialect in which SQLAlchemy speaks to a DB-API connection; None when *connection* is not one."""
    if isinstance(connection, PoolProxiedConnection):
        connection = connection.driver_connection
    if not all(hasattr(connection, name) for name in ("cursor", "commit", "rollback", "close")):
        return None
    roots = (base.__module__.partition(".")[0] for base in type(connection).__mro__)
    return next((_DRIVERS[root] for root in roots if root in _DRIVERS), None)


def _ours(url: URL) -> URL:
    """Return *url* for the dialect of memori's own, where there is one."""
    if not url.drivername.startswith("postgresql+"):
        return url
    # Not at the top: it loads SQLAlchemy's dialects, which SQLite needs none of.
    from memori.storage.postgres import DRIVERS

    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))


def _dialect_options(dialect: str) -> dict[str, Any]:
    # They would ask the driver about a type that memori does not use, by way of the connection's class.
    return {"use_native_hstore": False} if dialect.startswith("postgresql+psycopg") else {}


def _works_from_any_thread(connection: Any) -> bool:
    failures: list[Exception] = []

    def probe() -> None:
        try:
            connection.cursor().close()
        except sqlite3.ProgrammingError as error:
            failures.append(error)

    thread = threading.Thread(target=probe, name="memori-probe")
    thread.start()
    thread.join()
    return not failures


class _Borrowed:
    """A DB-API connection of the user's, as SQLAlchemy may see it: nothing that it does to it remains.

    It is released, not closed; its cursors give plain tuples, whatever the user set; and SQLAlchemy's own functions and
    handlers, which it would add at each use, stay off.
    """

    def __init__(self, connection: Any, release: Callable[[], object] | None = None, keep: object = None) -> None:
        vars(self).update(_connection=connection, _release=release, _keep=keep)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        driver = getattr(self._connection, "driver_connection", self._connection)
        root = type(driver).__module__.partition(".")[0]
        if root in ("pymysql", "MySQLdb"):
            return self._connection.cursor(sys.modules[f"{root}.cursors"].Cursor)
        if root == "psycopg2":
            options["cursor_factory"] = sys.modules["psycopg2.extensions"].cursor
        cursor = self._connection.cursor(*arguments, **options)
        if root == "sqlite3":
            cursor.row_factory = None
        elif root == "psycopg":
            cursor.row_factory = sys.modules["psycopg.rows"].tuple_row
        return cursor

    def close(self) -> None:
        if self._release is not None:
            self._release()

    def create_function(self, *arguments: Any, **options: Any) -> None:
        """Leave the user's SQL functions alone."""

    def add_notice_handler(self, handler: object) -> None:
        """Leave the user's notice handlers alone."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._connection, name, value)


def _refuse_asynchronous(conn: Any) -> None:
    roots = {base.__module__ for base in type(conn).__mro__}
    if any(root.startswith(("sqlalchemy.ext.asyncio", "sqlmodel.ext.asyncio")) for root in roots):
        url = _asynchronous_url(conn)
        hint = "the synchronous one" if url is None else f"a synchronous one for {_synchronous(url)!r}, or that URL"
        raise Unsupported(f"got the asynchronous {type(conn).__name__}: pass {hint}")
    packages = {root.partition(".")[0] for root in roots}
    if packages & {"asyncpg", "aiosqlite", "aiomysql", "asyncmy"} or (
        packages & _DRIVERS.keys() and type(conn).__name__.startswith("Async")
    ):
        raise Unsupported(
            f"got the asynchronous {type(conn).__module__}.{type(conn).__qualname__}: pass a synchronous connection, "
            "or the database's URL"
        )


def _asynchronous_url(conn: Any) -> URL | None:
    bind = conn
    for name in ("session_factory", "kw", "bind", "sync_session", "sync_engine", "engine"):
        following = bind.get(name) if isinstance(bind, dict) else getattr(bind, name, None)
        bind = bind if following is None else following
    url = getattr(bind, "url", None)
    return url if isinstance(url, URL) else None


def _synchronous(url: URL) -> str:
    backend, _, driver = url.drivername.partition("+")
    name = _SYNCHRONOUS.get(driver, "")
    # The options are the asynchronous driver's, and may hold a password.
    synchronous = URL.create(
        f"{backend}+{name}" if name else backend, url.username, url.password, url.host, url.port, url.database
    )
    return synchronous.render_as_string(hide_password=True)
