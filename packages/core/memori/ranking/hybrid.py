"""The default ranking: words, characters and meaning, spread over the dialogue, facts and messages fused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from memori.ranking import scores
from memori.types import Candidates, Ranked

__all__ = ["HybridRanker"]

SEEDS = 128  # Rows with the most evidence of their own, from which the others get theirs; the rest is noise.
AUTHOR_GAIN = 0.4  # For a message whose author the query names.
SESSION_GAIN = 4.0  # For the session in which the best match was said, at most.
OWN_SHARE = 0.05  # Puts a fact just before the message that it was read from: it says the same in fewer words.
PAST_FACTOR = 0.5
LEAST_SHARE = 0.5
FULL_SHARE = 0.5  # A fact is worded otherwise than its message, often with more words of no account.
SUCCESSOR_RATIO = 0.9


class HybridRanker:
    """Evidence of a row, plus that of its neighbours in the dialogue, plus that of the facts read from it.

    1. A row's evidence is how far its words, character n-grams and meaning cover the query.
    2. A message takes a part of its neighbours' evidence, all of the best fact that was read from it, more if the query
       names its author, less if it only asks.
    3. A fact takes the evidence of its best message. One without messages (remembered by the application) counts as if
       a message had said the same.
    4. Both count more in a session that matches well; freshness and importance are small factors.
    5. What no longer holds counts half, and less than what took its place.
    """

    def rank(self, query: str, candidates: Candidates, *, now: datetime, limit: int) -> Sequence[Ranked]:
        """Return at most *limit* recallable rows, best first; ties: the newer, then the later added."""
        if not len(candidates.texts) or limit <= 0:
            return []
        own = scores.evidence(candidates.words, candidates.characters, candidates.meaning)
        seeds = scores.best(own, candidates.at, limit=max(SEEDS, 2 * limit))
        rows, given = scores.concerned(candidates, seeds)
        own, count = own[rows], len(rows)
        facts, sources = given.links
        carried = scores.neighbourhood(own, given.before, given.after) * given.substance
        said = (own + carried) * scores.question_factor(given.questions) * (1.0 + AUTHOR_GAIN * given.named)
        from_facts = scores.best_linked(own, sources, facts, count=count)
        said = np.where(given.messages, said + from_facts, np.float32(0.0))
        from_messages = scores.best_linked(said, facts, sources, count=count)
        # A fact that says much less on the query than its message, or than another fact of it, comes after that.
        best = scores.best_linked(np.maximum(own, from_facts), facts, sources, count=count)
        share = np.divide(own, best, out=np.ones(count, dtype=np.float32), where=best > own)
        from_messages *= LEAST_SHARE + (1.0 - LEAST_SHARE) * np.minimum(share / FULL_SHARE, 1.0)
        sourced = np.zeros(count, dtype=bool)
        sourced[facts] = True
        total = np.where(given.messages, said, np.where(sourced, from_messages, 2.0 * own))
        peak = scores.session_peak(total, given.sessions)
        peak = np.where(sourced, scores.best_linked(peak, facts, sources, count=count), peak)
        context = 1.0 + SESSION_GAIN * scores.probability(2.0 * peak)
        fresh = scores.freshness(now.timestamp() - given.at)
        important = scores.importance_factor(given.importance)
        total = total * context + np.where(given.messages, np.float32(0.0), OWN_SHARE * own)
        total *= fresh * important * np.where(given.past, np.float32(PAST_FACTOR), np.float32(1.0))
        total = scores.below_successors(total, given.successors, ratio=SUCCESSOR_RATIO)
        found = scores.best(np.where(given.recallable, total, np.float32(0.0)), given.at, limit=limit)
        values = scores.probability(total[found])
        parts = {
            "meaning": given.meaning[found],
            "words": given.words[found],
            "characters": given.characters[found],
            "neighbours": carried[found],
            "links": np.where(given.messages[found], from_facts[found], from_messages[found]),
            "author": given.named[found].astype(np.float32),
            "session": context[found],
            "freshness": fresh[found],
            "importance": important[found],
        }
        columns = zip(*(part.tolist() for part in parts.values()), strict=True)
        return [
            Ranked(row, value, dict(zip(parts, column, strict=True)))
            for row, value, column in zip(rows[found].tolist(), values.tolist(), columns, strict=True)
        ]
