"""Transactions on whatever was connected: who takes turns, what is put back, what is tried again, how failures read."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Dialect, Engine, Select
from sqlalchemy import exc as sqlalchemy_errors
from sqlalchemy.pool import AssertionPool, SingletonThreadPool

from memori.errors import MemoriError, NotBuiltError, StorageError
from memori.jitter import jittered
from memori.storage.durability import LogSync
from memori.storage.gate import Gate, taking

__all__ = ["Access", "Database", "connected", "execute", "file_of", "relax"]

T = TypeVar("T")
_Bind: TypeAlias = Callable[[Mapping[str, str | int]], list[Any]]

log = logging.getLogger(__name__)

# What a whole transaction is tried again for: serialisation failures, deadlocks, lock timeouts. By sqlstate, and by the
# numbers of the MySQL family (1020: MariaDB's snapshot isolation; 6235: OceanBase) and Oracle's (60, 8177).
_RETRYABLE_STATES = {"40001", "40P01"}
_LOCK_TIMEOUT = 1205
_RETRYABLE_NUMBERS = {1213, _LOCK_TIMEOUT, 1020, 6235, 60, 8177}
# What MySQL's family says to a packet over max_allowed_packet; most often the connection just ends.
_TOO_LARGE = 1153
_LOST = {2006, 2013, 2055}
_LARGE = 1_000_000
# What MySQL's family says with a value in it: duplicate entry, incorrect string value.
_QUOTING = {1062, 1366}
# What PostgreSQL says to waiting beyond lock_timeout, and to a table that was made since this transaction began.
_LOCKED_STATE = "55P03"
_MADE_MEANWHILE = "42P07"
_ATTEMPTS = 20
_ATTEMPTS_TO_INSERT = 6
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.2
_BUSY = ("database is locked", "database table is locked", "database schema is locked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An Engine, and whose it is.

    Attributes:
        single: Whether there is one connection for all threads, which must take turns on it.
        made_for_us: Whether its connections are memori's own, set up once; the user's are put back after each use.
        file: The SQLite file, if it is known before the first connection.
        close: Gives back what was opened; None when there is nothing to give back.
    """

    engine: Engine
    single: bool = False
    made_for_us: bool = False
    file: Path | None = None
    close: Callable[[], object] | None = None

    @property
    def sqlite(self) -> bool:
        """Whether it is SQLite."""
        return self.engine.dialect.name == "sqlite"


class Database:
    """Runs transactions on whatever was connected. Safe to use from any thread.

    Every failure of the database arrives as `StorageError`; after one, the next transaction starts on a sound
    connection.

    Args:
        resolve: Says how to get at the database; called once, when it is first needed.
        busy_timeout_s: Seconds to wait for a lock on SQLite, or for a turn on a connection that is shared.
    """

    def __init__(self, resolve: Callable[[], Access], busy_timeout_s: float) -> None:
        self._resolve = resolve
        self._timeout_s = busy_timeout_s
        self._access: Access | None = None
        self._file: Path | None = None
        self._sync = LogSync()
        self._compiled: dict[Select[Any], tuple[str, _Bind]] = {}
        self._renew_locks()

    def _renew_locks(self) -> None:
        self._resolving = threading.Lock()
        self._turn = threading.Lock()
        # SQLite lets writers poll for the lock; those of one process queue here instead, without sleeping.
        self._writing = threading.Lock()
        self._gate = Gate()

    def pause(self, timeout_s: float) -> None:
        """Let no transaction begin until `resume`, and wait for those that run: called before a fork.

        SQLite keeps its file locks in the process's memory, so a child forked in the middle of a transaction would
        inherit locks that nobody gives back. Idle connections are closed for the same reason.
        """
        self._gate.pause(timeout_s)
        access = self._access
        if access is not None and access.sqlite and access.made_for_us and not access.single:
            access.engine.dispose()

    def resume(self) -> None:
        """Let transactions begin again."""
        self._gate.resume()

    def reset(self) -> None:
        """Leave to the parent process what it opened: called in the child after a fork."""
        self._renew_locks()
        self._sync.reset()
        access = self._access
        if access is not None and (not access.single or isinstance(access.engine.pool, SingletonThreadPool)):
            access.engine.dispose(close=False)

    def reach(self) -> None:
        """Find out how to get at the database, if that is not known yet; what cannot be reached may still fail."""
        self._reach()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return what *work* returns, in one transaction. It must not write."""
        return self._run(work, write=False, building=False)

    def first(self, query: Select[Any], parameters: Mapping[str, str | int]) -> Sequence[Any] | None:
        """Return the first row of a query for numbers and plain texts; None without one.

        As `read` would, at half the time where it can be: calls wait for it.

        Args:
            query: A constant: it is compiled once, and kept.
        """
        access = self._reach()
        if not access.sqlite or access.single or not access.made_for_us:
            return self.read(lambda connection: connection.execute(query, parameters).first())
        statement, bind = self._compiled.get(query) or self._compile(query, access.engine.dialect)
        values = bind(parameters)

        def work(connection: Connection) -> Sequence[Any] | None:
            row: Sequence[Any] | None = execute(connection.connection.driver_connection, statement, values).fetchone()
            return row

        # A single statement needs no transaction to agree with itself.
        return self._run(work, write=False, building=False, transaction=False)

    def _compile(self, query: Select[Any], dialect: Dialect) -> tuple[str, _Bind]:
        compiled = query.compile(dialect=dialect)
        steps = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]

        def bind(parameters: Mapping[str, str | int]) -> list[Any]:
            return [parameters[name] if process is None else process(parameters[name]) for name, process in steps]

        self._compiled[query] = compiled.string, bind
        return compiled.string, bind

    def write(self, work: Callable[[Connection], T]) -> T:
        """Return what *work* returns, its changes committed.

        It is done again, whole, when the database could not keep it apart from what others did at the same time.
        """
        return self._run(work, write=True, building=False)

    def build(self, work: Callable[[Connection], T]) -> T:
        """Do as `write` does, where the database may have no file yet."""
        access = self._reach()
        if access.sqlite and not access.single:
            deadline = time.monotonic() + self._timeout_s
            _persist(lambda: self._begin_file(access, deadline), deadline)
        return self._run(work, write=True, building=True)

    def close(self) -> None:
        """Close what memori opened itself."""
        # Whoever still finds out how to get there may never come back.
        resolved = self._resolving.acquire(timeout=self._timeout_s)
        access, self._access = self._access, None
        if resolved:
            self._resolving.release()
        self._sync.settle(self._timeout_s)
        if access is not None and access.close is not None:
            try:
                access.close()
            except Exception:
                # It may be the user's own function; whoever closes has no use for its failure.
                log.exception("could not give back the connection passed as conn=")

    def _reach(self) -> Access:
        access = self._access
        if access is None:
            with taking(self._resolving, self._timeout_s):
                access = self._access
                if access is None:
                    try:
                        access = self._access = self._resolve()
                    except MemoriError:
                        raise
                    except Exception as error:  # A callable may return what is closed, or bound to another thread.
                        raise _storage_error(error) from error
                    self._file = access.file or self._file
        return access

    def _run(self, work: Callable[[Connection], T], *, write: bool, building: bool, transaction: bool = True) -> T:
        deadline = time.monotonic() + self._timeout_s
        access = self._reach()

        def once() -> T:
            with self._gate.passing(deadline), _as_storage_error(access), contextlib.ExitStack() as stack:
                if access.single:
                    stack.enter_context(taking(self._turn, deadline - time.monotonic()))
                if write and access.sqlite:
                    stack.enter_context(taking(self._writing, deadline - time.monotonic()))
                connection = stack.enter_context(self._connection(access, building, deadline))
                if not transaction:
                    return work(connection)
                return _transaction(connection, work, write=write, sqlite=access.sqlite)

        result = _persist(once, deadline)
        if write and access.made_for_us and access.sqlite and self._file is not None:
            self._sync.soon(self._file)
        return result

    def _begin_file(self, access: Access, deadline: float) -> None:
        with self._gate.passing(deadline), _as_storage_error(access):
            if access.file is not None:
                access.file.touch()
            with self._connection(access, building=True, deadline=deadline) as connection:
                _use_log(connection.connection.driver_connection)
                if access.made_for_us:
                    relax(connection.connection.driver_connection)

    @contextlib.contextmanager
    def _connection(self, access: Access, building: bool, deadline: float) -> Iterator[Connection]:
        connection = self._sqlite_connection(access, building) if access.sqlite else connected(access.engine)
        with connection, _sound(connection, access):
            if access.single and not access.made_for_us:
                if access.sqlite and getattr(connection.connection.driver_connection, "autocommit", None) is False:
                    raise StorageError(
                        "a transaction is open at all times on the connection passed as conn=, because of "
                        "autocommit=False: pass one without it, or a URL or a callable"
                    )
                _await_users_transaction(connection, deadline)
            if not access.sqlite or access.made_for_us:
                yield connection
                return
            with _settings(connection.connection.driver_connection, deadline):
                yield connection

    def _sqlite_connection(self, access: Access, building: bool) -> Connection:
        """Return a connection to the file that is there now, not to one that was deleted or replaced meanwhile."""
        while True:
            if not building and self._file is not None and not self._file.exists():
                if access.made_for_us:
                    # Idle connections to the deleted file must be gone before a new one takes its name.
                    access.engine.dispose()
                raise NotBuiltError(
                    f"there is no database file {self._file}: restore it, or call config.storage.build() to begin one"
                )
            connection = connected(access.engine)
            try:
                info = connection.info
                if "memori_file" not in info:
                    path = file_of(connection.connection.driver_connection)
                    info["memori_file"] = (path, _identity(path))
                    self._file = path or self._file
                    return connection
                path, identity = info["memori_file"]
                if path is None or _identity(path) == identity:
                    return connection
                connection.invalidate()
            except BaseException:
                connection.close()
                raise
            connection.close()


def _persist(work: Callable[[], T], deadline: float) -> T:
    """Return what *work* returns, done again when it came into conflict with others."""
    attempt = 0
    while True:
        try:
            return work()
        except StorageError as error:
            attempt += 1
            if isinstance(error, _UncertainError) or not _may_succeed(error.__cause__, attempt, deadline):
                if _tells(error.__cause__):
                    raise error from None
                raise
        pause = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
        time.sleep(jittered(pause, least=0.5))


def _transaction(connection: Connection, work: Callable[[Connection], T], *, write: bool, sqlite: bool) -> T:
    driver: Any = connection.connection.driver_connection
    if sqlite:
        return _sqlite_transaction(connection, driver, work, write=write)
    if connection.dialect.name == "oracle" and _autocommits(driver):
        raise StorageError(
            "the Oracle connection commits each statement by itself, and Oracle has no way to begin a transaction on "
            "it: pass one without autocommit, or a URL"
        )
    connection.begin()
    # On a connection that commits each statement by itself, only a transaction that is spelt out is one.
    explicit = _autocommits(driver)
    if explicit:
        connection.exec_driver_sql("BEGIN")
    try:
        result = work(connection)
    except BaseException:
        with contextlib.suppress(sqlalchemy_errors.SQLAlchemyError):  # What failed first is what matters.
            if explicit:
                connection.exec_driver_sql("ROLLBACK")
            connection.rollback()
        raise
    try:
        if explicit:
            connection.exec_driver_sql("COMMIT")
        connection.commit()
    except sqlalchemy_errors.DBAPIError as error:
        if error.connection_invalidated:
            raise _UncertainError("the connection was lost while committing: it may be stored, or not") from error
        raise
    return result


def _sqlite_transaction(connection: Connection, driver: Any, work: Callable[[Connection], T], *, write: bool) -> T:
    # Python 3.12's ``autocommit=False`` has a transaction open at all times; it is empty, as nobody shares it.
    always_open = getattr(driver, "autocommit", None) is False
    if always_open:
        driver.autocommit = True
    try:
        connection.begin()
        if driver.in_transaction:
            execute(driver, "ROLLBACK")  # Begun just now by a listener of the user's, as a reading one.
        # A transaction that reads first and writes then fails at once where another wrote meanwhile.
        execute(driver, "BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            result = work(connection)
            execute(driver, "COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # What failed first is what matters.
                execute(driver, "ROLLBACK")
            raise
        return result
    finally:
        if always_open:
            driver.autocommit = False


class _UncertainError(StorageError):
    """Nobody knows whether the transaction was committed: to do it again could do it twice."""


@contextlib.contextmanager
def _sound(connection: Connection, access: Access) -> Iterator[None]:
    """Let a SQLite connection of ours on which something failed not be used again: the file may have changed hands."""
    try:
        yield
    except (sqlalchemy_errors.DBAPIError, sqlite3.Error):
        if access.sqlite and access.made_for_us and not access.single:
            connection.invalidate()
        raise


@contextlib.contextmanager
def _settings(driver: Any, deadline: float) -> Iterator[None]:
    """Have foreign keys checked and locks waited for, on a connection of the user's, until the ``with`` block ends."""
    wanted = {"foreign_keys": 1, "busy_timeout": max(1, round((deadline - time.monotonic()) * 1000))}
    before = {name: execute(driver, f"PRAGMA {name}").fetchone()[0] for name in wanted}
    for name, value in wanted.items():
        execute(driver, f"PRAGMA {name} = {value}")
    try:
        yield
    finally:
        with contextlib.suppress(sqlite3.Error):  # Closed meanwhile: nothing to put back.
            for name, value in before.items():
                execute(driver, f"PRAGMA {name} = {value}")


def connected(engine: Engine) -> Connection:
    """Return a connection of *engine*.

    Raises:
        StorageError: It has one only, which is in use.
    """
    try:
        return engine.connect()
    except AssertionError as error:
        if not isinstance(engine.pool, AssertionPool):
            raise
        raise StorageError(
            "the one connection of the Engine passed as conn= is in use: give it back, or pass an Engine with more"
        ) from error


def execute(driver: Any, statement: str, parameters: Sequence[object] = ()) -> Any:
    """Return the cursor that executed *statement* on a sqlite3 connection; its rows are tuples."""
    cursor = driver.cursor()
    cursor.row_factory = None
    return cursor.execute(statement, parameters)


def file_of(driver: Any) -> Path | None:
    """Return the path of a SQLite connection's main database; None when it lives in memory."""
    path: str | bytes = execute(driver, "PRAGMA database_list").fetchone()[2]
    return Path(os.fsdecode(path)) if path else None


def _identity(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _await_users_transaction(connection: Connection, deadline: float) -> None:
    driver = connection.connection.driver_connection
    while _in_transaction(driver):
        if time.monotonic() >= deadline:
            raise StorageError(
                "a transaction of yours is open on the connection passed as conn=: commit it or roll it back, "
                "or pass a URL or a callable, so that memori has connections of its own"
            )
        time.sleep(_FIRST_PAUSE_S)


def _in_transaction(driver: Any) -> bool:
    for name in ("in_transaction", "transaction_in_progress"):  # sqlite3, mysql-connector; oracledb
        state = getattr(driver, name, None)
        if isinstance(state, bool):
            return state
    if getattr(driver, "closed", False):
        return False
    status = getattr(getattr(driver, "info", None), "transaction_status", 0)  # psycopg, psycopg2: 0 is idle
    return int(status) != 0 or bool(getattr(driver, "server_status", 0) & 1)  # pymysql: SERVER_STATUS_IN_TRANS


def _autocommits(driver: Any) -> bool:
    ask = getattr(driver, "get_autocommit", None)  # pymysql, mysqlclient
    return bool(ask()) if callable(ask) else getattr(driver, "autocommit", False) is True


def _use_log(driver: Any) -> None:
    """Put an empty SQLite database into write-ahead mode.

    There readers do not wait for the writer nor it for them, which is what a worker beside the calls needs, and a
    commit costs one sync to disk, not three. The mode belongs to the file and stays with it: one that has tables is
    left as its owner made it.
    """
    if execute(driver, "PRAGMA schema_version").fetchone()[0] == 0:
        with contextlib.suppress(
            sqlite3.OperationalError
        ):  # Another process is building, or the disk has no such mode.
            execute(driver, "PRAGMA journal_mode = WAL")


def relax(driver: Any) -> None:
    """Let commits on a SQLite connection return before the disk has them, where there is a write-ahead log.

    What was committed then survives the death of the process, by whatever signal, but not a power cut; `LogSync` makes
    good for that within moments. Without such a log the connection stays as it is: a power cut could do harm there.
    """
    if execute(driver, "PRAGMA journal_mode").fetchone()[0] == "wal":
        execute(driver, "PRAGMA synchronous = NORMAL")


@contextlib.contextmanager
def _as_storage_error(access: Access) -> Iterator[None]:
    driver_error: type[Exception] = getattr(access.engine.dialect.loaded_dbapi, "Error", sqlite3.Error)
    try:
        yield
    except MemoriError:
        raise
    except (sqlalchemy_errors.SQLAlchemyError, driver_error, OSError) as error:
        if isinstance(error, sqlalchemy_errors.StatementError):
            error.hide_parameters = True  # They are what people said, and tracebacks go into logs.
        raise _storage_error(error) from error


def _storage_error(error: Exception) -> StorageError:
    cause = getattr(error, "orig", None) or error
    text = _message(cause)
    state, number = _codes(cause)
    if state == "42P01" or number in (1146, 942) or "no such table: memori_" in text or "ORA-00942" in text:
        return NotBuiltError("memori's tables are not in this database: call config.storage.build()")
    if state == "42703" or number in (1054, 904) or "no such column" in text or "has no column named" in text:
        return StorageError(
            f"memori's tables here are not this version's ({text}): config.storage.build() upgrades them, or says "
            "whose they are"
        )
    if _is_busy(cause) or state == _LOCKED_STATE:
        return StorageError("the database is locked by another connection, for longer than memori waits: try again")
    size = _size(getattr(error, "params", None))
    if number == _TOO_LARGE or (number in _LOST and size > _LARGE):
        return StorageError(
            f"the server refused a text of {size / 1e6:.0f} MB, or ended the connection over it ({text}): "
            "let it take more at once, for MySQL and its family by raising max_allowed_packet"
        )
    if "readonly database" in text:
        return StorageError(
            "the database is read-only: let this process write to the file and to its folder, or pass another database"
        )
    if "unable to open database file" in text:
        return StorageError("the database file cannot be opened: check that its folder exists and may be written to")
    if "Cannot operate on a closed" in text or "connection is closed" in text or "connection already closed" in text:
        return StorageError("the connection passed as conn= is closed: pass an open one, or a URL or a callable")
    return StorageError(f"the database failed: {type(cause).__name__}: {text}")


def _message(cause: BaseException) -> str:
    """Return what a driver's error says, without the statement or the row that it is about: what people said."""
    primary = getattr(getattr(cause, "diag", None), "message_primary", None)  # psycopg, psycopg2
    if primary:
        return str(primary)
    if _codes(cause)[1] in _QUOTING:
        return re.sub("'.*'", "…", str(cause), flags=re.DOTALL)
    return str(cause)


def _tells(error: BaseException | None) -> bool:
    """Return whether the text of *error* has more in it than may be logged."""
    cause = getattr(error, "orig", None) or error
    return cause is not None and _message(cause) != str(cause)


def _size(parameters: object) -> int:
    """Return the length of the longest text or data of a statement's parameters."""
    if isinstance(parameters, str | bytes):
        return len(parameters.encode(errors="replace") if isinstance(parameters, str) else parameters)
    if isinstance(parameters, Mapping):
        return max(map(_size, parameters.values()), default=0)
    return max(map(_size, parameters), default=0) if isinstance(parameters, Sequence) else 0


def _codes(cause: BaseException) -> tuple[str | None, int | None]:
    """Return the sqlstate and the number of a driver's error, as far as it has them."""
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    number = getattr(cause, "errno", None)
    first = cause.args[0] if cause.args else None
    if number is None:
        number = getattr(first, "code", first)  # oracledb puts an object there, pymysql the number.
    return state if isinstance(state, str) else None, number if isinstance(number, int) else None


def _is_busy(cause: BaseException) -> bool:
    return isinstance(cause, sqlite3.OperationalError) and str(cause).startswith(_BUSY)


def _may_succeed(error: BaseException | None, attempt: int, deadline: float) -> bool:
    """Return whether the transaction that *error* ended may pass when it is done again, whole."""
    cause = getattr(error, "orig", None) or error
    if cause is None:
        return False
    if _is_busy(cause):
        return time.monotonic() < deadline
    state, number = _codes(cause)
    if state in _RETRYABLE_STATES or number in _RETRYABLE_NUMBERS:
        # MySQL lets a lock be waited for 50 seconds before it says 1205: that is not to be done twenty times.
        return attempt < _ATTEMPTS and (number != _LOCK_TIMEOUT or time.monotonic() < deadline)
    if state == _MADE_MEANWHILE or isinstance(error, sqlalchemy_errors.IntegrityError):
        # Another inserted the same entity, process or session first: now it is there to be found.
        return attempt < _ATTEMPTS_TO_INSERT
    return isinstance(error, sqlalchemy_errors.DBAPIError) and error.connection_invalidated and attempt == 1
