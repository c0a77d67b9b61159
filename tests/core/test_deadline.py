"""Work done with a bounded wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from memori.deadline import BoundedRunner
from memori.errors import ClosedError, DeadlineError


@pytest.fixture
def runner() -> Iterator[BoundedRunner]:
    runner = BoundedRunner("test", threads=2)
    yield runner
    runner.close()


def test_it_returns_and_raises_what_the_work_does(runner: BoundedRunner) -> None:
    """Fails when a result or an error is lost on its way between the threads."""
    assert runner.run(lambda: 7, timeout_s=5, what="adding") == 7
    with pytest.raises(ZeroDivisionError):
        runner.run(lambda: 1 / 0, timeout_s=5, what="dividing")


def test_a_timeout_raised_by_the_work_is_the_works_own(runner: BoundedRunner) -> None:
    """Fails when a driver's TimeoutError is taken for ours."""

    def work() -> None:
        raise TimeoutError("the driver's")

    with pytest.raises(TimeoutError, match="the driver's"):
        runner.run(work, timeout_s=5, what="working")


def test_the_wait_is_bounded(runner: BoundedRunner) -> None:
    """Fails when work that hangs holds its caller up."""
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="recalling: not done within 20 ms"):
        runner.run(lambda: release.wait(30), timeout_s=0.02, what="recalling")
    assert time.monotonic() - began < 5
    release.set()


def test_hung_threads_refuse_at_once_and_recover(runner: BoundedRunner) -> None:
    """Fails when a caller queues behind threads that all hang, or when they stay refused after those return."""
    release = threading.Event()
    for _ in range(2):
        with pytest.raises(DeadlineError, match="not done within"):
            runner.run(lambda: release.wait(30), timeout_s=0.02, what="hanging")
    with pytest.raises(DeadlineError, match="held up"):
        runner.run(lambda: 1, timeout_s=30, what="waiting")
    release.set()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            assert runner.run(lambda: 1, timeout_s=5, what="waiting") == 1
            return
        except DeadlineError:
            time.sleep(0.01)
    pytest.fail("the runner did not recover")


def test_work_that_nobody_waits_for_any_more_is_not_begun(runner: BoundedRunner) -> None:
    """Fails when work queued behind a hang is done after its caller has gone."""
    release = threading.Event()
    for _ in range(2):
        runner.submit(lambda: release.wait(30))
    done: list[int] = []
    with pytest.raises(DeadlineError):
        runner.run(lambda: done.append(1), timeout_s=0.02, what="waiting")
    release.set()
    assert runner.run(lambda: 2, timeout_s=10, what="working") == 2
    assert done == []


def test_many_callers_share_the_threads(runner: BoundedRunner) -> None:
    """Fails when work is dropped or a thread is lost under load."""
    answers: list[int] = []
    lock = threading.Lock()

    def call(number: int) -> None:
        answer = runner.run(lambda: number * 2, timeout_s=30, what="doubling")
        with lock:
            answers.append(answer)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [number * 2 for number in range(50)]


def test_a_closed_runner_refuses_with_a_reason() -> None:
    """Fails when work given to a closed runner waits for ever."""
    runner = BoundedRunner("test")
    runner.close()
    runner.close()
    with pytest.raises(ClosedError, match="new Memori"):
        runner.run(lambda: 1, timeout_s=1, what="working")
