"""How well recall finds what was said: ``python -m benchmarks.locomo FOLDER``.

FOLDER holds dialogues of LoCoMo (Maharana et al., ACL 2024; CC BY-NC 4.0, so not in this repository), one JSON file
each: ``sessions[]`` with ``time``, ``turns[]`` (``id``, ``speaker``, ``text``, ``image_caption``) and ``facts[]``
(``about``, ``fact``, ``evidence``); ``questions[]`` with ``question`` and ``evidence``.

Each dialogue is stored on SQLite as a user's conversation would be, and each question goes through the recall that a
call goes through. The measure: the source messages of what is recalled, in order, each once, against the messages
marked as evidence, over all questions that have any.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Table
from memori.augmentation.slots import content_hash, slot
from memori.embeddings.static import StaticEmbedder
from memori.index.inverted import InvertedIndex, hashed
from memori.index.text import words
from memori.ranking.hybrid import HybridRanker
from memori.recall import Recaller
from memori.settings import Settings
from memori.storage.sql import SQLStorage
from memori.types import (
    Attribution,
    Embedding,
    Exchange,
    ExtractedFact,
    Fact,
    Message,
    NewFact,
    RecollectionKind,
    Revision,
    StoredMessage,
)

__all__: list[str] = []

CUTOFFS = (5, 10, 20)
_ITEMS = 40  # Recollections asked for: enough for twenty messages when several come from the same.
_TIME = "%I:%M %p on %d %B, %Y"

Ranking = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue as it is stored. Messages are named by their row's id."""

    entity_id: str
    messages: Sequence[StoredMessage]
    questions: Sequence[tuple[str, frozenset[int]]]
    end: datetime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locomo", description="How well recall finds evidence.")
    parser.add_argument("folder", type=Path, help="where the dialogues are, one JSON file each")
    files = sorted(parser.parse_args().folder.glob("*.json"))
    if not files:
        parser.error("no dialogue (*.json) is in that folder")
    embedder = StaticEmbedder()
    with tempfile.TemporaryDirectory() as folder:
        storage = SQLStorage(f"sqlite:///{Path(folder) / 'locomo.db'}")
        storage.build()
        recaller = Recaller(storage, embedder, HybridRanker(), Settings())
        bare = [_stored(storage, embedder, file, with_facts=False) for file in files]
        full = [_stored(storage, embedder, file, with_facts=True) for file in files]
        seconds: list[float] = []
        rows = [
            _row("random", bare, _shuffled),
            _row("words alone (plain BM25)", bare, _bm25),
            _row("recall, messages alone", bare, partial(_recalled, recaller, seconds, None)),
            _row("recall, facts alone", full, partial(_recalled, recaller, seconds, _FACT_KINDS)),
            _row("recall, messages and facts", full, partial(_recalled, recaller, seconds, None)),
        ]
        storage.close()
    count = sum(len(dialogue.questions) for dialogue in bare)
    print(
        Table(
            title="Evidence found on LoCoMo",
            about=f"{len(bare)} dialogues, {sum(len(dialogue.messages) for dialogue in bare):,} messages, "
            f"{count:,} questions; {embedder.model}; p50 of a recall {statistics.median(seconds) * 1e3:.1f} ms",
            columns=("", *(f"R@{cutoff}" for cutoff in CUTOFFS), "MRR", "NDCG@10"),
            rows=rows,
        )
    )


_FACT_KINDS: Sequence[RecollectionKind] = ("fact",)


def _row(name: str, dialogues: Sequence[Dialogue], ranking: Callable[[Dialogue], Ranking]) -> list[str]:
    figures: list[list[float]] = []
    for dialogue in dialogues:
        rank = ranking(dialogue)
        figures += [_figures(rank(question), evidence) for question, evidence in dialogue.questions]
    return [name, *(f"{statistics.fmean(column):.3f}" for column in zip(*figures, strict=True))]


def _figures(order: Sequence[int], evidence: frozenset[int]) -> list[float]:
    """Return the recalls, the reciprocal rank and the NDCG@10 of one answer."""
    places = [place for place, message in enumerate(order) if message in evidence]
    gain = sum(1 / math.log2(place + 2) for place in places if place < 10)
    best = sum(1 / math.log2(place + 2) for place in range(min(len(evidence), 10)))
    recalls = [sum(place < cutoff for place in places) / len(evidence) for cutoff in CUTOFFS]
    return [*recalls, 1 / (places[0] + 1) if places else 0.0, gain / best]


# Rankings


def _shuffled(dialogue: Dialogue) -> Ranking:
    chance = random.Random(dialogue.entity_id)  # noqa: S311 - a measure of chance needs no secret
    ids = [message.id for message in dialogue.messages]
    return lambda question: chance.sample(ids, len(ids))


def _bm25(dialogue: Dialogue) -> Ranking:
    index = InvertedIndex(long_query=8)
    index.add(*hashed([words(message.content) for message in dialogue.messages]), texts=len(dialogue.messages))

    def rank(question: str) -> list[int]:
        scores = index.coverage(np.unique(hashed([words(question)])[0]))
        return [dialogue.messages[row].id for row in np.argsort(-scores, kind="stable").tolist()]

    return rank


def _recalled(
    recaller: Recaller, seconds: list[float], kinds: Sequence[RecollectionKind] | None, dialogue: Dialogue
) -> Ranking:
    recaller.prefetch(dialogue.entity_id)

    def rank(question: str) -> list[int]:
        begin = time.perf_counter()
        found = recaller.recall(dialogue.entity_id, question, limit=_ITEMS, kinds=kinds, now=dialogue.end)
        seconds.append(time.perf_counter() - begin)
        return list(dict.fromkeys(message.id for item in found for message in item.sources))

    return rank


# Storing


def _stored(storage: SQLStorage, embedder: StaticEmbedder, file: Path, *, with_facts: bool) -> Dialogue:
    """Store one dialogue: an exchange a session, its messages embedded, and its facts as they were extracted."""
    data = json.loads(file.read_text(encoding="utf-8"))
    entity_id = f"{file.stem} {'with' if with_facts else 'without'} facts"
    by_turn: dict[str, StoredMessage] = {}
    begin = datetime.now(UTC)
    for number, session in enumerate(data["sessions"]):
        begin = datetime.strptime(session["time"], _TIME).replace(tzinfo=UTC)
        stored = storage.record(
            Exchange(
                id=f"{entity_id} {number}",
                attribution=Attribution(entity_id, None, f"{entity_id} {number}"),
                sent=tuple(
                    _message(turn, begin + timedelta(seconds=place)) for place, turn in enumerate(session["turns"])
                ),
                reply=(),
                at=begin,
            )
        )
        by_turn |= {turn["id"]: message for turn, message in zip(session["turns"], stored, strict=True)}
        facts = [_fact(fact, by_turn, begin) for fact in session["facts"]] if with_facts else []
        _revise(storage, embedder, entity_id, stored, facts, begin)
    questions = (
        (str(item["question"]), frozenset(by_turn[turn].id for turn in item["evidence"] if turn in by_turn))
        for item in data["questions"]
    )
    return Dialogue(
        entity_id,
        list(by_turn.values()),
        [(question, evidence) for question, evidence in questions if evidence],
        begin + timedelta(days=1),
    )


def _message(turn: dict[str, Any], at: datetime) -> Message:
    caption = f" [image: {turn['image_caption']}]" if turn.get("image_caption") else ""
    return Message(role="user", content=f"{turn['text']}{caption}", author=turn["speaker"], at=at)


def _fact(fact: dict[str, Any], by_turn: dict[str, StoredMessage], at: datetime) -> ExtractedFact:
    sources = tuple(by_turn[turn].id for turn in fact["evidence"] if turn in by_turn)
    return ExtractedFact(kind="fact", content=fact["fact"], subject=fact["about"], valid_from=at, sources=sources)


def _revise(
    storage: SQLStorage,
    embedder: StaticEmbedder,
    entity_id: str,
    messages: Sequence[StoredMessage],
    facts: Sequence[ExtractedFact],
    at: datetime,
) -> None:
    # Two sessions may give the same fact; the first one has it.
    unique = {content_hash(fact): fact for fact in facts}
    texts = [message.content for message in messages] + [fact.content for fact in unique.values()]
    vectors = embedder.embed(texts, purpose="document")
    embeddings = [Embedding(embedder.model, vector) for vector in vectors]
    fact_embeddings = dict(zip(unique, embeddings[len(messages) :], strict=True))

    def decide(known: Sequence[Fact]) -> list[NewFact]:
        taken = {fact.content_hash for fact in known}
        return [
            NewFact(
                fact=fact,
                slot=slot(fact),
                content_hash=name,
                status="active",
                valid_from=at,
                embedding=fact_embeddings[name],
            )
            for name, fact in unique.items()
            if name not in taken
        ]

    storage.revise(
        entity_id,
        Revision(
            slots=frozenset(slot(fact) for fact in unique.values()),
            decide=decide,
            message_embeddings=dict(zip((message.id for message in messages), embeddings, strict=False)),
        ),
        now=at,
    )


if __name__ == "__main__":
    main()
