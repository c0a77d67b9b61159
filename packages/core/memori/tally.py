"""How often facts are recalled: counted in memory, told to the storage in the background, many recalls at once."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from memori.errors import MemoriError
from memori.protocols import Storage

__all__ = ["Tally"]

log = logging.getLogger("memori")

DELAY_S = 1.0  # A write beside each recall would cost more than the recall.


class Tally:
    """Counts recalls. Safe to use from any thread; a count is of so little weight that a failure only loses it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.reset()

    def reset(self) -> None:
        """Begin anew, with nothing counted: what a parent process counted stays with the parent."""
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[int]] = {}
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, entity_id: str, fact_ids: Iterable[int]) -> None:
        """Count these facts as recalled once more."""
        counted = Counter(fact_ids)
        if not counted:
            return
        with self._lock:
            self._counts.setdefault(entity_id, Counter()).update(counted)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._tell, name="memori-tally", daemon=True)
                self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Tell the storage what was counted so far, and wait for that at most *timeout_s* seconds."""
        # By the thread that is there already: at the interpreter's end none can be started.
        self._hurry.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _tell(self) -> None:
        while True:
            self._hurry.wait(DELAY_S)
            self._flush()
            with self._lock:
                if not self._counts:
                    self._thread = None
                    return

    def _flush(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, {}
        at = datetime.now(UTC)
        try:
            for entity_id, counted in counts.items():
                while counted:
                    self._storage.recalled(entity_id, list(counted), at=at)
                    counted -= Counter(list(counted))
        except MemoriError as error:
            log.debug("recalls were not counted: %s", error)
