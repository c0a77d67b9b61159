"""A connection pool for connections that work in their own thread only."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, NullPool

__all__ = ["PerThreadPool"]


class PerThreadPool(NullPool):
    """One connection a thread, opened when it is first needed there and closed when the thread ends.

    Not SQLAlchemy's `SingletonThreadPool`: that keeps the connections of threads that ended, and closes surplus ones
    from whatever thread it is in.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._local = threading.local()

    def status(self) -> str:
        return "PerThreadPool"

    def _do_get(self) -> ConnectionPoolEntry:
        held: _Held | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = _Held(self._create_connection())
        return held.entry

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        """Leave it to its thread."""

    def dispose(self) -> None:
        self._local = threading.local()


class _Held:
    """Closes its connection when it is dropped, which a thread's end does."""

    def __init__(self, entry: ConnectionPoolEntry) -> None:
        self.entry = entry

    def __del__(self) -> None:
        # Dropped by another thread, when all is disposed of: sqlite3 refuses to close, and closes when it is freed.
        with contextlib.suppress(Exception):
            if self.entry.dbapi_connection is not None:
                self.entry.dbapi_connection.close()
