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
        self._timer: threading.Timer | None = None

    def add(self, entity_id: str, fact_ids: Iterable[int]) -> None:
        """Count these facts as recalled once more."""
        counted = Counter(fact_ids)
        if not counted:
            return
        with self._lock:
            self._counts.setdefault(entity_id, Counter()).update(counted)
            if self._timer is None:
                self._timer = threading.Timer(DELAY_S, self.flush)
                self._timer.name = "memori-tally"
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Tell the storage what was counted so far."""
        with self._lock:
            counts, self._counts = self._counts, {}
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        at = datetime.now(UTC)
        try:
            for entity_id, counted in counts.items():
                while counted:
                    self._storage.recalled(entity_id, list(counted), at=at)
                    counted -= Counter(list(counted))
        except MemoriError as error:
            log.debug("recalls were not counted: %s", error)
