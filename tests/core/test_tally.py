"""How often facts were recalled."""

from __future__ import annotations

import time
from pathlib import Path

from memori import Memori


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
