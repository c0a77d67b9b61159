"""An inverted index that grows by a few texts at a time and answers with every text's BM25 at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memori.index.columns import Column

if TYPE_CHECKING:
    import numpy.typing as npt

    from memori.types import Numbers, Rows

__all__ = ["InvertedIndex", "hashed", "settled"]

_ROW_BITS = 26  # 67 million texts; the other 38 bits are the term's hash.
_ROW_MASK = np.uint64((1 << _ROW_BITS) - 1)
_RECENT_TEXTS = 512  # Adding a text copies at most the postings of as many.
# A segment that is less than so many times larger than the next one is merged with it: there are few then, and postings
# are copied seldom.
_GROWTH = 8
_FEW_ROWS = 256


class InvertedIndex:
    """Which texts have which terms, and how often. Rows are numbered from 0 in the order they are added.

    Postings are sorted by a 64-bit key (hash of the term, row), in segments: large ones, and one of what came last.
    Not safe for threads by itself; only what `settled` does need not be kept from others.

    Args:
        k1: How soon repeating a term stops to count (BM25).
        b: How much long texts are held back, in [0, 1] (BM25).
        long_query: Terms beyond which a query need not be covered whole.
        common: Terms that a larger share of the rows has are left out beside others, once there are 256 rows: they tell
            little apart, and looking at all their rows takes most of the time.
    """

    def __init__(self, *, long_query: int, common: float = 1.0, k1: float = 1.2, b: float = 0.4) -> None:
        self._k1 = k1
        self._b = b
        self._long_query = long_query
        self._common = common
        self._lengths = Column(np.float32)
        self._total = 0.0
        self._large: tuple[_Segment, ...] = ()
        self._recent = _NOTHING
        self._recent_rows = 0
        self._dampings: Numbers | None = None
        counts = np.arange(256, dtype=np.float32)
        self._unnormalised: Numbers = counts / (counts + np.float32(k1))

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(segment.nbytes for segment in (*self._large, self._recent)) + self._lengths.nbytes

    def add(self, hashes: npt.NDArray[np.uint64], owners: npt.NDArray[np.int64], *, texts: int) -> None:
        """Add *texts* rows.

        Args:
            hashes: Of every occurrence of a term.
            owners: Beside each, which of the new texts it stands in, from 0.
        """
        first = len(self._lengths)
        lengths = np.bincount(owners, minlength=texts).astype(np.float32)
        self._lengths.extend(lengths)
        self._total += float(lengths.sum())
        self._dampings = None
        rows = (owners + first).astype(np.uint64)
        segment = _Segment.of((hashes & ~_ROW_MASK) | rows)
        if not len(segment):
            return
        if texts > _RECENT_TEXTS:
            self._large = (*self._large, segment)
            return
        self._recent = self._recent.merged(segment)
        self._recent_rows += texts
        if self._recent_rows > _RECENT_TEXTS:
            self._large, self._recent, self._recent_rows = (*self._large, self._recent), _NOTHING, 0

    @property
    def large(self) -> tuple[_Segment, ...]:
        """The segments that `settled` may merge."""
        return self._large

    @property
    def unsettled(self) -> bool:
        """Whether `settled` would merge any of them."""
        return _unsettled(self._large)

    def settle(self, before: tuple[_Segment, ...], after: tuple[_Segment, ...]) -> None:
        """Have *after*, which is *before* `settled`, in its place."""
        self._large = after + self._large[len(before) :]

    def coverage(self, hashes: npt.NDArray[np.uint64]) -> Numbers:
        """Return how far each row covers the query of these distinct *hashes*: 0.0 where no term of it occurs.

        BM25 (Robertson and Zaragoza 2009; idf as in Lucene, ln(1 + (N - n + 0.5) / (n + 0.5)), never negative), divided
        by what a text of average length has that holds each term once. So 1.0 is a full match in any index, and rows
        that repeat terms go somewhat beyond. A term that no row has counts as one that a single row has. Of a query of
        more than *long_query* terms a text needs to cover the less, the longer it is (by the root of its length).
        """
        count = len(self._lengths)
        if not count or not len(hashes):
            return np.zeros(count, dtype=np.float32)
        segments = (*self._large, self._recent)
        spans = [segment.spans(hashes) for segment in segments]
        sizes: Rows = np.sum([ends - starts for starts, ends in spans], axis=0)
        telling = sizes <= self._common * count
        # When common words are all there is to a query, they must do.
        if count >= _FEW_ROWS and telling.any():
            spans = [(starts[telling], ends[telling]) for starts, ends in spans]
            sizes = sizes[telling]
        idf = _idf(sizes, count)
        sums = np.zeros(count)
        for segment, (starts, ends) in zip(segments, spans, strict=True):
            rows, counts = segment.postings(starts, ends)
            if len(rows):
                weights = np.repeat(idf, ends - starts)
                weights *= self._saturation(rows, counts)
                sums += np.bincount(rows, weights=weights, minlength=count)
        whole = float(_idf(np.maximum(sizes, 1), count).sum()) * min(1.0, self._long_query / len(sizes)) ** 0.5
        covered: Numbers = (sums * ((self._k1 + 1.0) / whole)).astype(np.float32)
        return covered

    def _saturation(self, rows: npt.NDArray[np.int32], counts: npt.NDArray[np.uint8]) -> Numbers:
        """Return what repetition adds up to, in [0, 1), the longer each of *rows* is the less."""
        if not self._b:
            return self._unnormalised[counts]
        damping = self._dampings
        if damping is None:
            slope = self._k1 * self._b / max(self._total / len(self._lengths), 1.0)
            damping = (self._k1 * (1.0 - self._b) + slope * self._lengths.values).astype(np.float32)
            self._dampings = damping
        return counts / (counts + damping[rows])


def _idf(sizes: npt.NDArray[np.int64], count: int) -> Numbers:
    idf: Numbers = np.log1p((count - sizes + 0.5) / (sizes + 0.5)).astype(np.float32)
    return idf


class _Segment:
    """Postings in order of their keys; immutable. Five bytes each, and sixteen for each term."""

    def __init__(self, keys: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint8]) -> None:
        terms = keys & ~_ROW_MASK
        self._starts = _changes(terms)
        self._terms = terms[self._starts]
        self._rows = (keys & _ROW_MASK).astype(np.int32)
        self._counts = counts

    @classmethod
    def of(cls, occurrences: npt.NDArray[np.uint64]) -> _Segment:
        keys = np.sort(occurrences)
        starts = _changes(keys)
        counts = np.diff(np.append(starts, len(keys)))
        return cls(keys[starts], np.minimum(counts, 255).astype(np.uint8))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        return self._terms.nbytes + self._starts.nbytes + self._rows.nbytes + self._counts.nbytes

    def merged(self, other: _Segment) -> _Segment:
        if not len(other):
            return self
        if not len(self):
            return other
        mine, theirs = self._keys(), other._keys()
        places = np.searchsorted(mine, theirs)
        return _Segment(np.insert(mine, places, theirs), np.insert(self._counts, places, other._counts))

    def spans(self, hashes: npt.NDArray[np.uint64]) -> tuple[Rows, Rows]:
        """Return where each term's postings begin and end; a term that is not there has none."""
        if not len(self):
            nowhere = np.zeros(len(hashes), dtype=np.int64)
            return nowhere, nowhere
        terms = hashes & ~_ROW_MASK
        places = np.minimum(np.searchsorted(self._terms, terms), len(self._terms) - 1)
        starts = self._starts[places]
        last = places == len(self._terms) - 1
        ends = np.where(last, len(self), self._starts[np.where(last, 0, places + 1)])
        return starts, np.where(self._terms[places] == terms, ends, starts)

    def postings(self, starts: Rows, ends: Rows) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Return the rows in these spans, one span after another, and how often each has the span's term."""
        spans = [slice(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        rows = np.concatenate([self._rows[span] for span in spans])
        return rows, np.concatenate([self._counts[span] for span in spans])

    def _keys(self) -> npt.NDArray[np.uint64]:
        sizes = np.diff(np.append(self._starts, len(self)))
        keys: npt.NDArray[np.uint64] = np.repeat(self._terms, sizes)
        keys |= self._rows.astype(np.uint64)
        return keys


def settled(segments: tuple[_Segment, ...]) -> tuple[_Segment, ...]:
    """Return *segments* with the last ones merged until the last but one is much larger than the last.

    Millions of postings take a tenth of a second.
    """
    while _unsettled(segments):
        *first, left, right = segments
        segments = (*first, left.merged(right))
    return segments


def _unsettled(segments: tuple[_Segment, ...]) -> bool:
    return len(segments) > 1 and len(segments[-2]) < _GROWTH * len(segments[-1])


def _changes(values: npt.NDArray[np.uint64]) -> Rows:
    """Return where a value differs from the one before; the first always does."""
    news = np.ones(len(values), dtype=bool)
    news[1:] = values[1:] != values[:-1]
    return np.flatnonzero(news)


_NOTHING = _Segment(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint8))


def hashed(terms: Sequence[Sequence[str]]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the hashes of all *terms*, text after text, and beside each the number of its text.

    The hashes hold within this process only: Python salts them.
    """
    flat = np.array([hash(term) for text in terms for term in text], dtype=np.int64).view(np.uint64)
    return flat, np.repeat(np.arange(len(terms)), [len(text) for text in terms])
