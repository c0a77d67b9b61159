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
from typing import NamedTuple, TypeVar

from benchmarks.conversations import MESSAGES_A_CONVERSATION, Speaker, every_sentence
from benchmarks.processes import ENTITY, Caller, caller, caller_with_memory, provider
from benchmarks.table import Table

__all__ = ["Memory", "alternately", "fill", "measure_calls", "milliseconds", "say"]


class Memory(NamedTuple):
    """How many facts and messages a database holds of one entity."""

    facts: int
    messages: int

    def __str__(self) -> str:
        if not self.facts:
            return "no facts"
        return f"{self.facts:,} facts" + (f", {self.messages:,} messages" if self.messages else "")


NOTHING = Memory(0, 0)
# What the application told (`remember`) has no messages; what was heard in conversations has as many as facts here.
MEMORIES = (NOTHING, Memory(1_000, 1_000), Memory(10_000, 0), Memory(10_000, 10_000))
_WARM_UP = 10
_BURST = 20
_SEED = 20

NameT = TypeVar("NameT")
GivenT = TypeVar("GivenT")
ResultT = TypeVar("ResultT")


def measure_calls(rounds: int) -> Iterator[Table]:
    """Yield the tables of calls and recalls, each of its figures from *rounds* calls."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        say("filling the databases …")
        databases = {memory: Path(folder) / f"{number}.db" for number, memory in enumerate(MEMORIES)}
        for memory, database in databases.items():
            fill(database, memory)
        url = stack.enter_context(provider())
        plain = stack.enter_context(caller(url))
        remembering = {
            memory: stack.enter_context(caller_with_memory(url, str(database)))
            for memory, database in databases.items()
        }
        speaker = Speaker(_SEED)
        for _ in range(min(memory.facts for memory in MEMORIES if memory.facts)):
            speaker.sentence()  # The life that the databases hold, so that questions are about something in them all.

        say("opening …")
        opening = {memory: process.ask("open", speaker.question()) for memory, process in remembering.items()}

        say("recalling …")
        recalls = {memory: process for memory, process in remembering.items() if memory is not NOTHING}
        warm = alternately(recalls, _recall, speaker.question, rounds=rounds)
        fresh = alternately(recalls, _learn_and_recall, lambda: (speaker.sentence(), speaker.question()), rounds=rounds)

        say("calling …")
        variants = {"the OpenAI client alone": plain}
        variants |= {f"with memori, {memory}": process for memory, process in remembering.items()}
        turns = cycle((speaker.sentence, speaker.question))
        calls = alternately(variants, _call, lambda: next(turns)(), rounds=rounds)

        say("calling without a pause …")
        statements = partial(_several, speaker.sentence)
        bursts = alternately(variants, _burst, statements, rounds=max(rounds // _BURST, 3), warm_up=1)
        health = {memory: process.ask("health") for memory, process in remembering.items()}

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
        about="",
        columns=("", "p50 ms", "p95 ms"),
        rows=[
            *((f"{memory}", *milliseconds(seconds)) for memory, seconds in warm.items()),
            *(
                (f"{memory}: the first after something new", *milliseconds(seconds))
                for memory, seconds in fresh.items()
            ),
            *(
                (f"{memory}: the first of a process, and opening", f"{opening[memory] * 1e3:.0f}", "")
                for memory in recalls
            ),
        ],
        notes=[
            f"Not to be trusted: with {memory}, memori failed {count} times; the last was: {last}"
            for memory, (count, last) in health.items()
            if count
        ],
    )


def fill(database: Path, memory: Memory) -> None:
    """Build the database and have it learn that much: from as many messages, told over a year, or from none."""
    from memori import Memori

    facts, messages = memory
    if messages not in (0, facts):
        raise ValueError(f"{memory}: a message for each fact, or none")
    with Memori(str(database), extractor=every_sentence, worker=False) as mem:
        mem.config.storage.build()
        mem.attribution(ENTITY, "benchmark")
        speaker = Speaker(_SEED)
        count = messages // MESSAGES_A_CONVERSATION
        begin = datetime.now(UTC) - timedelta(days=365)
        for number in range(count):
            at = begin + timedelta(days=364) * (number / count)
            mem.capture(speaker.conversation(), session_id=f"talk-{number}", at=at)
        while mem.augmentation.run():
            pass
        for _ in range(facts - messages):
            mem.remember(speaker.sentence())
        learned, heard = len(mem.facts()), len(mem.messages())
        if (learned, heard) != memory:
            raise RuntimeError(f"the database was to hold {memory}, not {learned} facts and {heard} messages")


def alternately(
    variants: Mapping[NameT, Caller],
    measure: Callable[[Caller, GivenT], ResultT],
    draw: Callable[[], GivenT],
    *,
    rounds: int,
    warm_up: int = _WARM_UP,
) -> dict[NameT, list[ResultT]]:
    """Return what was measured of each variant: all in each round, in changing order, with the same given to all."""
    chance = random.Random(_SEED)  # noqa: S311 - chance, not secrets
    measured: dict[NameT, list[ResultT]] = {name: [] for name in variants}
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


def say(text: str) -> None:
    """Tell whoever waits what goes on."""
    print(text, file=sys.stderr, flush=True)
