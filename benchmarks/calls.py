"""What memori adds to one call, and what a recall takes."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TypeVar

from benchmarks.conversations import MESSAGES_A_CONVERSATION, Speaker, every_sentence
from benchmarks.processes import ENTITY, Caller, caller, caller_with_memory, provider
from benchmarks.table import Table

__all__ = ["alternately", "fill", "measure_calls", "milliseconds", "say"]

SIZES = (0, 1_000, 10_000)
RECALL_SIZES = (1_000, 10_000)
_WARM_UP = 10
_BURST = 20
_SEED = 20

GivenT = TypeVar("GivenT")
ResultT = TypeVar("ResultT")


def measure_calls(rounds: int) -> Iterator[Table]:
    """Yield the tables of calls and recalls, each of its figures from *rounds* calls."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        say("filling the databases …")
        databases = {size: Path(folder) / f"{size}.db" for size in SIZES}
        for size, database in databases.items():
            fill(database, size)
        url = stack.enter_context(provider())
        plain = stack.enter_context(caller(url))
        remembering = {
            size: stack.enter_context(caller_with_memory(url, str(database))) for size, database in databases.items()
        }
        speaker = Speaker(_SEED)
        for _ in range(min(RECALL_SIZES)):
            speaker.sentence()  # The life that the databases hold, so that questions are about something in them all.

        say("opening …")
        opening = {size: process.ask("open", speaker.question()) for size, process in remembering.items()}
        contents = {size: process.ask("contents") for size, process in remembering.items()}

        say("recalling …")
        recalls = {_facts(size): remembering[size] for size in RECALL_SIZES}
        warm = alternately(recalls, _recall, speaker.question, rounds=rounds)
        fresh = alternately(recalls, _learn_and_recall, lambda: (speaker.sentence(), speaker.question()), rounds=rounds)

        say("calling …")
        variants = {"the OpenAI client alone": plain}
        variants |= {f"with memori, {_facts(size)}": process for size, process in remembering.items()}
        turns = cycle((speaker.sentence, speaker.question))
        calls = alternately(variants, _call, lambda: next(turns)(), rounds=rounds)

        say("calling without a pause …")
        statements = partial(_several, speaker.sentence)
        bursts = alternately(variants, _burst, statements, rounds=max(rounds // _BURST, 3), warm_up=1)
        health = {size: process.ask("health") for size, process in remembering.items()}

    yield _compared(
        "One chat call",
        "to a provider on this machine, while nothing else goes on: recall, injection, capture included",
        calls,
    )
    yield _compared(
        "Chat calls without a pause",
        f"{_BURST} statements one right after another: what is learned of one is worked out beside the next",
        {name: [second for burst in seconds for second in burst] for name, seconds in bursts.items()},
    )
    yield Table(
        title="Recall alone",
        about="; ".join(f"{_facts(size)}: beside {contents[size][1]:,} messages" for size in RECALL_SIZES),
        columns=("", "p50 ms", "p95 ms"),
        rows=[
            *((f"{name}", *milliseconds(seconds)) for name, seconds in warm.items()),
            *((f"{name}, the first after something new", *milliseconds(seconds)) for name, seconds in fresh.items()),
            *(
                (f"{_facts(size)}, the first of a process, and opening", f"{opening[size] * 1e3:.0f}", "")
                for size in RECALL_SIZES
            ),
        ],
        notes=[
            f"Not to be trusted: with {_facts(size)}, memori failed {count} times; the last was: {last}"
            for size, (count, last) in health.items()
            if count
        ],
    )


def fill(database: Path, size: int) -> None:
    """Build the database and have it learn *size* facts from as many messages, told over a year."""
    from memori import Memori

    with Memori(str(database), extractor=every_sentence, worker=False) as mem:
        mem.config.storage.build()
        mem.attribution(ENTITY, "benchmark")
        speaker = Speaker(_SEED)
        count = size // MESSAGES_A_CONVERSATION
        begin = datetime.now(UTC) - timedelta(days=365)
        for number in range(count):
            at = begin + timedelta(days=364) * (number / count)
            mem.capture(speaker.conversation(), session_id=f"talk-{number}", at=at)
        while mem.augmentation.run():
            pass
        learned, heard = len(mem.facts()), len(mem.messages())
        if (learned, heard) != (size, size):
            raise RuntimeError(f"the database was to hold {size} facts and messages, not {learned} and {heard}")


def alternately(
    variants: Mapping[str, Caller],
    measure: Callable[[Caller, GivenT], ResultT],
    draw: Callable[[], GivenT],
    *,
    rounds: int,
    warm_up: int = _WARM_UP,
) -> dict[str, list[ResultT]]:
    """Return what was measured of each variant: all in each round, in changing order, with the same given to all."""
    chance = random.Random(_SEED)  # noqa: S311 - chance, not secrets
    measured: dict[str, list[ResultT]] = {name: [] for name in variants}
    for number in range(-warm_up, rounds):
        given = draw()
        for name in chance.sample(list(variants), len(variants)):
            result = measure(variants[name], given)
            if number >= 0:
                measured[name].append(result)
    return measured


def _several(draw: Callable[[], str]) -> list[str]:
    return [draw() for _ in range(_BURST)]


def _call(process: Caller, text: str) -> float:
    return float(process.ask("call", text))


def _burst(process: Caller, texts: list[str]) -> list[float]:
    return [float(second) for second in process.ask("burst", texts)]


def _recall(process: Caller, question: str) -> float:
    return float(process.ask("recall", question))


def _learn_and_recall(process: Caller, given: tuple[str, str]) -> float:
    sentence, question = given
    process.ask("learn", sentence)
    return _recall(process, question)


def _compared(title: str, about: str, measured: Mapping[str, Sequence[float]]) -> Table:
    plain = statistics.median(next(iter(measured.values())))
    rows = [
        (
            name,
            *milliseconds(seconds),
            f"{(statistics.median(seconds) - plain) * 1e3:+.2f}" if number else "",
            f"{statistics.median(seconds) / plain:.2f}" if number else "",
        )
        for number, (name, seconds) in enumerate(measured.items())
    ]
    return Table(title=title, about=about, columns=("", "p50 ms", "p95 ms", "added to p50", "times p50"), rows=rows)


def milliseconds(seconds: Sequence[float]) -> tuple[str, str]:
    """Return the median and the 95th percentile."""
    p95 = sorted(seconds)[min(round(0.95 * len(seconds)), len(seconds) - 1)]
    return f"{statistics.median(seconds) * 1e3:.2f}", f"{p95 * 1e3:.2f}"


def _facts(size: int) -> str:
    return f"{size:,} facts" if size else "no facts"


def say(text: str) -> None:
    """Tell whoever waits what goes on."""
    print(text, file=sys.stderr, flush=True)
