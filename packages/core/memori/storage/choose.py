"""What a user may pass as ``conn=``, as a Storage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from memori.storage.connect import NotRelationalError, is_factory, speaks_mongo
from memori.storage.gate import taking
from memori.storage.sql import SQLStorage

if TYPE_CHECKING:
    from memori.storage.mongo import MongoStorage

__all__ = ["AnyStorage", "storage_from"]

AnyStorage: TypeAlias = "SQLStorage | MongoStorage"


def storage_from(conn: object, *, busy_timeout_s: float = 5.0) -> AnyStorage:
    """Return the storage in the database behind *conn*, without reaching for it.

    Raises:
        UnsupportedConnectionError: *conn* leads to no database; says what does.
        MissingExtraError: The driver that *conn* names is not installed.
    """
    if speaks_mongo(conn):
        from memori.storage.mongo import MongoStorage

        return MongoStorage(conn, busy_timeout_s=busy_timeout_s)
    relational = SQLStorage(conn, busy_timeout_s=busy_timeout_s)
    if not is_factory(conn):
        return relational
    # It looks like either, and is one of them.
    return cast("AnyStorage", _Deferred(conn, relational, busy_timeout_s))


class _Deferred:
    """The storage that a callable turns out to lead to, when something is first asked of it."""

    def __init__(self, factory: Callable[[], object], relational: SQLStorage, busy_timeout_s: float) -> None:
        self._factory = factory
        self._relational = relational
        self._busy_timeout_s = busy_timeout_s
        self._chosen: AnyStorage | None = None
        self._left: list[MongoStorage] = []
        self._choosing = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        chosen = self._chosen
        if chosen is None:
            with taking(self._choosing, self._busy_timeout_s):
                chosen = self._chosen
                if chosen is None:
                    try:
                        self._relational.reach()
                        chosen = self._relational
                    except NotRelationalError as found:
                        chosen = self._mongo(found)
                    self._chosen = chosen
        return getattr(chosen, name)

    def _mongo(self, found: NotRelationalError) -> MongoStorage:
        from memori.storage.deployment import closing
        from memori.storage.mongo import MongoStorage

        close = found.release or closing(found.conn, self._factory)
        return MongoStorage(found.conn, busy_timeout_s=self._busy_timeout_s, close=close)

    # The user's function is called for work only, not for these.

    def close(self) -> None:
        (self._chosen or self._relational).close()

    def pause(self, timeout_s: float) -> None:
        (self._chosen or self._relational).pause(timeout_s)

    def resume(self) -> None:
        (self._chosen or self._relational).resume()

    def reset(self) -> None:
        self._choosing = threading.Lock()
        self._relational.reset()
        if self._chosen not in (None, self._relational):
            # Its client stays the parent's, and here the function makes another.
            self._left.append(cast("MongoStorage", self._chosen))
            self._chosen = None
