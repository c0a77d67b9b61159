"""SQLite's write-ahead log, brought to the disk a moment after each commit instead of during it."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

__all__ = ["LogSync"]


class LogSync:
    """Syncs a database's log in the background; while one sync runs, all commits that it misses share the next."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, with no thread: that of a parent process did not survive its fork."""
        self._changed = threading.Condition()
        self._due: Path | None = None
        self._busy = False
        self._thread: threading.Thread | None = None

    def soon(self, database: Path) -> None:
        """Sync the log of *database* in the background."""
        with self._changed:
            self._due = database
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="memori-log-sync", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # No more threads, but the row is stored: the next commit tries again.
                    self._due = None
            self._changed.notify_all()

    def settle(self, timeout_s: float) -> None:
        """Wait until nothing is left to sync, at most *timeout_s*."""
        with self._changed:
            self._changed.wait_for(lambda: self._due is None and not self._busy, timeout_s)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while self._due is None:
                    self._changed.wait()
                database, self._due = self._due, None
                self._busy = True
            # No log: it was brought into the database meanwhile, which syncs both.
            with contextlib.suppress(OSError):
                log = os.open(f"{database}-wal", os.O_RDONLY)
                try:
                    os.fsync(log)
                finally:
                    os.close(log)
