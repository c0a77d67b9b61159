"""The default ranking: words, characters and meaning, spread over the dialogue, facts and messages fused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from memori.ranking import scores
from memori.types import Candidates, Ranked

__all__ = ["HybridRanker"]

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
        count = len(candidates.texts)
        if not count or limit <= 0:
            return []
        own = scores.evidence(candidates.words, candidates.characters, candidates.meaning)
        facts, sources = candidates.links
        carried = scores.neighbourhood(own, candidates.before, candidates.after) * candidates.substance
        said = (own + carried) * scores.question_factor(candidates.questions) * (1.0 + AUTHOR_GAIN * candidates.named)
        from_facts = scores.best_linked(own, sources, facts, count=count)
        said = np.where(candidates.messages, said + from_facts, np.float32(0.0))
        from_messages = scores.best_linked(said, facts, sources, count=count)
        # A fact that says much less on the query than its message, or than another fact of it, comes after that.
        best = scores.best_linked(np.maximum(own, from_facts), facts, sources, count=count)
        share = np.divide(own, best, out=np.ones(count, dtype=np.float32), where=best > own)
        from_messages *= LEAST_SHARE + (1.0 - LEAST_SHARE) * np.minimum(share / FULL_SHARE, 1.0)
        sourced = np.zeros(count, dtype=bool)
        sourced[facts] = True
        total = np.where(candidates.messages, said, np.where(sourced, from_messages, 2.0 * own))
        peak = scores.session_peak(total, candidates.sessions)
        peak = np.where(sourced, scores.best_linked(peak, facts, sources, count=count), peak)
        # Most rows fall out here, before what is dear to compute.
        rows = np.flatnonzero(candidates.recallable & (total > 0.0))
        context = 1.0 + SESSION_GAIN * scores.probability(2.0 * peak[rows])
        fresh = scores.freshness(now.timestamp() - candidates.at[rows])
        important = scores.importance_factor(candidates.importance[rows])
        first = np.where(candidates.messages[rows], np.float32(0.0), OWN_SHARE * own[rows])
        present = np.where(candidates.past[rows], np.float32(PAST_FACTOR), np.float32(1.0))
        final = np.zeros(count, dtype=np.float32)
        final[rows] = (total[rows] * context + first) * fresh * important * present
        final = scores.below_successors(final, candidates.successors, ratio=SUCCESSOR_RATIO)
        places = scores.best(final[rows], candidates.at[rows], limit=limit)
        found = rows[places]
        values = scores.probability(final[found])
        parts = {
            "meaning": candidates.meaning[found],
            "words": candidates.words[found],
            "characters": candidates.characters[found],
            "neighbours": carried[found],
            "links": np.where(candidates.messages[found], from_facts[found], from_messages[found]),
            "author": candidates.named[found].astype(np.float32),
            "session": context[places],
            "freshness": fresh[places],
            "importance": important[places],
        }
        columns = zip(*(part.tolist() for part in parts.values()), strict=True)
        return [
            Ranked(row, value, dict(zip(parts, column, strict=True)))
            for row, value, column in zip(found.tolist(), values.tolist(), columns, strict=True)
        ]
