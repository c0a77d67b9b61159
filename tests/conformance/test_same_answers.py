"""One recall for all databases: the same questions over the same dialogues, answered alike by each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import ENGINES, Engine, each, mongodb, needs_mongodb

from memori import Memori, Message, Recollection
from memori.config import Config
from memori.embeddings.choose import embedder_from
from memori.ranking.hybrid import HybridRanker
from memori.recall import Recaller
from memori.settings import Settings
from memori.storage.choose import storage_from

BEGAN = datetime(2026, 1, 5, 9, 0, 0, 250000, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
PEOPLE = ("ann", "Ann", "ann ", "björn", "李雷")
QUESTIONS_EACH = 40
EXCHANGES_EACH = 24

PLACES = ("Lisbon", "Kraków", "São Paulo", "北京", "Cairo", "Reykjavík", "Boston", "Haifa")
THINGS = ("tea", "Käse", "jazz", "sushi 🍣", "chess", "hiking", "mystery novels", "black coffee", "opera", "cycling")
PEERS = ("Marta", "Oğuz", "Петра", "Liam", "Noor", "Zoë")
TELLING = (
    "I live in {place}.",
    "I moved to {place} last month.",
    "I love {thing}.",
    "I don't like {thing} any more.",
    "My favorite hobby is {thing}.",
    "My sister {peer} lives in {place}.",
    "My boss is {peer}, and she always talks about {thing}.",
    "I work as a gardener for {peer} in {place}.",
    "Please always answer me in short sentences about {thing}.",
    "Yesterday I went to {place} with {peer} for {thing}.",
    "We have a meeting with {peer} on Friday; remind me to bring {thing}.",
)
ASKING = (
    "Where do I live?",
    "What do I think of {thing}?",
    "Who is {peer}?",
    "What happened in {place}?",
    "What is my hobby?",
    "How should you answer me?",
    "Where does my sister live?",
    "What did I do with {peer}?",
    "What is my job?",
    "Anything about {thing} and {peer} in {place}?",
)


def sentence(chance: random.Random, forms: Sequence[str]) -> str:
    return chance.choice(forms).format(
        place=chance.choice(PLACES), thing=chance.choice(THINGS), peer=chance.choice(PEERS)
    )


def tell(memori: Memori) -> None:
    """Have everyone talk, the same each time."""
    for seed, person in enumerate(PEOPLE):
        chance = random.Random(seed)  # noqa: S311
        for number in range(EXCHANGES_EACH):
            said = f"{sentence(chance, TELLING)} {sentence(chance, TELLING)}"
            with memori.scope(entity_id=person, process_id="diary", session_id=f"day {number // 4}"):
                memori.capture(
                    [Message(role="user", content=said), Message(role="assistant", content=f"So {said.lower()}")],
                    at=BEGAN + timedelta(days=number // 4, minutes=number, microseconds=number),
                )
    while memori.augmentation.run():
        pass
    assert memori.augmentation.wait(60)


def sources(item: Recollection) -> tuple[str, ...]:
    return tuple(source.content for source in item.sources)


def answers(conn: Any) -> list[tuple[str, str, list[tuple[Any, ...]]]]:
    """Return what is recalled for each of 200 questions: kind, text, score, times and sources of each item."""
    storage = storage_from(conn)
    recaller = Recaller(storage, embedder_from(None), HybridRanker(), Config(Settings()))
    found = []
    for seed, person in enumerate(PEOPLE):
        chance = random.Random(1000 + seed)  # noqa: S311
        for _ in range(QUESTIONS_EACH):
            question = sentence(chance, ASKING)
            items = recaller.recall(person, question, limit=10, now=NOW)
            told = [
                (item.kind, item.content, round(item.score, 9), item.at, item.valid_from, item.valid_to, sources(item))
                for item in items
            ]
            found.append((person, question, told))
    storage.close()
    return found


def remembered(conn: Any) -> list[tuple[str, str, list[tuple[Any, ...]]]]:
    with Memori(conn=conn, worker=False) as memori:
        memori.config.storage.build()
        tell(memori)
    return answers(conn)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, list[tuple[Any, ...]]]]:
    with ENGINES["sqlite"].empty(tmp_path_factory.mktemp("sqlite")) as url:
        return remembered(url)


@pytest.mark.parametrize("engine", each("postgres", "mariadb", "mysql", "oceanbase"))
def test_the_same_questions_have_the_same_answers(
    engine: Engine, expected: list[tuple[str, str, list[tuple[Any, ...]]]], tmp_path: Path
) -> None:
    """Fails when the database has a say in what is recalled, or in which order."""
    assert len(expected) == 200
    assert sum(bool(items) for _, _, items in expected) > 150
    with engine.empty(tmp_path) as url:
        for ours, theirs in zip(expected, remembered(url), strict=True):
            assert ours == theirs


@needs_mongodb
def test_the_same_questions_have_the_same_answers_on_mongodb(
    expected: list[tuple[str, str, list[tuple[Any, ...]]]],
) -> None:
    """Fails when it makes a difference to a recall that documents are no rows."""
    with mongodb() as database:
        for ours, theirs in zip(expected, remembered(database), strict=True):
            assert ours == theirs
