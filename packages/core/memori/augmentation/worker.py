"""The outbox's worker: a thread that takes up the work on stored exchanges, wherever it was left."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from memori.errors import AbandonedError, NotBuiltError, StorageError
from memori.failures import Failures
from memori.jitter import jittered
from memori.protocols import Storage
from memori.settings import Settings
from memori.types import Job, Revision

__all__ = ["Worker"]

# Between an exchange's being stored and the work on it: a thread that computes may keep the interpreter from the call's
# own for 5 ms (`sys.getswitchinterval`), and the call is about to return.
_YIELD_S = 0.01
_ABANDONED = 2  # Times `augmentation_attempts`: innocent exchanges die with their workers too.
_RELEASE_S = 3.0  # What stopping waits at most for a job to be given back.
_DOUBLINGS = 30  # Of a pause: more reach `retry_max_s` no sooner, and overflow in the end.
_BUSY_S = 0.1  # Between looks at work that is due, and that another process holds.


class Worker:
    """Claims jobs, augments their exchanges, and commits each result with the job's end. Safe to use from any thread.

    A job whose worker dies is taken up by another once its lease has run out; what it yields is stored once.

    Attributes:
        handled: How many jobs it has been through, failed ones included.

    Args:
        revise: What is to be done to the entity's memory for a job.
        prepare: Called in the thread before it takes up anything: work that waits for it would be lost with a crash.
        revised: Called with the entity's id when that was done. May raise only `StorageError`.
    """

    def __init__(
        self,
        storage: Storage,
        revise: Callable[[Job], Revision],
        settings: Settings,
        failures: Failures,
        *,
        prepare: Callable[[], object] = lambda: None,
        revised: Callable[[str], None] = lambda entity_id: None,
    ) -> None:
        self._storage = storage
        self._revise = revise
        self._prepare = prepare
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
        # Leased to this worker; of these, those that failed and those left undone are to be given back.
        self._leased: dict[int, Job] = {}
        self._failed: list[tuple[Job, str, datetime | None]] = []
        self._undone: list[Job] = []

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

    def request_stop(self) -> None:
        """Let the thread end after the job it is at, without waiting for it."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the job it is at; return whether it ended within *timeout_s*.

        If not, that job is given back. Should the thread end it all the same, then nothing comes of it.
        """
        self.request_stop()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        if not thread.is_alive():
            return True
        # In a thread, because it may be the database that keeps the job from its end.
        release = threading.Thread(target=self._abandon, name="memori-release", daemon=True)
        try:
            release.start()
        except RuntimeError:  # The interpreter is ending, and from Python 3.12 on no thread starts then.
            return False
        release.join(_RELEASE_S)
        return False

    def run(self) -> int:
        """Do what is due until nothing is; return how many jobs were finished.

        Raises:
            StorageError: The database cannot be reached.
        """
        finished = 0
        self._give_back()
        while not self._stopping and (jobs := self._claim()):
            self._leased.update((job.id, job) for job in jobs)
            end = time.monotonic() + self._settings.lease_s / 2
            for place, job in enumerate(jobs):
                if self._stopping or (place and time.monotonic() > end):
                    self._undone += jobs[place:]
                    self._give_back()
                    break
                try:
                    finished += self._do(job)
                except Exception as error:
                    self._failed.append((job, str(error), self._retry_at(job)))
                    self._undone += jobs[place + 1 :]
                    raise
                self._leased.pop(job.id, None)
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

    def _give_back(self) -> None:
        while self._failed:
            job, error, retry_at = self._failed.pop(0)
            try:
                self._storage.fail(job, error, retry_at=retry_at)
            except StorageError:
                self._failed.append((job, error, retry_at))
                raise
            self._leased.pop(job.id, None)
        undone, self._undone = self._undone, []
        try:
            self._storage.release(undone)
        except Exception:
            self._undone += undone
            raise
        for job in undone:
            self._leased.pop(job.id, None)

    def _abandon(self) -> None:
        with contextlib.suppress(StorageError):  # Their leases run out.
            self._storage.release(list(self._leased.values()))

    def _do(self, job: Job) -> bool:
        try:
            if job.attempts > _ABANDONED * self._settings.augmentation_attempts:
                # Of one that failed so often the error would be known; of this one nobody lived to tell.
                raise AbandonedError(
                    f"taken up {job.attempts - 1} times and never finished: it ends its workers, or takes longer than "
                    f"their lease (lease_s={self._settings.lease_s})"
                )
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
        delay_s = min(self._settings.retry_min_s * 2 ** min(job.attempts - 1, _DOUBLINGS), self._settings.retry_max_s)
        return datetime.now(UTC) + timedelta(seconds=delay_s)

    def _serve(self) -> None:
        failed = 0
        self._prepare()
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
                failed = min(failed + 1, _DOUBLINGS)
                pause_s = min(self._settings.retry_min_s * 2**failed, self._settings.retry_max_s)
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a database driver raises
                self._failures.note("looking for work", error)
            # Many processes' workers must not ask the database in step.
            self._pause(jittered(pause_s, least=0.8))

    def _until_due(self, most_s: float) -> float:
        due = self._storage.jobs(now=datetime.now(UTC)).next_due
        if due is None:
            return most_s
        return min(most_s, max(_BUSY_S, (due - datetime.now(UTC)).total_seconds()))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with self._wake:
            while not self._work and not self._stopping and (left := end - time.monotonic()) > 0:
                self._wake.wait(left)
            self._wake.wait_for(lambda: self._hurried or self._stopping, _YIELD_S)
            self._hurried = False
