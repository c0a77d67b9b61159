"""Work done with a bounded wait, on daemon threads of our own.

Not `concurrent.futures.ThreadPoolExecutor`: its threads are joined when the interpreter exits, so one connection that
hangs would hang the user's program, and it refuses work once that exit has begun.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from memori.errors import ClosedError, DeadlineError

__all__ = ["BoundedRunner"]

log = logging.getLogger("memori")
ResultT = TypeVar("ResultT")


class BoundedRunner:
    """At most *threads* daemon threads, started when first needed. Safe to use from any thread.

    Once every thread is held up by work that overran its time, further work is refused at once: a database that hangs
    then costs a caller nothing.
    """

    def __init__(self, name: str, *, threads: int = 8) -> None:
        self._name = name
        self._limit = threads
        self.reset()

    def reset(self) -> None:
        """Begin anew, with no threads: those of a parent process did not survive its fork."""
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._overdue = 0
        self._closed = False

    def run(self, function: Callable[[], ResultT], *, timeout_s: float, what: str) -> ResultT:
        """Return what *function* returns, or raise what it raises.

        Args:
            what: What is being done, for the error's message.

        Raises:
            DeadlineError: It was not done within *timeout_s* seconds. Work that has begun runs to its end unheard.
            ClosedError: The runner was closed.
        """
        with self._lock:
            if self._overdue >= self._limit:
                raise DeadlineError(f"{what}: not tried, earlier attempts are still held up")
        future = self.submit(function)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()
            if not future.cancel():
                self._count_overdue(future)
            raise DeadlineError(f"{what}: not done within {timeout_s * 1000:.0f} ms") from None

    def submit(self, function: Callable[[], ResultT]) -> Future[ResultT]:
        """Return the future of *function*, run as soon as a thread is free."""
        future: Future[ResultT] = Future()
        with self._lock:
            if self._closed:
                raise ClosedError("closed: make a new Memori")
            self._work.put((future, function))
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._limit:
                thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def close(self, timeout_s: float = 0.0) -> None:
        """Let the threads end once what is queued is done; wait for that at most *timeout_s* seconds.

        A thread in native code when the interpreter ends can abort the whole process.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._work.put(None)
            threads = list(self._threads)
        end = time.monotonic() + timeout_s
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(end - time.monotonic(), 0.0))

    def _count_overdue(self, future: Future[Any]) -> None:
        with self._lock:
            self._overdue += 1
        future.add_done_callback(self._no_longer_overdue)

    def _no_longer_overdue(self, _future: Future[Any]) -> None:
        with self._lock:
            self._overdue -= 1

    def _serve(self) -> None:
        work = self._work
        while (item := work.get()) is not None:
            future, function = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
                    future.set_exception(error)
            del item, future, function
            with self._lock:
                self._idle += 1
