"""The formulas of ranking, each at the points that its docstring promises, and the ranking made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memori.ranking import scores
from memori.ranking.hybrid import HybridRanker
from memori.testing.ranker import NOW, QUERY, Row, candidates

if TYPE_CHECKING:
    from memori.types import Numbers, Rows


def numbers(*values: float) -> Numbers:
    return np.array(values, dtype=np.float32)


def rows(*values: int) -> Rows:
    return np.array(values, dtype=np.int64)


def ranked(*given: Row) -> list[int]:
    return [item.row for item in HybridRanker().rank(QUERY, candidates(*given), now=NOW, limit=20)]


def score(*given: Row, of: int = 0) -> float:
    found = HybridRanker().rank(QUERY, candidates(*given), now=NOW, limit=20)
    return {item.row: item.score for item in found}.get(of, 0.0)


class TestFormulas:
    def test_evidence_is_one_when_all_agree_and_zero_without_any(self) -> None:
        """Fails when a signal below its floor counts, or a full match is not 1."""
        nothing, full, noise = scores.evidence(numbers(0, 1, 0), numbers(0, 1, 0.2), numbers(-0.5, 1, 0.15))
        assert nothing == noise == 0.0
        assert full == pytest.approx(1.0)

    def test_the_neighbourhood_reaches_two_messages_and_stops_at_the_session(self) -> None:
        """Fails when evidence leaks across sessions, skips the next message or reaches further than two."""
        before, after = rows(-1, 0, 1, 2, -1), rows(1, 2, 3, -1, -1)
        carried = scores.neighbourhood(numbers(1, 0, 0, 0, 0), before, after)
        assert carried == pytest.approx(numbers(0, scores.NEAR, scores.FURTHER, 0, 0))

    def test_a_session_has_its_highest_value(self) -> None:
        """Fails when a session has another's peak, or a row without one has any but its own."""
        assert scores.session_peak(numbers(1, 3, 2, 5, 4), rows(0, 0, 1, 1, -1)).tolist() == [3, 3, 5, 5, 4]

    def test_best_linked_takes_the_highest_and_zero_without_links(self) -> None:
        """Fails when several links add up, or a row without links has any."""
        assert scores.best_linked(numbers(1, 5, 3), rows(0, 0, 2), rows(1, 2, 0), count=3).tolist() == [5, 0, 1]

    def test_no_evidence_of_time_or_importance_is_exactly_neutral(self) -> None:
        """Fails when the unknown is held against a memory, or for it."""
        assert scores.importance_factor(numbers(0.5))[0] == 1.0
        assert scores.freshness(np.array([1e12]))[0] == 1.0
        assert scores.question_factor(numbers(0.0))[0] == 1.0

    def test_time_and_importance_stay_within_their_bounds(self) -> None:
        """Fails when an extreme value outweighs relevance."""
        assert scores.importance_factor(numbers(-5, 0, 1, 9)) == pytest.approx(numbers(0.85, 0.85, 1.15, 1.15))
        ages = np.array([-1e12, 0.0, timedelta(days=30).total_seconds()])
        assert scores.freshness(ages) == pytest.approx(numbers(1.05, 1.05, 1.025))

    @given(st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=20))
    def test_probability_keeps_order_within_bounds(self, values: list[float]) -> None:
        """Fails when a score leaves [0, 1] or a better match gets a lower one."""
        result = scores.probability(numbers(*sorted(values)))
        assert ((result >= 0.0) & (result <= 1.0)).all()
        assert (np.diff(result) >= 0.0).all()

    def test_a_chain_of_successors_is_followed_and_a_circle_ends(self) -> None:
        """Fails when the oldest of three values is held below the second only, or a circle never returns."""
        held = scores.below_successors(numbers(9, 8, 2, 1), rows(1, 2, -1, -1), ratio=0.5)
        assert held.tolist() == [1, 1, 2, 1]
        scores.below_successors(numbers(3, 2), rows(1, 0), ratio=0.5)

    def test_order_is_by_value_then_time_then_place(self) -> None:
        """Fails when ties change from run to run, or the limit cuts the wrong ones."""
        values, at = numbers(1, 2, 2, 2), np.array([0.0, 1.0, 5.0, 1.0])
        assert scores.best(values, at, limit=10).tolist() == [2, 3, 1, 0]
        assert scores.best(values, at, limit=2).tolist() == [2, 3]


class TestHybridRanking:
    def test_an_answer_is_found_by_the_question_before_it(self) -> None:
        """Fails when a message without a word of the query is not found by its neighbour."""
        question, answer = Row(match=0.8, session=0, question=1.0), Row(session=0)
        far = [Row(session=0) for _ in range(6)]
        found = ranked(question, answer, *far)
        assert found[:2] == [0, 1]

    def test_a_question_is_worth_less_than_a_statement(self) -> None:
        """Fails when the same question asked before outranks what was said on it."""
        assert ranked(Row(match=1.0, session=0, question=1.0), Row(match=0.8, session=1)) == [1, 0]

    def test_a_fact_comes_just_before_its_message(self) -> None:
        """Fails when the long form is recalled before the short one that says the same."""
        assert ranked(Row(match=0.8, session=0), Row(match=0.8, sources=(0,)), Row(match=0.5, session=1))[:2] == [1, 0]

    def test_a_message_is_found_by_its_fact(self) -> None:
        """Fails when a message whose own words do not match is not found by the fact read from it."""
        assert ranked(Row(session=0), Row(match=0.8, sources=(0,)), Row(match=0.2, session=1)) == [1, 0, 2]

    def test_a_fact_that_misses_the_point_comes_after_its_message(self) -> None:
        """Fails when any fact of a matching message is recalled before the message and the fact that do match."""
        found = ranked(Row(match=0.8, session=0), Row(match=0.8, sources=(0,)), Row(match=0.0, sources=(0,)))
        assert found == [1, 0, 2]

    def test_a_fact_without_messages_is_worth_as_much(self) -> None:
        """Fails when what the application remembers itself ranks below what was read from a conversation."""
        alone = score(Row(match=0.7))
        read = score(Row(match=0.7, session=0), Row(match=0.7, sources=(0,)), of=1)
        assert alone == pytest.approx(read, abs=0.02)

    def test_the_author_that_the_query_names_comes_first(self) -> None:
        """Fails when who said it makes no difference."""
        assert ranked(Row(match=0.5, session=0), Row(match=0.5, session=1, named=True)) == [1, 0]

    def test_a_matching_session_lifts_what_matches_in_it(self) -> None:
        """Fails when the context of a session makes no difference."""
        pause = [Row(session=0) for _ in range(4)]
        found = ranked(Row(match=0.9, session=0), *pause, Row(match=0.3, session=0), Row(match=0.3, session=1))
        assert found.index(5) < found.index(6)

    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            (Row(match=0.5, age_days=1), Row(match=0.5, age_days=300)),
            (Row(match=0.5, importance=0.9), Row(match=0.5, importance=0.1)),
            (Row(match=0.5), Row(match=0.5, past=True)),
        ],
    )
    def test_of_equal_matches_the_newer_the_weightier_and_the_present_win(self, better: Row, worse: Row) -> None:
        """Fails when time, importance or validity make no difference."""
        assert ranked(worse, better) == [1, 0]

    def test_time_and_importance_never_outweigh_relevance(self) -> None:
        """Fails when something fresh and important that hardly matches beats an old full match."""
        assert ranked(Row(match=1.0, age_days=3000, importance=0.0), Row(match=0.4, age_days=0, importance=1.0))[0] == 0

    def test_the_score_tells_a_match_from_none(self) -> None:
        """Fails when the threshold of 0.1 would drop a real match or keep noise."""
        assert score(Row(match=0.9)) > 0.6
        assert score(Row(match=0.35)) > 0.1
        assert score(Row(match=0.1)) < 0.1
