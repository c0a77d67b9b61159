"""What becomes of a failure of ours: logged and counted, and raised only where the user asked for that."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

from memori.settings import Settings

__all__ = ["Failures"]

log = logging.getLogger("memori")

QUIET_S = 60.0  # A database that is down fails with every call; its traceback helps once a minute, not once a call.


class Failures:
    """The failures of one `Memori`. Safe to use from any thread.

    Attributes:
        count: How many there were.
        last: The last one's type and message; None when there was none.
        last_at: When that was.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Reentrant: a dropped stream is recorded by the garbage collector, in whatever thread and line that runs.
        self._lock = threading.RLock()
        self._logged: dict[str, float] = {}
        self.count = 0
        self.last: str | None = None
        self.last_at: datetime | None = None

    def note(self, what: str, error: BaseException) -> None:
        """Log and count *error*, which kept *what* from being done."""
        text = f"{type(error).__name__}: {error}"
        moment = time.monotonic()
        with self._lock:
            self.count += 1
            self.last, self.last_at = f"{what}: {text}", datetime.now(UTC)
            logged = self._logged.get(self.last)
            quiet = logged is not None and moment - logged < QUIET_S
            if not quiet:
                if len(self._logged) >= 1000:
                    self._logged.clear()
                self._logged[self.last] = moment
        if quiet:
            log.debug("%s: %s", what, text)
        else:
            log.warning("%s: %s", what, text, exc_info=error)

    def note_or_raise(self, what: str, error: Exception) -> None:
        """Log and count *error*; under ``on_error="raise"`` raise it too. For use on the path of the user's call."""
        self.note(what, error)
        if self._settings.on_error == "raise":
            raise error
