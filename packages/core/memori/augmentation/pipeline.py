"""From the work on one exchange to a revision of an entity's memory: extract, guard, embed, decide.

What an extractor returns is foreign: numbers out of range are clamped into [0, 1], times without a zone are taken for
UTC, facts without content are left out, and sources that are not the exchange's own are cut off. Anything that is not
of the right type raises `ExtractionError`, because a fact guessed from it could not be trusted.
"""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

from memori.augmentation.guard import redact, suspicious
from memori.augmentation.slots import content_hash, decide, slot
from memori.embeddings.stored import embedded
from memori.errors import ConfigurationError, EmbeddingError, ExtractionError
from memori.types import (
    IMPORTED,
    Change,
    Embedding,
    ExtractedFact,
    Extraction,
    Fact,
    FactKind,
    Job,
    KnownFact,
    Mention,
    NewFact,
    Revision,
    StoredMessage,
    Trust,
)

if TYPE_CHECKING:
    from memori.protocols import Embedder, Extractor
    from memori.settings import Settings

__all__ = ["CallableExtractor", "Pipeline"]

log = logging.getLogger(__name__)

_KINDS = frozenset(get_args(FactKind))
_TRUSTS = frozenset(get_args(Trust))
# Which word a message can give a fact at most: text that a tool returned is never the user's word.
_WORD: dict[str, Trust] = {"user": "user", "assistant": "assistant", "system": "assistant", "tool": "tool"}
_LEAST_FIRST: tuple[Trust, ...] = ("tool", "assistant", "user", "application")


ExtractorFunction: TypeAlias = Callable[[Sequence[StoredMessage]], Extraction | Sequence[ExtractedFact]]


class CallableExtractor:
    """An extractor made of a function that takes messages and returns an `Extraction` or a sequence of facts."""

    def __init__(self, function: ExtractorFunction) -> None:
        self._function = function

    def extract(self, messages: Sequence[StoredMessage]) -> Extraction:
        """Return what the function read in *messages*.

        Raises:
            ExtractionError: It returned something else than an extraction or facts.
        """
        found = self._function(messages)
        if isinstance(found, Extraction):
            return found
        if isinstance(found, Sequence) and not isinstance(found, str):
            return Extraction(facts=tuple(found))
        raise ExtractionError(f"the extractor returned {found!r:.200}: return an Extraction or a list of ExtractedFact")


class Pipeline:
    """What turns jobs and remembered facts into revisions. Safe to use from any thread if its parts are.

    It reads no database: what a new fact does to the facts already known is decided by `Revision.decide`, under the
    entity's lock.
    """

    def __init__(self, extractor: Extractor | ExtractorFunction, embedder: Embedder, settings: Settings) -> None:
        self._extractor = (
            CallableExtractor(extractor)
            if callable(extractor) and not hasattr(extractor, "extract")
            else cast("Extractor", extractor)
        )
        self._embedder = embedder
        self._settings = settings
        self._embedder_failed = False

    def revision(self, job: Job) -> Revision:
        """Return what the exchange of *job* changes: facts, attributes of the process, embeddings of its messages.

        One that was imported changes only the last: its facts came with it.

        Facts without a time of their own begin to hold when the newest of their source messages was said. When the
        embedder fails, everything is kept without embeddings, and found by its words.

        Raises:
            ExtractionError: The extractor failed, or returned something that is no extraction.
        """
        try:
            imported = job.exchange_id.startswith(IMPORTED)
            extraction = Extraction() if imported else self._extractor.extract(job.messages)
        except ExtractionError:
            raise
        except Exception as error:
            raise ExtractionError(f"{type(self._extractor).__name__} failed: {error!r}") from error
        if not isinstance(extraction, Extraction):
            raise ExtractionError(
                f"{type(self._extractor).__name__} returned {extraction!r:.200}: return a memori.types.Extraction"
            )
        messages = {message.id: message for message in job.messages}
        facts = [_placed(fact, messages, job) for fact in _facts(extraction.facts)]
        texts = [message for message in job.messages if message.kind == "text" and message.content.strip()]
        embeddings = self._embed([message.content for message in texts])
        return self._revision(
            facts,
            at=_aware(job.at),
            message_embeddings={
                message.id: embeddings[message.content] for message in texts if message.content in embeddings
            },
            attributes=_attributes(extraction.attributes),
        )

    def remembered(self, facts: Sequence[ExtractedFact], at: datetime) -> Revision:
        """Return what it changes that the application said *facts* itself, at *at*: each is stored or mentioned.

        Raises:
            ConfigurationError: One of them has no content or values that cannot be used.
        """
        try:
            checked = [_checked(fact) for fact in facts]
        except ExtractionError as error:
            raise ConfigurationError(str(error)) from error
        if not all(fact.content for fact in checked):
            raise ConfigurationError("content is empty: a fact must say something")
        return self._revision(checked, at=_aware(at), message_embeddings={}, attributes={}, again=True)

    def carried(self, facts: Sequence[KnownFact], at: datetime) -> Revision:
        """Return what it changes that another program knew *facts*: those that are not known here are stored.

        Each begins to hold when it was first told, and is guarded and placed like any other. Told twice, it is one.

        Raises:
            ConfigurationError: One of them has values that cannot be used.
        """
        told: dict[str, KnownFact] = {}
        for known in facts:
            try:
                said = _checked(replace(known.fact, valid_from=known.first_at))
            except ExtractionError as error:
                raise ConfigurationError(str(error)) from error
            if not said.content:
                continue
            said = _redacted(said) if self._settings.redact else said
            key = content_hash(said)
            before = told.get(key)
            told[key] = KnownFact(
                fact=said if before is None else before.fact,
                mentions=known.mentions + (0 if before is None else before.mentions),
                first_at=known.first_at if before is None else min(known.first_at, before.first_at),
                last_at=known.last_at if before is None else max(known.last_at, before.last_at),
            )
        revision = self._revision(
            [replace(known.fact, valid_from=known.first_at) for known in told.values()],
            at=_aware(at),
            message_embeddings={},
            attributes={},
        )
        return replace(revision, decide=partial(_news, revision.decide, told))

    def _revision(
        self,
        facts: Sequence[ExtractedFact],
        *,
        at: datetime,
        message_embeddings: Mapping[int, Embedding],
        attributes: Mapping[str, str],
        again: bool = False,
    ) -> Revision:
        if self._settings.redact:
            facts = [_redacted(fact) for fact in facts]
        return Revision(
            slots=frozenset(slot(fact) for fact in facts),
            decide=partial(
                decide,
                tuple(facts),
                said_at=at,
                embeddings=self._embed([fact.content for fact in facts]),
                quarantined=frozenset(fact.content for fact in facts if any(map(suspicious, _texts(fact)))),
                again=again,
            ),
            message_embeddings=message_embeddings,
            attributes={name: redact(value) if self._settings.redact else value for name, value in attributes.items()},
        )

    def _embed(self, texts: Sequence[str]) -> dict[str, Embedding]:
        try:
            found = embedded(self._embedder, texts)
        except EmbeddingError:
            # Words still find what has no vector.
            level = logging.DEBUG if self._embedder_failed else logging.ERROR
            self._embedder_failed = True
            log.log(level, "the embedder failed; storing without embeddings", exc_info=True)
            return {}
        self._embedder_failed = False
        return found


def _news(
    decide: Callable[[Sequence[Fact]], Sequence[Change]], told: Mapping[str, KnownFact], existing: Sequence[Fact]
) -> list[Change]:
    """Return what is new of the facts that another program knew, as they were told there; what is known here stays."""
    changes: list[Change] = []
    for change in decide(existing):
        if isinstance(change, Mention):
            continue
        if isinstance(change, NewFact) and (known := told.get(content_hash(change.fact))) is not None:
            change = replace(
                change, mentions=known.mentions, recorded_at=known.first_at, last_mentioned_at=known.last_at
            )
        changes.append(change)
    return changes


def _facts(facts: object) -> list[ExtractedFact]:
    if isinstance(facts, str) or not isinstance(facts, Sequence):
        raise ExtractionError(f"facts is {facts!r:.200}: it must be a sequence of ExtractedFact")
    return [checked for fact in facts if (checked := _checked(fact)).content]


def _checked(fact: object) -> ExtractedFact:
    if not isinstance(fact, ExtractedFact):
        raise ExtractionError(f"got {fact!r:.200}: facts must be memori.types.ExtractedFact")
    if fact.kind not in _KINDS:
        raise ExtractionError(f"kind={fact.kind!r} of {fact.content!r:.80}: choose one of {', '.join(sorted(_KINDS))}")
    if fact.trust not in _TRUSTS:
        raise ExtractionError(f"trust={fact.trust!r} of {fact.content!r:.80}: choose one of {', '.join(_LEAST_FIRST)}")
    begins, ends = _time(fact, "valid_from"), _time(fact, "valid_to")
    if begins is not None and ends is not None and ends < begins:
        raise ExtractionError(f"{fact.content!r:.80} ends ({ends}) before it begins ({begins})")
    content = _text(fact, "content")
    if content is None:
        raise ExtractionError(f"{fact!r:.200} has no content: it must be a sentence")
    if not isinstance(fact.sources, tuple | list) or not all(
        isinstance(source, int) and not isinstance(source, bool) for source in fact.sources
    ):
        raise ExtractionError(f"sources={fact.sources!r:.80} of {content!r:.80}: they must be ids of messages")
    return replace(
        fact,
        content=content,
        subject=_text(fact, "subject") or None,
        predicate=_text(fact, "predicate") or None,
        object=_text(fact, "object") or None,
        subject_type=_text(fact, "subject_type") or None,
        object_type=_text(fact, "object_type") or None,
        importance=_share(fact, "importance"),
        confidence=_share(fact, "confidence"),
        valid_from=begins,
        valid_to=ends,
        sources=tuple(dict.fromkeys(fact.sources)),
    )


def _text(fact: ExtractedFact, name: str) -> str | None:
    value: Any = getattr(fact, name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ExtractionError(f"{name}={value!r:.80}: must be text, not {type(value).__name__}")
    # PostgreSQL takes no NUL in text, and no database takes half a surrogate pair.
    clean = value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return unicodedata.normalize("NFC", clean).strip()


def _share(fact: ExtractedFact, name: str) -> float:
    value: Any = getattr(fact, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ExtractionError(f"{name}={value!r} of {fact.content!r:.80}: must be a number in [0, 1]")
    return min(max(float(value), 0.0), 1.0)


def _time(fact: ExtractedFact, name: str) -> datetime | None:
    value: Any = getattr(fact, name)
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ExtractionError(f"{name}={value!r:.80} of {fact.content!r:.80}: must be a datetime")
    return _aware(value)


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _placed(fact: ExtractedFact, messages: Mapping[int, StoredMessage], job: Job) -> ExtractedFact:
    """Return *fact* with the sources, the trust and the time that its exchange gives it."""
    given = tuple(source for source in fact.sources if source in messages)
    sources = given or tuple(messages)
    heard = [messages[source] for source in sources]
    # An extractor that names no sources means the whole exchange; its replies do not make the user's word the model's.
    words = [_WORD[message.role] for message in heard if given or message.role != "assistant"]
    trust = min([fact.trust, *words], key=_LEAST_FIRST.index)
    begins = fact.valid_from
    if begins is None and fact.valid_to is None:
        begins = max((_aware(message.at) for message in heard if message.at is not None), default=_aware(job.at))
    return replace(fact, sources=sources, trust=trust, valid_from=begins)


def _texts(fact: ExtractedFact) -> list[str]:
    return [text for text in (fact.content, fact.subject, fact.predicate, fact.object) if text]


def _redacted(fact: ExtractedFact) -> ExtractedFact:
    return replace(
        fact,
        content=redact(fact.content),
        subject=redact(fact.subject) if fact.subject else None,
        object=redact(fact.object) if fact.object else None,
    )


def _attributes(attributes: object) -> dict[str, str]:
    if not isinstance(attributes, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in attributes.items()
    ):
        raise ExtractionError(f"attributes={attributes!r:.200}: must map names to texts")
    return {name: value for name, value in attributes.items() if name.strip() and value.strip()}
