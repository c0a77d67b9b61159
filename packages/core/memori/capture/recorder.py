"""Exchanges on their way into the database: stored before the call returns where that is quick, and kept where not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from memori.capture.spool import Spool
from memori.errors import DeadlineError, StorageError
from memori.failures import Failures
from memori.protocols import Storage
from memori.settings import Settings
from memori.types import Exchange

__all__ = ["Recorder"]

# An exchange refused so often, while others pass, is itself the trouble: those behind it need not wait for it.
PATIENCE = 3


@dataclass(eq=False, slots=True)
class _Entry:
    exchange: Exchange
    spooled: bool = False
    attempts: int = 0
    error: Exception | None = None
    tried: threading.Event = field(default_factory=threading.Event)  # Set by the first attempt's end, good or bad.


class Recorder:
    """One writer thread, in front of it a bounded queue, beside it the spool. Safe to use from any thread.

    Exchanges are stored in the order in which they were handed in. What is in the queue when the process is killed is
    lost unless there is a spool; what was stored, or spooled, is not.

    Args:
        stored: Called after each exchange that was stored.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Settings,
        failures: Failures,
        *,
        spool: Spool | None,
        stored: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._settings = settings
        self._failures = failures
        self._spool = spool
        self._stored = stored
        self.reset()
        if spool is not None:
            self._take_up_spooled()

    def reset(self) -> None:
        """Begin anew, with nothing pending and no thread: those of a parent process stay with the parent."""
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._pending: list[_Entry] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._left_on_disk = False
        self._down = False
        self._delay_s = 0.0
        self.recorded = 0
        self.lost = 0

    @property
    def pending(self) -> int:
        """How many exchanges are held in memory."""
        return len(self._pending)

    @property
    def spooled(self) -> int:
        """How many exchanges are on disk."""
        return 0 if self._spool is None else self._spool.count()

    def record(self, exchange: Exchange, *, wait: bool) -> Exception | None:
        """Store *exchange*, or keep it until that is possible; return None when it is stored, else why it is not yet.

        Args:
            wait: Whether to wait for it, at most ``capture_timeout_s``. While the database is known to be down nobody
                waits.
        """
        entry = _Entry(exchange)
        with self._changed:
            fits = len(self._pending) < self._settings.pending_limit
            down = self._down
            if fits:
                self._pending.append(entry)
                self._ensure_thread()
                self._changed.notify_all()
        if not fits:
            return self._overflow(exchange)
        if wait and not down and entry.tried.wait(self._settings.capture_timeout_s) and entry.error is None:
            return None
        if not wait:
            return None  # The writer spools it if it must: here may be an event loop, or the garbage collector.
        self._save(entry)
        return entry.error or DeadlineError("the exchange is not stored yet: the database is slow or down; it is kept")

    def flush(self, timeout_s: float | None) -> bool:
        """Wait until nothing is pending; return whether that came to be. Retries at once whatever waits for a retry."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            self._delay_s = 0.0
            self._changed.notify_all()
            while self._pending or self._left_on_disk:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if not self._changed.wait(left) and deadline is not None:
                    return not self._pending
        return True

    def retry_now(self) -> None:
        """Try again at once: something happened (the tables were built) that makes success likely."""
        with self._changed:
            self._delay_s = 0.0
            self._down = False
            self._changed.notify_all()

    @contextmanager
    def forgetting(self, entity_id: str) -> Iterator[None]:
        """Drop what is pending for an entity, on disk too, and write nothing until the ``with`` block has ended."""
        with self._writing:
            self._drop(entity_id)
            yield

    def _drop(self, entity_id: str) -> None:
        with self._changed:
            gone = [entry for entry in self._pending if entry.exchange.attribution.entity_id == entity_id]
            self._pending = [entry for entry in self._pending if entry not in gone]
            self._changed.notify_all()
        if self._spool is not None:
            for exchange in self._spool.load():
                if exchange.attribution.entity_id == entity_id:
                    self._spool.discard(exchange)

    def close(self, timeout_s: float) -> bool:
        """Store what is pending within *timeout_s*, then stop; return whether everything was stored (or spooled)."""
        done = self.flush(timeout_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            left = list(self._pending)
        kept = [self._save(entry) for entry in left]
        return done or (bool(kept) and all(kept))

    def _overflow(self, exchange: Exchange) -> Exception:
        if self._spool is not None and self._save(_Entry(exchange)):
            self._left_on_disk = True
            return StorageError("the database is down; the exchange is on disk")
        self.lost += 1
        error = StorageError(
            f"an exchange is lost: {self._settings.pending_limit} are held already (pending_limit) "
            "and there is no spool= folder to put it in"
        )
        self._failures.note("recording", error)
        return error

    def _save(self, entry: _Entry) -> bool:
        if self._spool is None:
            return False
        try:
            if not entry.spooled:
                self._spool.save(entry.exchange)
                entry.spooled = True
            if entry.tried.is_set() and entry.error is None:
                self._spool.discard(entry.exchange)  # It was stored while it was being saved.
        except OSError as error:
            self._failures.note("spooling", error)
            return False
        return True

    def _take_up_spooled(self) -> None:
        if self._spool is None:
            return
        room = self._settings.pending_limit
        # What is being forgotten must not be read just before it goes. Read without the other lock: calls wait for it.
        with self._writing:
            spooled = list(self._spool.load())
            with self._changed:
                known = {entry.exchange.id for entry in self._pending}
                waiting = [exchange for exchange in spooled if exchange.id not in known]
                self._pending += [_Entry(exchange, spooled=True) for exchange in waiting[:room]]
                self._left_on_disk = len(waiting) > room
                self._changed.notify_all()
                if self._pending:
                    self._ensure_thread()

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._write, name="memori-recorder", daemon=True)
            self._thread.start()

    def _write(self) -> None:
        while True:
            with self._changed:
                while not (self._pending or self._closing or self._left_on_disk):
                    self._changed.wait()
                if self._closing:
                    return
                idle = not self._pending
                # Past the head only one step, and only when the head has failed while the rest had no chance.
                skip = len(self._pending) > 1 and self._pending[0].attempts >= PATIENCE
                batch = self._pending[: 2 if skip else 1]
            if idle:
                self._take_up_spooled()
                continue
            stored = [self._try(entry) for entry in batch]  # Both are tried, whatever became of the first.
            if not any(stored):
                self._back_off()

    def _try(self, entry: _Entry) -> bool:
        try:
            with self._writing:
                if entry not in self._pending:
                    return True  # Dropped, as its entity is being forgotten.
                self._storage.record(entry.exchange, read_back=False)
        except Exception as error:  # noqa: BLE001 - whatever it was, the exchange is kept and tried again
            entry.attempts += 1
            entry.error = error
            entry.tried.set()
            self._failures.note("recording", error)
            self._save(entry)
            return False
        entry.error = None
        entry.tried.set()
        if entry.spooled and self._spool is not None:
            try:
                self._spool.discard(entry.exchange)
            except OSError as error:  # Whoever finds it again stores it once more, which changes nothing.
                self._failures.note("spooling", error)
        with self._changed:
            if entry in self._pending:
                self._pending.remove(entry)
            self._down = False
            self._delay_s = 0.0
            self.recorded += 1
            self._changed.notify_all()
        self._stored()
        return True

    def _back_off(self) -> None:
        with self._changed:
            self._down = True
            self._delay_s = min(max(self._delay_s * 2, self._settings.retry_min_s), self._settings.retry_max_s)
            end = time.monotonic() + self._delay_s
        # New exchanges notify the condition too: they do not cut the pause short, as `retry_now` and `close` do.
        spooling = self._spool is not None
        while True:
            with self._changed:
                if not self._delay_s or self._closing or (left := end - time.monotonic()) <= 0:
                    return
                unsaved = [entry for entry in self._pending if spooling and not entry.spooled]
                if not unsaved:
                    self._changed.wait(left)
            for entry in unsaved:
                spooling = self._save(entry) and spooling
