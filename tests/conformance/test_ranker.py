"""Rankers against their contract: ours, and one that a user would build on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pytest

from memori.protocols import Ranker
from memori.ranking.hybrid import HybridRanker
from memori.testing.ranker import RankerSuite
from memori.types import Candidates, Ranked


class TestHybridRanker(RankerSuite):
    @pytest.fixture
    def ranker(self) -> Ranker:
        return HybridRanker()


class Reranker:
    """Judges by the text alone what another ranker found first, as a cross-encoder would."""

    def __init__(self) -> None:
        self._first = HybridRanker()

    def rank(self, query: str, candidates: Candidates, *, now: datetime, limit: int) -> Sequence[Ranked]:
        found = self._first.rank(query, candidates, now=now, limit=50)
        judged = [Ranked(item.row, item.score / (1 + candidates.past[item.row])) for item in found]
        return sorted(judged, key=lambda item: -item.score)[:limit]


class TestRankerOfAUser(RankerSuite):
    @pytest.fixture
    def ranker(self) -> Ranker:
        return Reranker()
