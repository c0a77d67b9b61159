"""What every `memori.protocols.Ranker` must do. Subclass `RankerSuite` and give it a ``ranker`` fixture."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

import numpy as np
import pytest

from memori.protocols import Ranker
from memori.ranking.hybrid import HybridRanker
from memori.types import Candidates, Ranked

__all__ = ["NOW", "QUERY", "CountingRanker", "RankerSuite", "Row", "candidates"]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_S = 86_400.0
QUERY = "What is my favorite color?"


class CountingRanker(HybridRanker):
    """memori's own ranker, which also notes what it is asked: each recall once.

    Attributes:
        queries: What it was asked, the latest last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[str] = []

    def rank(self, query: str, candidates: Candidates, *, now: datetime, limit: int) -> Sequence[Ranked]:
        self.queries.append(query)
        return super().rank(query, candidates, now=now, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fact or message to be ranked, as `candidates` lays it out.

    Attributes:
        match: In [0, 1], how well its words, characters and meaning match the query.
        session: Messages of the same session are neighbours in the order given; None makes it a fact.
        sources: Rows of the messages that a fact was read from.
        age_days: How long ago it was said, or began to hold.
    """

    text: str = "The user likes tea."
    match: float = 0.0
    session: int | None = None
    sources: tuple[int, ...] = ()
    recallable: bool = True
    past: bool = False
    successor: int = -1
    question: float = 0.0
    named: bool = False
    importance: float = 0.5
    age_days: float = 10.0


def candidates(*rows: Row) -> Candidates:
    """Return *rows* as columns."""
    before, after = [-1] * len(rows), [-1] * len(rows)
    last: dict[int, int] = {}
    for number, row in enumerate(rows):
        if row.session is not None:
            before[number] = last.get(row.session, -1)
            if before[number] >= 0:
                after[before[number]] = number
            last[row.session] = number
    links = [(number, source) for number, row in enumerate(rows) for source in row.sources]
    match = np.array([row.match for row in rows], dtype=np.float32)
    return Candidates(
        texts=tuple(row.text for row in rows),
        recallable=np.array([row.recallable for row in rows], dtype=bool),
        messages=np.array([row.session is not None for row in rows], dtype=bool),
        questions=np.array([row.question for row in rows], dtype=np.float32),
        substance=np.ones(len(rows), dtype=np.float32),
        past=np.array([row.past for row in rows], dtype=bool),
        successors=np.array([row.successor for row in rows], dtype=np.int64),
        meaning=match,
        words=match,
        characters=match,
        before=np.array(before, dtype=np.int64),
        after=np.array(after, dtype=np.int64),
        sessions=np.array([-1 if row.session is None else row.session for row in rows], dtype=np.int64),
        named=np.array([row.named for row in rows], dtype=bool),
        links=np.array(links, dtype=np.int64).reshape(-1, 2).T,
        at=np.array([NOW.timestamp() - row.age_days * DAY_S for row in rows], dtype=np.float64),
        importance=np.array([row.importance for row in rows], dtype=np.float32),
    )


def several() -> Candidates:
    """Return a dialogue of two sessions, and facts with and without sources."""
    return candidates(
        Row(text="My favorite color is blue.", match=0.9, session=0),
        Row(text="Noted!", session=0),
        Row(text="I work as a nurse.", match=0.1, session=0),
        Row(text="Is blue a warm color?", match=0.5, session=1, question=1.0),
        Row(text="No, it is a cold one.", match=0.2, session=1, named=True),
        Row(text="The user's favorite color is blue.", match=0.9, sources=(0,)),
        Row(text="The user works as a nurse.", match=0.1, sources=(2,), importance=1.0),
        Row(text="The user paints.", match=0.3, recallable=False),
        Row(text="The user's favorite color is red.", match=0.9, past=True, successor=5),
    )


def ranked(ranker: Ranker, given: Candidates, *, limit: int = 10) -> list[int]:
    """Return the rows that *ranker* finds, in its order."""
    return [item.row for item in ranker.rank(QUERY, given, now=NOW, limit=limit)]


class RankerSuite:
    """The contract of a ranker."""

    def test_scores_fall_from_one_to_zero(self, ranker: Ranker) -> None:
        """Fails when scores leave [0, 1] or do not fall: thresholds and mergers rely on both."""
        scores = [item.score for item in ranker.rank(QUERY, several(), now=NOW, limit=10)]
        assert scores
        assert all(0.0 <= score <= 1.0 for score in scores)
        assert scores == sorted(scores, reverse=True)

    def test_what_matches_comes_before_what_does_not(self, ranker: Ranker) -> None:
        """Fails when the ranking has nothing to do with the query."""
        given = candidates(Row(text="The user has a dog."), Row(text="The user's favorite color is blue.", match=0.9))
        assert ranked(ranker, given)[0] == 1

    def test_only_recallable_rows_come_back_and_each_once(self, ranker: Ranker) -> None:
        """Fails when something quarantined, or of a kind not asked for, gets into an answer, or a row comes twice."""
        rows = ranked(ranker, several())
        assert 7 not in rows
        assert len(rows) == len(set(rows))
        hidden = replace(several(), recallable=np.zeros(9, dtype=bool))
        assert ranked(ranker, hidden) == []

    @pytest.mark.parametrize("limit", [0, 1, 3])
    def test_the_limit_cuts_the_end(self, ranker: Ranker, limit: int) -> None:
        """Fails when more than *limit* come back, or a smaller limit changes who is first."""
        assert ranked(ranker, several(), limit=limit) == ranked(ranker, several())[:limit]

    def test_nothing_to_rank_is_no_trouble(self, ranker: Ranker) -> None:
        """Fails when an entity without memories raises."""
        assert ranked(ranker, candidates()) == []

    def test_nothing_for_it_means_not_there(self, ranker: Ranker) -> None:
        """Fails when memories that share nothing with the query are recalled all the same."""
        given = candidates(Row(text="The user has a dog."), Row(text="Noted!", session=0), Row(text="Fine.", session=0))
        assert all(item.score < 0.1 for item in ranker.rank(QUERY, given, now=NOW, limit=10))

    def test_the_present_beats_the_past(self, ranker: Ranker) -> None:
        """Fails when a fact outranks the one that took its place, however well its words match."""
        old = Row(text="The user's favorite color is red.", match=1.0, past=True, successor=1)
        new = Row(text="The user's favorite color is blue.", match=0.6)
        assert ranked(ranker, candidates(old, new)) == [1, 0]

    def test_it_is_pure(self, ranker: Ranker) -> None:
        """Fails when the same arguments give another answer, or the ranker writes to what it is given."""
        given, untouched = several(), several()
        first = [(item.row, item.score) for item in ranker.rank(QUERY, given, now=NOW, limit=10)]
        assert [(item.row, item.score) for item in ranker.rank(QUERY, given, now=NOW, limit=10)] == first
        for field in fields(given):
            assert np.array_equal(getattr(given, field.name), getattr(untouched, field.name)), field.name

    def test_threads_do_not_disturb_each_other(self, ranker: Ranker) -> None:
        """Fails when a ranker keeps the state of one query where another one finds it."""
        inputs: Sequence[Candidates] = [several(), candidates(Row(match=0.5)), candidates()] * 20
        alone = [ranked(ranker, given) for given in inputs]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda given: ranked(ranker, given), inputs)) == alone
