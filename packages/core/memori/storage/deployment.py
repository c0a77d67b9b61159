"""Anything that leads to a MongoDB database: how it is reached, how long it is waited for, how its failures read."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

import pymongo
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from pymongo import MongoClient, WriteConcern
from pymongo import errors as mongo_errors
from pymongo.database import Database
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri

from memori.errors import MemoriError, NotBuiltError, StorageError
from memori.errors import UnsupportedConnectionError as Unsupported
from memori.storage.gate import Gate
from memori.storage.mongo_documents import Document

if TYPE_CHECKING:
    from pymongo.collection import Collection

__all__ = ["Collections", "Deployment", "closing", "not_built"]

log = logging.getLogger(__name__)

Collections: TypeAlias = "Callable[[str], Collection[Document]]"

TAKEN = (
    "a pymongo Database, a MongoClient whose URL names a database, a mongodb:// or mongodb+srv:// URL that does, or a "
    "callable that returns one of these"
)
# Whatever the user's own code is content with: what was acknowledged must survive the server's death.
_WRITES = WriteConcern("majority", j=True)
_UNAUTHORIZED = 13


class Deployment:
    """The database behind *conn*; nothing is reached for yet. Safe to use from any thread.

    Args:
        conn: A `Database`, a `MongoClient` or a URL.
        timeout_s: Seconds that one piece of work waits for the server, whatever the client's own settings.
        close: Gives *conn* back; None where it stays the user's.

    Raises:
        UnsupportedConnectionError: *conn* leads to no MongoDB database; says what does.
    """

    def __init__(self, conn: object, *, timeout_s: float, close: Callable[[], object] | None = None) -> None:
        self._timeout_s = timeout_s
        self._url: str | None = None
        self._given: Database[Document] | None = None
        self._close = close
        if isinstance(conn, str):
            self._url, self._name = conn, _named_in(conn)
        else:
            self._given = _database(conn)
            self._name = self._given.name
        self._client: MongoClient[Document] | None = None
        self._left: list[MongoClient[Document]] = []
        self._opening = threading.Lock()
        self._gate = Gate()

    def pause(self, timeout_s: float) -> None:
        """Let no work begin until `resume`, and wait for what runs: called before a fork."""
        self._gate.pause(timeout_s)

    def resume(self) -> None:
        """Let work begin again."""
        self._gate.resume()

    def reset(self) -> None:
        """Leave to the parent process what it opened: called in the child after a fork."""
        self._gate = Gate()
        self._opening = threading.Lock()
        if self._client is not None:
            # To close it here would end the parent's sessions.
            self._left.append(self._client)
            self._client = None

    def close(self) -> None:
        """Close what memori opened itself."""
        with self._opening:
            client, self._client = self._client, None
            give_back, self._close = self._close, None
        if client is not None:
            client.close()
        if give_back is not None:
            try:
                give_back()
            except Exception:
                # It may be the user's own function; whoever closes has no use for its failure.
                log.exception("could not give back the connection passed as conn=")

    @contextlib.contextmanager
    def working(self, *, patience: float = 1.0) -> Iterator[Collections]:
        """Give the collections by name; what is done with them within the ``with`` block takes bounded time.

        Args:
            patience: How many times as long as usual it may take.

        Raises:
            StorageError: The server failed, or did not answer in time.
        """
        timeout_s = self._timeout_s * patience
        entering = self._gate.passing(time.monotonic() + self._timeout_s)
        with entering, as_storage_error(timeout_s), pymongo.timeout(timeout_s):
            yield self._collections()

    def _collections(self) -> Collections:
        database, bound_ms = self._given, round(self._timeout_s * 1000)
        if database is None:
            with self._opening:
                if self._client is None:
                    own = "connecttimeoutms" in str(self._url).lower()
                    bounds: dict[str, Any] = {} if own else {"connectTimeoutMS": bound_ms}
                    self._client = MongoClient(self._url, **bounds)
                database = self._client[self._name]

        def collection(name: str) -> Collection[Document]:
            # With nothing of what the user set for their own code.
            return database.get_collection(
                name,
                codec_options=CodecOptions(),
                read_preference=ReadPreference.PRIMARY,
                write_concern=_WRITES,
                read_concern=ReadConcern("local"),
            )

        return collection


def closing(conn: object, factory: Callable[[], object]) -> Callable[[], object] | None:
    """Return what closes the client behind *conn*, which *factory* returned; None where others have that client too."""
    client = _client(conn)
    if client is None:
        return None
    try:
        another = _client(factory())
    except Exception as error:
        # The function is the user's and may raise anything.
        raise StorageError(f"the callable passed as conn= failed: {type(error).__name__}: {error}") from error
    if another is client:
        return None
    if another is not None:
        another.close()
    return client.close


def _client(conn: object) -> MongoClient[Document] | None:
    return conn.client if isinstance(conn, Database) else conn if isinstance(conn, MongoClient) else None


def _database(conn: Any) -> Database[Document]:
    if isinstance(conn, Database):
        return conn
    kind = f"{type(conn).__module__.partition('.')[0]}.{type(conn).__qualname__}"
    if isinstance(conn, MongoClient):
        try:
            return conn.get_default_database()
        except mongo_errors.ConfigurationError:
            raise Unsupported(
                "got a MongoClient whose URL names no database: pass client['memori'], or name it in the URL"
            ) from None
    if "Async" in kind or kind.startswith("motor."):
        raise Unsupported(
            f"got the asynchronous {kind}: pass pymongo.MongoClient(url)['memori'], or the URL; memori's own "
            "asynchronous methods keep your event loop free"
        )
    raise Unsupported(f"got {kind}: conn= takes {TAKEN}")


def _named_in(url: str) -> str:
    """Return the database that a MongoDB URL names."""
    try:
        # Of the other kind the hosts are asked for over the network.
        name = parse_uri(url)["database"] if url.startswith("mongodb://") else unquote(urlsplit(url).path[1:])
    except (mongo_errors.PyMongoError, ValueError):
        # The text may hold a password.
        raise Unsupported(
            "the MongoDB URL cannot be read: write mongodb://user:password@host/database, with each of : / ? # [ ] @ "
            "in the user's name and password escaped by urllib.parse.quote_plus"
        ) from None
    if not name:
        raise Unsupported("the MongoDB URL names no database: write one after the hosts, mongodb://host/memori")
    return str(name)


@contextlib.contextmanager
def as_storage_error(timeout_s: float) -> Iterator[None]:
    """Turn failures of the server into `StorageError`.

    Raises:
        StorageError: Instead of them. What PyMongo says is told where it cannot hold what people said.
    """
    try:
        yield
    except MemoriError:
        raise
    except mongo_errors.BulkWriteError as error:
        codes = sorted({str(item.get("codeName", item.get("code"))) for item in error.details.get("writeErrors", ())})
        raise StorageError(f"the database refused a write: {', '.join(codes) or 'write concern'}") from None
    except (mongo_errors.DuplicateKeyError, BSONError, OverflowError) as error:
        raise StorageError(f"the database cannot store this: {type(error).__name__}") from None
    except mongo_errors.PyMongoError as error:
        raise _storage_error(error, timeout_s) from error


def _storage_error(error: mongo_errors.PyMongoError, timeout_s: float) -> StorageError:
    if isinstance(error, mongo_errors.ServerSelectionTimeoutError) or error.timeout:
        # What follows is the same once more, at length.
        return StorageError(
            f"the database did not answer within {timeout_s:g} s: {str(error).partition(', Timeout:')[0]}"
        )
    if isinstance(error, mongo_errors.InvalidOperation):
        return StorageError(f"the client passed as conn= is closed: pass an open one, or a URL or a callable ({error})")
    if isinstance(error, mongo_errors.OperationFailure) and error.code == _UNAUTHORIZED:
        return StorageError(f"the database does not allow it: {error}")
    return StorageError(f"the database failed: {type(error).__name__}: {error}")


def not_built() -> NotBuiltError:
    """Return the error that says so."""
    return NotBuiltError("memori's collections are not in this database: call config.storage.build()")
