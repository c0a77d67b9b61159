"""The outbox's worker: what it finishes, what it gives back, and what it gives up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memori import Memori, Settings, StorageError
from memori.augmentation import worker as module
from memori.augmentation.worker import Worker
from memori.failures import Failures
from memori.storage.sql import SQLStorage
from memori.testing.storage import MINUTE, NOW, exchange, new_fact, revision
from memori.types import ExtractedFact, Job, Revision, StoredMessage

# So short that all that was claimed is abandoned by the time anyone looks again.
ENDED = Settings(lease_s=1e-6)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SQLStorage]:
    storage = SQLStorage(tmp_path / "memori.db")
    storage.build()
    yield storage
    storage.close()


class Crash(BaseException):
    """What stands for a process that is gone: nothing after it runs."""


def work(storage: SQLStorage, poison: str, done: list[str]) -> None:
    """Be a worker until nothing is due, or the exchange *poison* is met."""

    def revise(job: Job) -> Revision:
        text = job.messages[0].content
        if text == poison:
            raise Crash
        done.append(text)
        return revision(new_fact(text))

    Worker(storage, revise, ENDED, Failures(ENDED)).run()


def test_an_exchange_that_ends_its_workers_is_given_up(storage: SQLStorage) -> None:
    """Fails when such an exchange is taken up for ever, keeps others from being read, or takes them along."""
    for number in range(20):
        storage.record(exchange(f"{number}", entity=f"entity-{number}"))
    done: list[str] = []
    crashes = 0
    while True:
        try:
            work(storage, "3", done)
        except Crash:
            crashes += 1
        else:
            break
    assert crashes == 2 * ENDED.augmentation_attempts
    assert sorted(done, key=int) == [f"{number}" for number in range(20) if number != 3]
    (failed,) = storage.failed(limit=9)
    assert failed.entity_id == "entity-3"
    assert failed.error is not None
    assert "AbandonedError: taken up 10 times and never finished" in failed.error
    storage.retry()
    work(storage, "", done)
    assert done[-1] == "3"
    assert storage.failed(limit=9) == []


def test_stopping_gives_back_what_was_not_begun(storage: SQLStorage) -> None:
    """Fails when a worker that is told to stop goes on with its batch, or keeps the rest leased."""
    for number in range(5):
        storage.record(exchange(f"{number}"))
    begun, go_on = threading.Event(), threading.Event()

    def revise(job: Job) -> Revision:
        begun.set()
        assert go_on.wait(30)
        return revision(new_fact(job.messages[0].content))

    settings = Settings()
    worker = Worker(storage, revise, settings, Failures(settings))
    worker.start()
    assert begun.wait(30)
    worker.request_stop()
    go_on.set()
    assert worker.stop(30)
    counts = storage.jobs(now=NOW)
    assert (counts.done, counts.pending, counts.running) == (1, 4, 0)
    assert [job.attempts for job in storage.claim("next", now=NOW, lease=MINUTE, limit=9)] == [1] * 4


def test_the_job_at_hand_is_given_back_when_it_does_not_end(storage: SQLStorage) -> None:
    """Fails when a worker that cannot be waited for keeps its job, or its late result is stored beside the other's."""
    storage.record(exchange("I live in Rome."))
    begun, go_on = threading.Event(), threading.Event()

    def revise(job: Job) -> Revision:
        begun.set()
        assert go_on.wait(30)
        return revision(new_fact("late"))

    settings = Settings()
    worker = Worker(storage, revise, settings, Failures(settings))
    worker.start()
    assert begun.wait(30)
    assert not worker.stop(0.01)
    end = time.monotonic() + 60
    while storage.jobs(now=NOW).pending == 0:  # It is given back in the background if that takes long.
        assert time.monotonic() < end
        time.sleep(0.01)
    done: list[str] = []
    work(storage, "", done)
    assert done == ["I live in Rome."]
    go_on.set()
    assert worker.stop(30)
    assert [fact.content for fact in storage.facts("alice")] == ["I live in Rome."]


def test_a_process_that_was_opened_without_a_worker_can_start_one(tmp_path: Path) -> None:
    """Fails when ``worker=False`` cannot be taken back."""

    def read(messages: Sequence[StoredMessage]) -> list[ExtractedFact]:
        return [ExtractedFact(kind="fact", content=message.content) for message in messages]

    with Memori(conn=tmp_path / "memori.db", worker=False, extractor=read) as mem:
        mem.config.storage.build()
        mem.capture([{"role": "user", "content": "Hello."}], entity_id="ann")
        mem.augmentation.start()
        assert mem.augmentation.wait(60)
        assert [fact.content for fact in mem.facts(entity_id="ann")] == ["Hello."]
        assert mem.augmentation.failed() == []


class Down(SQLStorage):
    """A database that has been down for a long time."""

    def __init__(self, path: Path, times: int) -> None:
        super().__init__(path)
        self.left = times
        self.over = threading.Event()

    def claim(self, worker: str, *, now: datetime, lease: timedelta, limit: int) -> list[Job]:
        self.left -= 1
        if self.left <= 0:
            self.over.set()
        raise StorageError("the database is down")


def test_a_worker_outlives_any_number_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a database that is down for hours ends the thread that is to look for it."""
    monkeypatch.setattr(module, "_YIELD_S", 0.0)
    storage = Down(tmp_path / "memori.db", 1100)
    settings = Settings(retry_min_s=1e-9, retry_max_s=1e-9)
    worker = Worker(storage, lambda job: revision(), settings, Failures(settings))
    worker.start()
    assert storage.over.wait(60)
    assert worker.stop(30)
    storage.close()


def test_the_pause_after_many_attempts_is_the_longest(storage: SQLStorage) -> None:
    """Fails when the time of a next attempt cannot be counted because there were so many."""
    settings = Settings(augmentation_attempts=10_000, augmentation_batch=1)
    storage.record(exchange("I live in Rome."))
    (job,) = storage.claim("this", now=NOW, lease=MINUTE, limit=1)
    worker = Worker(storage, lambda job: revision(), settings, Failures(settings))
    again_at = worker._retry_at(replace(job, attempts=5000))
    assert again_at is not None
    assert again_at - datetime.now(UTC) <= timedelta(seconds=settings.retry_max_s)


def test_work_that_another_holds_is_not_asked_for_without_pause(storage: SQLStorage) -> None:
    """Fails when a worker asks the database again and again for work that is due and cannot be had."""
    settings = Settings()
    storage.record(exchange("I live in Rome."))
    worker = Worker(storage, lambda job: revision(), settings, Failures(settings))
    assert worker._until_due(settings.poll_s) == 0.1
    assert worker._until_due(0.01) == 0.01


def test_an_error_of_any_kind_leaves_nothing_leased(storage: SQLStorage) -> None:
    """Fails when what was claimed with the job that failed so waits until the lease ends."""
    for number in range(4):
        storage.record(exchange(f"{number}", entity=f"entity-{number}"))
    told: list[str] = []

    def revised(entity_id: str) -> None:
        told.append(entity_id)
        if len(told) == 2:
            raise ValueError("a bug")

    settings = Settings()
    worker = Worker(storage, lambda job: revision(new_fact("a fact")), settings, Failures(settings), revised=revised)
    with pytest.raises(ValueError, match="a bug"):
        worker.run()
    assert worker.run() == 2
    counts = storage.jobs(now=NOW)
    assert (counts.done, counts.pending, counts.running) == (4, 0, 0)
