"""What each database costs: ``make bench-databases``, on the servers that the environment names."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from databases import ENGINES, HOW_TO_START, mongodb
from servers import SERVERS

from benchmarks.calls import milliseconds, say
from benchmarks.conversations import MESSAGES_A_CONVERSATION, Speaker, every_sentence
from benchmarks.table import Table
from memori import Memori, Message

__all__: list[str] = []

_FACTS = 1_000
_WARM_UP = 5
_SEED = 20
_KINDS = ("capture", "recall", "learn", "recall after that")


class Rememberer:
    """One person's memory in one database.

    Args:
        conn: What leads to an empty database.
    """

    def __init__(self, conn: object) -> None:
        self.memori = Memori(conn=conn, extractor=every_sentence, worker=False)
        self.memori.config.storage.build()
        self.memori.attribution("someone", "benchmark")
        self.speaker = Speaker(_SEED)
        for number in range(_FACTS // MESSAGES_A_CONVERSATION):
            self.memori.capture(self.speaker.conversation(), session_id=f"talk-{number}")
        while self.memori.augmentation.run():
            pass

    def round(self) -> Iterator[float]:
        """Yield the seconds of each of `_KINDS`."""
        told = f"{self.speaker.sentence()} {self.speaker.sentence()}"
        said = [Message(role="user", content=told), Message(role="assistant", content=f"So: {told}")]
        yield _seconds(lambda: self.memori.capture(said, session_id="today"))
        yield _seconds(lambda: self.memori.recall(self.speaker.question()))
        yield _seconds(self.memori.augmentation.run)
        yield _seconds(lambda: self.memori.recall(self.speaker.question()))


def measure(rounds: int) -> Table:
    """Return the table of all engines, round by round in turn, so that they share what else the machine does."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        remembering: dict[str, Rememberer] = {}
        for name, engine in ENGINES.items():
            if not engine.missing:
                say(f"filling {name} …")
                remembering[name] = Rememberer(stack.enter_context(engine.empty(folder)))
                stack.callback(remembering[name].memori.close)
        if SERVERS["mongodb"].variable in os.environ:
            say("filling mongodb …")
            remembering["mongodb"] = Rememberer(stack.enter_context(mongodb()))
            stack.callback(remembering["mongodb"].memori.close)
        say("measuring …")
        spent: dict[str, list[Sequence[float]]] = {name: [] for name in remembering}
        for number in range(rounds + _WARM_UP):
            for name, memory in remembering.items():
                seconds = tuple(memory.round())
                if number >= _WARM_UP:
                    spent[name].append(seconds)
    missing = sorted({str(engine.server) for engine in ENGINES.values() if engine.missing})
    return Table(
        title="Databases",
        about=f"{_FACTS:,} facts and as many messages, {rounds} rounds, milliseconds",
        columns=("", *(f"{kind} {figure}" for kind in _KINDS for figure in ("p50", "p95"))),
        rows=[
            (name, *(figure for kind in zip(*rows, strict=True) for figure in milliseconds(kind)))
            for name, rows in spent.items()
        ],
        notes=[f"Without {', '.join(missing)}: {HOW_TO_START} starts them."] if missing else [],
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.databases", description="What each database costs.")
    parser.add_argument("--rounds", type=int, default=100)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n\n{measure(parser.parse_args().rounds)}")
