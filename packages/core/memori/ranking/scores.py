"""The formulas of ranking, one function each. Pure, over whole columns.

Constants were chosen on five development dialogues of LoCoMo (``benchmarks/locomo.py``), where each sits on a plateau:
half or twice of it changes recall@10 by less than 0.01.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from memori.types import Candidates

if TYPE_CHECKING:
    from memori.types import Numbers, Rows, Seconds

__all__ = [
    "below_successors",
    "best",
    "best_linked",
    "concerned",
    "evidence",
    "freshness",
    "importance_factor",
    "neighbourhood",
    "probability",
    "question_factor",
    "session_peak",
]

MEANING_WEIGHT = 0.5  # Static embeddings are weak; with 0 to 1.0 recall@10 changes by 0.02.
CHARACTERS_FLOOR = 0.2  # Unrelated texts share endings: "eat" and "great".
MEANING_FLOOR = 0.15  # Unrelated texts have cosines up to about this.
NEAR = 0.4  # Of the evidence of the message just before and just after.
FURTHER = 0.2  # Of the evidence of the ones beyond.
FRESHNESS_HALF_LIFE_S = 30 * 86_400.0
FRESHNESS_GAIN = 0.05
IMPORTANCE_GAIN = 0.15
PROBABILITY_SCALE = 2.0


def evidence(words: Numbers, characters: Numbers, meaning: Numbers) -> Numbers:
    """Return what each row says for itself: 0.0 nothing, about 1.0 all that the query asks; not bounded above.

    (words + c + 0.5 m) / 2.5, where c and m are characters and cosine above their floors, 1.0 staying 1.0.
    """
    result = _above(characters, CHARACTERS_FLOOR)
    result += words
    close = _above(meaning, MEANING_FLOOR)
    close *= MEANING_WEIGHT
    result += close
    result /= 2.0 + MEANING_WEIGHT
    return result


def _above(values: Numbers, floor: float) -> Numbers:
    result: Numbers = values - floor
    np.maximum(result, 0.0, out=result)
    result /= 1.0 - floor
    return result


def neighbourhood(values: Numbers, before: Rows, after: Rows) -> Numbers:
    """Return a part of the neighbours' values in the dialogue: an answer seldom repeats its question's words.

    0.4 (v₋₁ + v₊₁) + 0.2 (v₋₂ + v₊₂), where a neighbour that is not there counts 0.

    Args:
        before: The row of the one before; -1: none. No row is before two others.
        after: The row of the one after, the other way round.
    """
    # Most values are zero: each that is not hands on its part. What goes to row -1 falls off the end.
    rows = np.flatnonzero(values)
    given = values[rows]
    carried = np.zeros(len(values) + 1, dtype=np.float32)
    for links in (before, after):
        near = links[rows]
        carried[near] += NEAR * given
        there = near >= 0
        carried[links[near[there]]] += FURTHER * given[there]
    return carried[:-1]


def session_peak(values: Numbers, sessions: Rows) -> Numbers:
    """Return for each row the highest of the values in its session; its own where it has none (-1)."""
    count = int(sessions.max(initial=-1)) + 1
    inside = sessions >= 0
    numbers = sessions[inside]
    result = values.copy()
    result[inside] = _highest(values[inside], numbers, count=count)[numbers]
    return result


def best_linked(values: Numbers, rows: Rows, linked: Rows, *, count: int) -> Numbers:
    """Return for each of *count* rows the highest of the values it is linked with, and 0.0 without links.

    Args:
        values: Not negative.
        rows, linked: Side by side, the links.
    """
    return _highest(values[linked], rows, count=count)


def _highest(values: Numbers, groups: Rows, *, count: int) -> Numbers:
    # In double precision: numpy has no fast path for single, and takes five times as long.
    result = np.zeros(count)
    np.maximum.at(result, groups, values.astype(np.float64))
    return result.astype(np.float32)


def question_factor(questions: Numbers) -> Numbers:
    """Return what a message keeps of its evidence, in [0.6, 1]: 0.6 if it only asks, 1.0 exactly if it asks nothing.

    A question shares the words of the same question asked again, and knows no answer.
    """
    return 1.0 - 0.4 * questions


def freshness(age_s: Seconds) -> Numbers:
    """Return a factor in [1, 1.05]: 1.05 when new, 1.025 after 30 days, 1.0 in the end.

    It settles ties: of two that match alike, the newer one is better. 1 + 0.05 · 2^(-age / 30 days); what lies in the
    future is new.
    """
    half_lives = (np.maximum(age_s, 0.0) / FRESHNESS_HALF_LIFE_S).astype(np.float32)
    fresh: Numbers = (1.0 + FRESHNESS_GAIN * np.exp(half_lives * -math.log(2.0))).astype(np.float32)
    return fresh


def importance_factor(importance: Numbers) -> Numbers:
    """Return a factor in [0.85, 1.15]; 1.0 exactly at 0.5, which is what is ordinary or not known."""
    factor: Numbers = 1.0 + IMPORTANCE_GAIN * (2.0 * np.clip(importance, 0.0, 1.0) - 1.0)
    return factor


def probability(values: Numbers) -> Numbers:
    """Return values of [0, ∞) in [0, 1), in the same order: 1 - exp(-v / 2), as independent evidence adds up."""
    result: Numbers = 1.0 - np.exp(values / -PROBABILITY_SCALE)
    return result


def below_successors(values: Numbers, successors: Rows, *, ratio: float) -> Numbers:
    """Return the values, held at *ratio* times their successor's (and its successor's) where they have one.

    Only successors that match at all hold anything back.
    """
    result = values.copy()
    rows = np.flatnonzero(successors >= 0)
    heads = successors[rows]
    # A chain is as long as a slot changed value; following it a hundred steps also ends a cycle.
    for _ in range(100):
        rival = values[heads]
        result[rows] = np.where(rival > 0.0, np.minimum(result[rows], ratio * rival), result[rows])
        going = successors[heads] >= 0
        rows, heads = rows[going], successors[heads[going]]
        if not len(rows):
            break
    return result


def best(values: Numbers, at: Seconds, *, limit: int) -> Rows:
    """Return the rows of the *limit* highest positive values, highest first; ties: the newer, then the later row."""
    rows = np.flatnonzero(values > 0.0)
    if len(rows) > limit:
        least = np.partition(values[rows], len(rows) - limit)[len(rows) - limit]
        rows = rows[values[rows] >= least]
    return rows[np.lexsort((-rows, -at[rows], -values[rows]))][:limit]


def concerned(candidates: Candidates, seeds: Rows) -> tuple[Rows, Candidates]:
    """Return the rows that can have a score, in order, and the candidates reduced to them (without their texts).

    Those are the *seeds*, the neighbours of the messages among them, the messages that their facts were read from, and
    the facts read from any of those. Most rows fall out here, before what is dear to compute.
    """
    count = len(candidates.at)
    flags = np.zeros(count + 1, dtype=bool)
    flags[seeds] = True
    for links in (candidates.before, candidates.after):
        near = links[seeds]
        flags[near] = True
        flags[links[near[near >= 0]]] = True
    flags = flags[:-1]  # Row -1, which is none, fell on the end.
    facts, sources = candidates.links
    flags[sources[flags[facts]]] = True
    flags[facts[flags[sources]]] = True
    linked = np.flatnonzero(flags[facts] & flags[sources])
    rows = np.flatnonzero(flags)
    places = np.full(count + 1, -1)
    places[rows] = np.arange(len(rows))
    return rows, Candidates(
        texts=(),
        recallable=candidates.recallable[rows],
        messages=candidates.messages[rows],
        questions=candidates.questions[rows],
        substance=candidates.substance[rows],
        past=candidates.past[rows],
        successors=places[candidates.successors[rows]],
        meaning=candidates.meaning[rows],
        words=candidates.words[rows],
        characters=candidates.characters[rows],
        before=places[candidates.before[rows]],
        after=places[candidates.after[rows]],
        sessions=candidates.sessions[rows],
        named=candidates.named[rows],
        links=np.stack((places[facts[linked]], places[sources[linked]])),
        at=candidates.at[rows],
        importance=candidates.importance[rows],
    )
