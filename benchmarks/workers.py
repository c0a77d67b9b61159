"""Many processes that store into one database, beside workers that are killed: ``python -m benchmarks.workers [URL]``.

Every process builds the tables at the same moment, then stores its exchanges; ``memori worker`` processes read facts
out of them, and each second one is killed with SIGKILL and another started. In the end every exchange must have been
stored and read exactly once. Exits with 1 if one was not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.table import Table
from memori import Memori, StorageError
from memori.types import JobCounts

__all__ = ["Outcome", "measure"]

ENTITIES = 7  # Fewer than processes: they shall meet.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one run.

    Attributes:
        stored_s: Seconds until everything was stored.
        done_s: Seconds until everything was read.
        again: How often storing had to be tried again, because the database did not take it.
        wrong: What was lost, doubled or given up; empty when all is well.
    """

    exchanges: int
    stored_s: float
    done_s: float
    kills: int
    again: int
    wrong: list[str]


def measure(
    url: str, *, processes: int, exchanges: int, workers: int, every_s: float, kills: int, patience_s: float
) -> Outcome:
    """Return what came of *processes* that store *exchanges* each, while *workers* are killed.

    Args:
        url: An empty database.
        every_s: Seconds between two kills.
        kills: How many there are at most.
        patience_s: Seconds after which everything must be done.
    """
    context = multiprocessing.get_context("forkserver")
    # A worker that is killed after some seconds must not spend them on imports.
    context.set_forkserver_preload(["benchmarks.preloaded"])
    start, again = context.Barrier(processes), context.Value("i", 0)
    began = time.monotonic()
    speakers: list[BaseProcess] = [
        context.Process(target=_speak, args=(url, number, exchanges, start, again)) for number in range(processes)
    ]
    for speaker in speakers:
        speaker.start()
    moments = random.Random(20261125)  # noqa: S311 - the same workers shall be killed in each run
    killed, stored_s = 0, 0.0
    total = processes * exchanges
    with Memori(url, worker=False) as mem, _worked(context, url, workers) as working:
        next_kill = 0.0
        while True:
            if not stored_s and not any(speaker.is_alive() for speaker in speakers):
                stored_s = time.monotonic() - began
            counts = _counts(mem)
            if stored_s and counts is not None and counts.done + counts.failed >= total:
                break
            if stored_s and any(speaker.exitcode for speaker in speakers):
                break
            if time.monotonic() - began > patience_s:
                break
            # The first is killed when there is something that it can lose.
            if counts is not None and counts.done and time.monotonic() >= next_kill and killed < kills:
                place = moments.randrange(workers)
                working[place].kill()
                working[place].join()
                working[place] = _worker(context, url)
                killed, next_kill = killed + 1, time.monotonic() + every_s
            time.sleep(_LOOK_S)
        done_s = time.monotonic() - began
        for speaker in speakers:
            speaker.kill()
        wrong = [f"a process that stored ended with {speaker.exitcode}" for speaker in speakers if speaker.exitcode]
        wrong += _wrong(mem, processes, exchanges)
    return Outcome(exchanges=total, stored_s=stored_s, done_s=done_s, kills=killed, again=again.value, wrong=wrong)


def _said(process: int, number: int) -> str:
    return f"I like gadget-{process}-{number}."


def _entity(process: int, number: int) -> str:
    return f"user-{(process + number) % ENTITIES}"


def _speak(url: str, process: int, exchanges: int, start: Any, again: Any) -> None:
    with Memori(url, worker=False) as mem:
        start.wait()
        mem.config.storage.build()
        for number in range(exchanges):
            said = [
                {"role": "user", "content": _said(process, number)},
                {"role": "assistant", "content": "Noted."},
            ]
            while True:
                try:
                    mem.capture(said, entity_id=_entity(process, number), session_id=f"session-{process}")
                except StorageError:
                    # What storing says of a database that is busy with fifteen processes; a call would hold the
                    # exchange and store it later.
                    with again.get_lock():
                        again.value += 1
                else:
                    break


def _worker(context: Any, url: str) -> BaseProcess:
    process: BaseProcess = context.Process(target=_work, args=(url,), daemon=True)
    process.start()
    return process


def _work(url: str) -> None:
    from memori.cli import main

    # So that what a killed worker had is taken up while others still work.
    os.environ["MEMORI_LEASE_S"] = os.environ.get("MEMORI_LEASE_S", "5")
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it is the process's own
    sys.exit(main(["worker", "--poll", "0.2", "--database", url]))


@contextmanager
def _worked(context: Any, url: str, workers: int) -> Iterator[list[BaseProcess]]:
    working = [_worker(context, url) for _ in range(workers)]
    try:
        yield working
    finally:
        for process in working:
            process.terminate()
        for process in working:
            process.join(30)
            process.kill()


def _counts(mem: Memori) -> JobCounts | None:
    try:
        return mem.augmentation.status()
    except StorageError:  # Not built yet, or busy.
        return None


def _wrong(mem: Memori, processes: int, exchanges: int) -> list[str]:
    """Return what is not as it should be: every exchange stored once, its fact stored once and told once."""
    wrong = []
    counts = mem.augmentation.status()
    if (counts.done, counts.pending, counts.running, counts.failed) != (processes * exchanges, 0, 0, 0):
        wrong.append(f"work: {counts}")
    said: Counter[str] = Counter()
    liked: Counter[str] = Counter()
    for number in range(ENTITIES):
        entity = f"user-{number}"
        said.update(item.content for item in mem.messages(entity_id=entity) if item.role == "user")
        for fact in mem.facts(entity_id=entity, statuses=("active", "superseded", "quarantined")):
            liked[f"I like {fact.object}."] += fact.mentions
    for process in range(processes):
        for number in range(exchanges):
            text = _said(process, number)
            if (said[text], liked[text]) != (1, 1):
                wrong.append(f"{text!r}: stored {said[text]} times, read {liked[text]} times")
    if said.total() != processes * exchanges or liked.total() != processes * exchanges:
        wrong.append(f"{said.total()} exchanges and {liked.total()} facts, of {processes * exchanges}")
    return wrong


def main() -> int:
    """Measure and print; return 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("url", nargs="*", help="empty databases; else one SQLite file")
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--exchanges", type=int, default=200, help="of each process")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two kills")
    parser.add_argument("--kills", type=int, default=10_000, help="at most")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds")
    given = parser.parse_args()
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as folder:
        for url in given.url or [f"sqlite:///{folder}/memori.db"]:
            outcome = measure(
                url,
                processes=given.processes,
                exchanges=given.exchanges,
                workers=given.workers,
                every_s=given.every,
                kills=given.kills,
                patience_s=given.patience,
            )
            wrong += outcome.wrong
            rows.append(
                [
                    url.partition(":")[0],
                    f"{outcome.exchanges}",
                    f"{outcome.stored_s:.1f}",
                    f"{outcome.done_s:.1f}",
                    f"{outcome.kills}",
                    f"{outcome.again}",
                    f"{len(outcome.wrong)}",
                ]
            )
            print("\n".join(outcome.wrong[:20]), end="\n" if outcome.wrong else "", flush=True)
    print(
        Table(
            title=f"{given.processes} processes store, {given.workers} workers read",
            about=f"one worker is killed each {given.every} s",
            columns=("database", "exchanges", "stored s", "read s", "kills", "tried again", "lost or doubled"),
            rows=rows,
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
