"""The outbox's worker: a thread that takes up the work on stored exchanges, wherever it was left."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from memori.errors import NotBuiltError, StorageError
from memori.failures import Failures
from memori.protocols import Storage
from memori.settings import Settings
from memori.types import Job, Revision

__all__ = ["Worker"]

# Between an exchange's being stored and the work on it: a thread that computes may keep the interpreter from the call's
# own for 5 ms (`sys.getswitchinterval`), and the call is about to return.
_YIELD_S = 0.01


class Worker:
    """Claims jobs, augments their exchanges, and commits each result with the job's end. Safe to use from any thread.

    A job whose worker dies is taken up by another once its lease has run out; what it yields is stored once.

    Attributes:
        handled: How many jobs it has been through, failed ones included.

    Args:
        revise: What is to be done to the entity's memory for a job.
        revised: Called with the entity's id when that was done. May raise only `StorageError`.
    """

    def __init__(
        self,
        storage: Storage,
        revise: Callable[[Job], Revision],
        settings: Settings,
        failures: Failures,
        *,
        revised: Callable[[str], None] = lambda entity_id: None,
    ) -> None:
        self._storage = storage
        self._revise = revise
        self._revised = revised
        self._settings = settings
        self._failures = failures
        self.reset()

    def reset(self) -> None:
        """Begin anew, with no thread and a name of its own: a parent process's thread did not survive its fork."""
        self.name = f"{os.getpid()}-{uuid4().hex[:12]}"
        self._wake = threading.Condition()
        self._work = False
        self._hurried = False  # Whether someone waits for the work.
        self._stopping = False
        self.handled = 0
        self._thread: threading.Thread | None = None
        # Jobs still leased to this worker because the database went away under them.
        self._stranded: list[tuple[Job, str, datetime | None]] = []

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._wake:
            if not self._stopping and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._serve, name="memori-augmentation", daemon=True)
                self._thread.start()

    def notify(self) -> None:
        """Look for work now."""
        with self._wake:
            self._work = True
            self._wake.notify_all()

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the job it is at; return whether it ended within *timeout_s*."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def run(self) -> int:
        """Do what is due until nothing is; return how many jobs were finished.

        Raises:
            StorageError: The database cannot be reached.
        """
        finished = 0
        self._give_back([])
        while not self._stopping and (jobs := self._claim()):
            claimed = time.monotonic()
            for place, job in enumerate(jobs):
                if self._stopping or time.monotonic() - claimed > self._settings.lease_s / 2:
                    now = datetime.now(UTC)
                    self._give_back([(left, "given back undone by its worker", now) for left in jobs[place:]])
                    break
                try:
                    finished += self._do(job)
                except StorageError as error:
                    left = [(later, str(error), datetime.now(UTC)) for later in jobs[place + 1 :]]
                    self._stranded += [(job, str(error), self._retry_at(job)), *left]
                    raise
        return finished

    def wait(self, *, after: int, timeout_s: float) -> None:
        """Wait until more jobs than *after* were `handled`, or *timeout_s* passed."""
        with self._wake:
            self._hurried = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self.handled > after, timeout_s)

    def _claim(self) -> list[Job]:
        return self._storage.claim(
            self.name,
            now=datetime.now(UTC),
            lease=timedelta(seconds=self._settings.lease_s),
            limit=self._settings.augmentation_batch,
        )

    def _give_back(self, jobs: list[tuple[Job, str, datetime | None]]) -> None:
        self._stranded += jobs
        while self._stranded:
            job, error, retry_at = self._stranded.pop(0)
            try:
                self._storage.fail(job, error, retry_at=retry_at)
            except StorageError:
                self._stranded.append((job, error, retry_at))
                raise

    def _do(self, job: Job) -> bool:
        try:
            revision = self._revise(job)
            done = self._storage.complete(job, revision, now=datetime.now(UTC))
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - one exchange that cannot be read must not stop the others
            self._failures.note(f"augmenting exchange {job.exchange_id}", error)
            self._storage.fail(job, f"{type(error).__name__}: {error}", retry_at=self._retry_at(job))
            done = False
        with self._wake:
            self.handled += 1
            self._wake.notify_all()
        if done:
            self._revised(job.entity_id)
        return done

    def _retry_at(self, job: Job) -> datetime | None:
        if job.attempts >= self._settings.augmentation_attempts:
            return None
        delay_s = min(self._settings.retry_min_s * 2 ** (job.attempts - 1), self._settings.retry_max_s)
        return datetime.now(UTC) + timedelta(seconds=delay_s)

    def _serve(self) -> None:
        failed = 0
        while not self._stopping:
            with self._wake:
                self._work = False
            pause_s = self._settings.poll_s
            try:
                self.run()
                failed = 0
                pause_s = self._until_due(pause_s)
            except NotBuiltError:
                pass  # Nothing can be waiting in a database without tables; `build` notifies.
            except StorageError as error:
                self._failures.note("looking for work", error)
                failed += 1
                pause_s = min(self._settings.retry_min_s * 2**failed, self._settings.retry_max_s)
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a database driver raises
                self._failures.note("looking for work", error)
            # Many processes' workers must not ask the database in step.
            self._pause(pause_s * random.uniform(0.8, 1.0))  # noqa: S311

    def _until_due(self, most_s: float) -> float:
        due = self._storage.jobs(now=datetime.now(UTC)).next_due
        return most_s if due is None else max(0.0, min(most_s, (due - datetime.now(UTC)).total_seconds()))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with self._wake:
            while not self._work and not self._stopping and (left := end - time.monotonic()) > 0:
                self._wake.wait(left)
            self._wake.wait_for(lambda: self._hurried or self._stopping, _YIELD_S)
            self._hurried = False
