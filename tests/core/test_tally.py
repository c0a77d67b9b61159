"""How often facts were recalled."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from memori import Memori
from memori.storage.sql import SQLStorage
from memori.tally import Tally


def test_recalls_are_counted_in_the_background(tmp_path: Path) -> None:
    """Fails when it cannot be seen which memories are of use, or each is counted but once."""
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.attribution(entity_id="alice")
        memori.remember("The user likes tea.")
        for _ in range(3):
            memori.recall("tea")
        end = time.monotonic() + 10
        while memori.facts()[0].times_recalled < 3:
            assert time.monotonic() < end, "the recalls were not counted"
            time.sleep(0.05)
        (fact,) = memori.facts()
        assert fact.times_recalled == 3
        assert fact.last_recalled_at is not None


def test_closing_loses_no_count(tmp_path: Path) -> None:
    """Fails when the counts of the last second are dropped."""
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.remember("The user likes tea.", entity_id="alice")
        memori.recall("tea", entity_id="alice")
    with Memori(conn=tmp_path / "memori.db") as memori:
        assert [fact.times_recalled for fact in memori.facts(entity_id="alice")] == [1]


class Stalled(SQLStorage):
    """A database that does not answer for now."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.answer = threading.Event()
        self.told: list[int] = []

    def recalled(self, entity_id: str, fact_ids: Sequence[int], *, at: datetime) -> None:
        assert self.answer.wait(60)
        self.told += fact_ids


def test_a_database_that_stalls_does_not_keep_from_closing(tmp_path: Path) -> None:
    """Fails when closing waits for the counts as long as the database pleases."""
    storage = Stalled(tmp_path / "memori.db")
    tally = Tally(storage)
    tally.add("alice", [1, 2])
    tally.close(0.01)
    assert not storage.told
    storage.answer.set()
    tally.close(60)
    assert storage.told == [1, 2]
    storage.close()
