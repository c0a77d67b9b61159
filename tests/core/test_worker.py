"""The outbox's worker: what it finishes, what it gives back, and what it gives up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from memori import Memori, Settings
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
