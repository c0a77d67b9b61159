"""Which facts are about the same thing, and what a new one does to those already known.

A slot is a subject and a predicate. A slot of one value (``lives_in``) is a chain: each value holds until the event
time of the next. A slot of many values (``likes``) is a set: each value holds until it is negated (``dislikes``,
``no_longer_likes``), and a negation until it is taken back. Time means the event's, not the hour at which it was heard,
so statements may arrive in any order.

A fact said again is a mention and makes no row; of its mentions only the first and the last time are kept, so that a
contradiction that is heard late, and falls between them, holds until the last.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b

from memori.types import (
    Change,
    Embedding,
    ExtractedFact,
    Fact,
    Mention,
    NewFact,
    Retirement,
    Trust,
)

__all__ = ["content_hash", "decide", "single_valued", "slot"]

# Predicates of which one value holds at a time; so do those that begin with ``favorite_`` or ``number_of_``.
_SINGLE = frozenset(
    {
        "address",
        "age",
        "answer_language",
        "birthday",
        "blood_type",
        "born_in",
        "diet",
        "email",
        "from",
        "has_boyfriend",
        "has_fiance",
        "has_girlfriend",
        "has_husband",
        "has_partner",
        "has_wife",
        "height",
        "home_phone",
        "job_title",
        "lives_in",
        "marital_status",
        "married_to",
        "name",
        "nationality",
        "native_language",
        "nickname",
        "phone",
        "postcode",
        "pronouns",
        "relationship_status",
        "surname",
        "timezone",
        "username",
        "weight",
        "works_as",
        "works_at",
        "works_for",
    }
)
# Other words for the same predicate, as models like to write them.
_SAME = {
    "adores": "likes",
    "currently_lives_in": "lives_in",
    "date_of_birth": "birthday",
    "detests": "dislikes",
    "email_address": "email",
    "employed_by": "works_at",
    "employer": "works_at",
    "enjoys": "likes",
    "full_name": "name",
    "has_age": "age",
    "has_allergy_to": "allergic_to",
    "has_name": "name",
    "hates": "dislikes",
    "is_allergic_to": "allergic_to",
    "is_called": "name",
    "is_from": "from",
    "is_married_to": "married_to",
    "is_named": "name",
    "job": "works_as",
    "lives": "lives_in",
    "located_in": "lives_in",
    "loves": "likes",
    "occupation": "works_as",
    "phone_number": "phone",
    "profession": "works_as",
    "resides_in": "lives_in",
    "time_zone": "timezone",
    "works_for": "works_at",
}
_NEGATION = re.compile(r"^(?:no_longer|not|does_not|doesn't|do_not|is_not|never|stopped|used_to)_(?=.)")
# A user who tells news of themselves ends what the application once noted, and the other way round: the later wins.
_RANK: dict[Trust, int] = {"application": 2, "user": 2, "assistant": 1, "tool": 0}
# After NFKC, which makes full-width marks narrow ones.
_ENDING = " \t\n.!?…,;:。、؟।\"'“”«»\u2018\u2019"


def slot(fact: ExtractedFact | Fact) -> str:
    """Return what *fact* is about, as 40 hexadecimal digits: its subject and predicate, or else its content.

    Case, width, spaces and closing punctuation make no difference, and a negation has the slot of what it negates.
    """
    if fact.subject and fact.predicate:
        return _digest("slot", _normal(fact.subject), _predicate(fact.predicate)[0])
    return _digest("slot of content", _normal(fact.content))


def content_hash(fact: ExtractedFact | Fact, *, ordinal: int = 0, quarantined: bool = False) -> str:
    """Return what *fact* says, as 40 hexadecimal digits that are the same however it is cased, spaced or punctuated.

    Args:
        ordinal: How often the same was said before and ceased to hold; sets apart the rows of A, B, A.
        quarantined: Whether it is held back; sets it apart from the same statement by someone trusted.
    """
    value = _value(fact)
    polarity = "" if value.positive else "not"
    held_back = "quarantined" if quarantined else ""
    return _digest(
        "fact", value.subject, value.predicate, polarity, value.object, value.moment, str(ordinal), held_back
    )


def single_valued(predicate: str) -> bool:
    """Return whether one subject has one value of *predicate* at a time."""
    name, _ = _predicate(predicate)
    return name in _SINGLE or name.startswith(("favorite_", "number_of_"))


def decide(
    candidates: Sequence[ExtractedFact],
    existing: Sequence[Fact],
    *,
    said_at: datetime,
    embeddings: Mapping[str, Embedding] | None = None,
    quarantined: Collection[str] = (),
    again: bool = False,
) -> list[Change]:
    """Return what *candidates* change in the memory that holds *existing*: first news and mentions, in their order.

    Nothing of another subject or slot is touched, nothing is dropped, and what was decided once is not decided again:
    a candidate whose sources a fact of the same statement already has changes nothing. At equal times the later heard
    wins. Word of a lower trust does not end what someone of a higher trust said: it is stored as superseded by that.
    A fact with an end and no beginning tells when something stopped.

    Args:
        existing: The facts of the candidates' slots, of every status.
        said_at: When the candidates that have no ``valid_from`` began to hold.
        embeddings: Embeddings of candidates, by content.
        quarantined: The contents to hold back: they are stored, but neither end anything nor are ended.
        again: Whether what was decided once is a mention now: every candidate then gives a change.
    """
    vectors = embeddings or {}
    used = {fact.content_hash for fact in existing}
    by_slot: dict[str, _Slot] = {}
    for fact in sorted(existing, key=lambda fact: fact.id):
        by_slot.setdefault(fact.slot, _Slot()).stored.append(fact)
    for place, candidate in enumerate(_dated(fact, said_at) for fact in candidates):
        group = by_slot.setdefault(slot(candidate), _Slot())
        (group.held_back if candidate.content in quarantined else group.heard).append((place, candidate))
    news: dict[int, Change] = {}
    consequences: list[Change] = []
    for name, group in by_slot.items():
        for place, candidate in group.held_back:
            if change := _held_back(candidate, name, group.stored, used, vectors, again=again):
                news[place] = change
        rows = _chain(group, again=again)
        fresh = [row for row in rows if row.stored is None]
        for row in fresh:
            row.hash = next(
                key for ordinal in itertools.count() if (key := content_hash(row.said, ordinal=ordinal)) not in used
            )
            used.add(row.hash)
        for row in fresh:
            change = _news(row, name, said_at, vectors)
            if row.place is None:
                consequences.append(change)
            else:
                news[row.place] = change
        for row in rows:
            if row.stored is not None:
                news.update((place, _mention(candidate, row.stored)) for place, candidate in row.repeats)
                if row.ended_by is not None and row.end is not None:
                    consequences.append(
                        Retirement(fact_id=row.stored.id, valid_to=row.end, superseded_by=row.ended_by.hash)
                    )
    return [news[place] for place in sorted(news)] + consequences


@dataclass(slots=True)
class _Slot:
    """The facts of one slot: *stored* by id, *heard* and *held_back* with their places among the candidates."""

    stored: list[Fact] = field(default_factory=list)
    heard: list[tuple[int, ExtractedFact]] = field(default_factory=list)
    held_back: list[tuple[int, ExtractedFact]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Value:
    """What a statement says; equal when they say the same. *moment* sets apart what merely happened."""

    subject: str
    predicate: str
    object: str
    positive: bool
    moment: str

    @property
    def timeless(self) -> bool:
        """Whether it cannot cease to hold: what happened, and sentences without a triple."""
        return self.moment != "" or self.predicate == ""

    def ends(self, other: _Value) -> bool:
        """Return whether *other* ceases to hold when this begins."""
        if self.timeless or other.timeless:
            return False
        if self.object == other.object:
            return self.positive is not other.positive
        return self.positive and other.positive and single_valued(self.predicate)


@dataclass(slots=True, eq=False)
class _Row:
    """One row of a slot: *stored* already, or to be.

    Attributes:
        place: Which candidate it is; None when it is stored, or goes on with a stored one after an interruption.
        end: When it ceases to hold; None: it goes on.
        ended_by: What took its place, if this play of the chain found that out.
        repeats: The candidates that say the same while it holds.
    """

    value: _Value
    start: datetime
    trust: Trust
    said: ExtractedFact
    stored: Fact | None = None
    place: int | None = None
    end: datetime | None = None
    ended_by: _Row | None = None
    embedding: Embedding | None = None
    repeats: list[tuple[int, ExtractedFact]] = field(default_factory=list)
    hash: str = ""

    def holds(self, at: datetime) -> bool:
        return self.end is None or at < self.end

    def close(self, at: datetime, by: _Row) -> None:
        if self.end is None or at < self.end:
            self.end, self.ended_by = at, by


def _chain(group: _Slot, *, again: bool) -> list[_Row]:
    """Return the rows of a slot by event time, those already stored included, each ended where another ends it.

    Every stored row begins where it began; what it was said again for later begins anew if it was interrupted before.
    """
    points: list[tuple[datetime, int, int, _Row, bool]] = []
    stored: list[_Row] = []
    for fact in group.stored:
        if fact.status == "quarantined":
            continue
        row = _Row(_value(fact), fact.valid_from, fact.trust, _said(fact), stored=fact, end=fact.valid_to)
        row.hash = fact.content_hash
        stored.append(row)
        # Of those that begin at one instant, the ones that gave way at once came before the one that stayed.
        gave_way = fact.valid_to == fact.valid_from
        points.append((fact.valid_from, 0 if gave_way else 1, fact.id, row, True))
        last = fact.last_mentioned_at
        # With one mention only, the last one is when it was recorded, which says nothing about when it held.
        if fact.mentions > 1 and last != fact.recorded_at and last > fact.valid_from and row.holds(last):
            said = replace(row.said, valid_from=last, valid_to=fact.valid_to)
            resumed = _Row(row.value, last, fact.trust, said, end=fact.valid_to, embedding=fact.embedding)
            points.append((last, 1, fact.id, resumed, False))
    for place, candidate in group.heard:
        value = _value(candidate)
        alike = [row for row in stored if row.value == value]
        learned = next((row for row in alike if _learned(candidate, row)), None)
        if learned is not None and not again:
            continue
        # What cannot cease to hold has no periods: whenever it was said, it is the same.
        known = learned or next(
            (row for row in alike if value.timeless and _outranks(row.trust, candidate.trust)), None
        )
        if known is not None:
            known.repeats.append((place, candidate))
            continue
        row = _Row(value, _start(candidate), candidate.trust, candidate, place=place, end=candidate.valid_to)
        points.append((row.start, 2, place, row, False))
    rows: list[_Row] = []
    for at, _, _, row, anchored in sorted(points, key=lambda point: point[:3]):
        holding = [other for other in rows if other.holds(at)]
        same = next((other for other in holding if other.value == row.value), None)
        if same is not None and not anchored and _outranks(same.trust, row.trust):
            if row.place is not None and same.stored is None:
                same.said = replace(same.said, sources=_merged(same.said.sources, row.said.sources))
            elif row.place is not None:
                same.repeats.append((row.place, row.said))
            continue
        rows.append(row)
        against = [other for other in holding if other is same or row.value.ends(other.value)]
        above = next((other for other in against if not _outranks(row.trust, other.trust)), None)
        if above is not None:
            row.close(at, above)
            continue
        for other in against:
            other.close(at, row)
    return rows


def _news(row: _Row, name: str, said_at: datetime, vectors: Mapping[str, Embedding]) -> NewFact:
    over = row.ended_by is not None or (row.end is not None and row.end <= said_at)
    return NewFact(
        fact=row.said,
        slot=name,
        content_hash=row.hash,
        status="superseded" if over else "active",
        valid_from=row.start,
        valid_to=row.end,
        superseded_by=None if row.ended_by is None else row.ended_by.hash,
        embedding=vectors.get(row.said.content) or row.embedding,
    )


def _mention(candidate: ExtractedFact, fact: Fact) -> Mention:
    # Word of a lower trust must not make the fact look confirmed at a later time.
    confirms = _outranks(candidate.trust, fact.trust)
    return Mention(fact_id=fact.id, at=_start(candidate) if confirms else fact.valid_from, sources=candidate.sources)


def _held_back(
    candidate: ExtractedFact,
    name: str,
    stored: Sequence[Fact],
    used: set[str],
    vectors: Mapping[str, Embedding],
    *,
    again: bool,
) -> Change | None:
    key = content_hash(candidate, quarantined=True)
    for fact in stored:
        if fact.content_hash == key:
            known = not again and bool(candidate.sources) and set(candidate.sources) <= set(fact.sources)
            return None if known else Mention(fact_id=fact.id, at=_start(candidate), sources=candidate.sources)
    if key in used:
        return None
    used.add(key)
    return NewFact(
        fact=candidate,
        slot=name,
        content_hash=key,
        status="quarantined",
        valid_from=_start(candidate),
        valid_to=candidate.valid_to,
        embedding=vectors.get(candidate.content),
    )


def _dated(fact: ExtractedFact, said_at: datetime) -> ExtractedFact:
    if fact.valid_from is not None:
        return fact
    if fact.valid_to is None:
        return replace(fact, valid_from=said_at)
    if not (fact.subject and fact.predicate) or _NEGATION.match(fact.predicate):
        return replace(fact, valid_from=fact.valid_to, valid_to=None)
    return replace(fact, predicate=f"no_longer_{fact.predicate}", valid_from=fact.valid_to, valid_to=None)


def _start(fact: ExtractedFact) -> datetime:
    if fact.valid_from is None:
        raise ValueError(f"{fact.content!r} has no time yet")
    return fact.valid_from


def _learned(candidate: ExtractedFact, row: _Row) -> bool:
    if candidate.sources:
        return set(candidate.sources) <= set(row.said.sources)
    return candidate.valid_from == row.start


def _said(fact: Fact) -> ExtractedFact:
    return ExtractedFact(
        kind=fact.kind,
        content=fact.content,
        subject=fact.subject,
        predicate=fact.predicate,
        object=fact.object,
        importance=fact.importance,
        confidence=fact.confidence,
        trust=fact.trust,
        valid_from=fact.valid_from,
        valid_to=fact.valid_to,
        sources=fact.sources,
    )


def _outranks(one: Trust, other: Trust) -> bool:
    """Return whether the word of *one* counts at least as much as the word of *other*."""
    return _RANK[one] >= _RANK[other]


def _merged(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(first + second))


def _value(fact: ExtractedFact | Fact) -> _Value:
    if not (fact.subject and fact.predicate):
        return _Value("", "", _normal(fact.content), positive=True, moment="")
    predicate, positive = _predicate(fact.predicate)
    spoken_of = _normal(fact.object if fact.object else fact.content)
    # The same thing may happen again on another day; a state that is told again is the same state.
    moment = fact.valid_from.date().isoformat() if fact.kind == "event" and fact.valid_from is not None else ""
    return _Value(_normal(fact.subject), predicate, spoken_of, positive, moment)


def _predicate(predicate: str) -> tuple[str, bool]:
    name = re.sub(r"[\s_-]+", "_", _normal(predicate)).strip("_")
    positive = True
    while found := _NEGATION.match(name):
        name, positive = name[found.end() :], not positive
    name = _SAME.get(name, name)
    if name == "dislikes":
        name, positive = "likes", not positive
    return name, positive


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = " ".join(folded.split())
    return words.rstrip(_ENDING).lstrip(_ENDING) or words


def _digest(*parts: str) -> str:
    return blake2b("\x1e".join(parts).encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
