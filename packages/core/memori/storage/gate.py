"""What threads wait at before they use a database: for their turn, and while the process is being forked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from memori.errors import StorageError

__all__ = ["Gate", "taking"]


class Gate:
    """Open until `pause`. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._paused = False

    def pause(self, timeout_s: float) -> None:
        """Let nobody in until `resume`, and wait for those who are inside."""
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: self._inside == 0, timeout_s)

    def resume(self) -> None:
        """Let everybody in again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def passing(self, deadline: float) -> Iterator[None]:
        """Be inside until the ``with`` block ends.

        Args:
            deadline: The `time.monotonic` until which to wait for that.

        Raises:
            StorageError: It was shut for too long.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._paused, max(deadline - time.monotonic(), 0.001)):
                raise StorageError("the process is being forked; try again")
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()


@contextlib.contextmanager
def taking(lock: threading.Lock, timeout_s: float) -> Iterator[None]:
    """Hold *lock* until the ``with`` block ends.

    Raises:
        StorageError: Others held it for too long.
    """
    if not lock.acquire(timeout=max(timeout_s, 0.001)):
        raise StorageError("the database is busy: other threads have been using it for too long; try again")
    try:
        yield
    finally:
        lock.release()
