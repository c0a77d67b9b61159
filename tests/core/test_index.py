"""Text to terms, terms to scores, and an entity's memory as it grows."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memori.index.columns import Column, products
from memori.index.entity import EntityIndex
from memori.index.inverted import InvertedIndex, hashed, settled
from memori.index.text import gram_hashes, stem, words
from memori.types import Candidates, Changes, Embedding, Fact, StoredMessage, Version

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = "test"


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("My favorite COLOR is blue!", ["favorite", "color", "blue"]),
            ("It's Anna's cat; don't wake it.", ["anna", "cat", "wake"]),
            ("The Who", ["the", "who"]),
            ("Ich heiße Jürgen, Käse ﬁnde ich gut", ["ich", "heisse", "jurgen", "kase", "finde", "ich", "gut"]),
            ("Cafe\u0301 café CAFÉ", ["cafe", "cafe", "cafe"]),
            ("Меня зовут Ольга", ["меня", "зовут", "ольга"]),
            ("मेरा नाम प्रिया है", ["मेरा", "नाम", "प्रिया", "है"]),
            ("مُحَمَّد محمد", ["محمد", "محمد"]),
            ("我住在北京", ["我住", "住在", "在北", "北京"]),
            ("ラーメン", ["ラー", "ーメ", "メン"]),
            ("iPhone手机x", ["iphone", "手机", "x"]),
            ("水", ["水"]),
            ("room 101, c3po", ["room", "101", "c3po"]),
            ("", []),
            ("?! … 🦊", []),
        ],
    )
    def test_any_script_is_read(self, text: str, expected: list[str]) -> None:
        """Fails when a script is lost, cut inside its words, or told apart by case, width or accents."""
        assert words(text, stemmed=False) == expected

    def test_thai_and_korean_come_in_pairs(self) -> None:
        """Fails when scripts without spaces, or with particles glued on, match only as whole sentences."""
        assert set(words("ฉันชอบส้มตำ")) & set(words("ส้มตำ"))
        assert set(words("서울에 살아요")) & set(words("서울"))

    @pytest.mark.parametrize(
        "forms",
        [
            ("color", "colors"),
            ("live", "lives", "lived", "living"),
            ("city", "cities"),
            ("stop", "stopped", "stopping"),
            ("watch", "watches", "watched"),
            ("allergy", "allergies"),
            ("quick", "quickly"),
            ("class", "classes"),
        ],
    )
    def test_inflections_share_a_stem(self, forms: tuple[str, ...]) -> None:
        """Fails when the plural or the past of a word is another word."""
        assert len({stem(form) for form in forms}) == 1

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("bus", "bu"),
            ("sing", "s"),
            ("red", "r"),
            ("sales", "salt"),
            ("Paris", "pari"),
            ("c3s", "c3"),
        ],
    )
    def test_different_words_keep_apart(self, one: str, other: str) -> None:
        """Fails when the stemmer cuts more than an inflection."""
        assert stem(one.lower()) != stem(other)

    @given(st.text())
    def test_no_text_is_too_strange(self, text: str) -> None:
        """Fails when some text raises, or gives terms that are empty."""
        assert all(words(text))
        hashes, owners = gram_hashes([words(text, stemmed=False), ["tea"]])
        assert len(hashes) == len(owners)

    @pytest.mark.timeout(5)
    def test_a_megabyte_is_bounded(self) -> None:
        """Fails when a long text holds a call up."""
        assert len(words("word " * 200_000)) <= 200_000
        assert len(gram_hashes([words("word " * 200_000)])[0]) < 100_000


class TestGrams:
    def test_they_stay_within_words_and_texts(self) -> None:
        """Fails when two words, or two texts, share an n-gram that neither has."""
        together, owners = gram_hashes([["tea", "cup"], ["pot"]])
        alone = [set(gram_hashes([[word]])[0].tolist()) for word in ("tea", "cup", "pot")]
        assert set(together[owners == 0].tolist()) == alone[0] | alone[1]
        assert set(together[owners == 1].tolist()) == alone[2]

    def test_sizes_are_three_to_five(self) -> None:
        """Fails when n-grams of another size are made: " tea " has three of three, two of four and one of five."""
        assert len(set(gram_hashes([["tea"]])[0].tolist())) == 6


def bm25(texts: Sequence[Sequence[str]], query: Sequence[str], *, k1: float = 1.2, b: float = 0.4) -> list[float]:
    """Return the scores as the formula is written, divided by the full match: the reference."""
    count, average = len(texts), sum(map(len, texts)) / len(texts)
    present = {term: sum(term in text for text in texts) for term in query}

    def idf(number: int) -> float:
        return math.log(1 + (count - number + 0.5) / (number + 0.5))

    whole = sum(idf(max(number, 1)) for number in present.values())
    found = []
    for text in texts:
        counts = Counter(text)
        score = sum(
            idf(present[term]) * counts[term] * (k1 + 1) / (counts[term] + k1 * (1 - b + b * len(text) / average))
            for term in query
        )
        found.append(score / whole)
    return found


def index_of(batches: Sequence[Sequence[Sequence[str]]]) -> InvertedIndex:
    index = InvertedIndex(long_query=8)
    for batch in batches:
        index.add(*hashed(batch), texts=len(batch))
    return index


def some_texts(count: int) -> list[list[str]]:
    chance = random.Random(4)  # noqa: S311 - it only has to be the same each time
    vocabulary = [f"w{number}" for number in range(60)]
    return [[chance.choice(vocabulary) for _ in range(chance.randint(0, 30))] for _ in range(count)]


def query_hashes(*terms: str) -> Any:
    return np.unique(hashed([terms])[0])


class TestInvertedIndex:
    @pytest.mark.parametrize("batch", [1, 2, 7, 300, 1500])
    def test_it_is_true_bm25_however_it_grew(self, batch: int) -> None:
        """Fails when scores differ from the formula, or depend on how the texts came in."""
        texts = some_texts(1500)
        index = index_of([texts[at : at + batch] for at in range(0, len(texts), batch)])
        query = ["w1", "w7", "w59", "unknown"]
        assert index.coverage(query_hashes(*query)) == pytest.approx(bm25(texts, query), abs=1e-4)

    def test_putting_its_parts_together_changes_no_answer(self) -> None:
        """Fails when postings are lost or doubled by it, those that came meanwhile among them, or parts pile up."""
        texts = some_texts(4000)
        index = index_of([])
        query = query_hashes("w1", "w7", "w59", "unknown")
        for at in range(0, len(texts), 100):
            before = index.large
            after = settled(before)
            index.add(*hashed(texts[at : at + 100]), texts=100)  # As another thread may.
            asked = index.coverage(query)
            index.settle(before, after)
            assert index.coverage(query) == pytest.approx(asked, abs=1e-6)
            assert len(index.large) <= 4
        assert index.coverage(query) == pytest.approx(index_of([texts]).coverage(query), abs=1e-4)

    def test_a_full_match_is_one_in_any_index(self) -> None:
        """Fails when scores of small and large memories cannot be held to one threshold."""
        for count in (1, 10, 1000):
            texts = [["tea", "cup"], *(["x", f"y{number}"] for number in range(count - 1))]
            assert index_of([texts]).coverage(query_hashes("tea", "cup"))[0] == pytest.approx(1.0, abs=0.1)

    def test_part_of_a_query_is_part_of_one(self) -> None:
        """Fails when terms that no memory has are left out of what there is to cover."""
        index = index_of([[["tea"], ["cup"]]])
        assert index.coverage(query_hashes("tea", "unknown"))[0] == pytest.approx(0.5, abs=0.05)

    def test_a_long_query_need_not_be_covered_whole(self) -> None:
        """Fails when a long message recalls nothing because no memory speaks of all of it."""
        index = index_of([[["peanuts", "allergic"], *([f"x{number}"] for number in range(50))]])
        query = ["peanuts", "allergic", *(f"other{number}" for number in range(30))]
        assert index.coverage(query_hashes(*query))[0] > 1.5 * 2 / 32

    def test_common_terms_count_when_there_are_no_others(self) -> None:
        """Fails when a user who speaks of one thing all the time cannot recall it any more."""
        index = InvertedIndex(long_query=8, common=0.1)
        index.add(*hashed([["tea", f"w{number}"] for number in range(400)]), texts=400)
        assert (index.coverage(query_hashes("tea")) > 0.0).all()
        assert np.count_nonzero(index.coverage(query_hashes("tea", "w7"))) == 1

    def test_nothing_asked_or_held_is_zero(self) -> None:
        """Fails when an empty side raises."""
        assert index_of([]).coverage(query_hashes("tea")).tolist() == []
        assert index_of([[["tea"], []]]).coverage(query_hashes()).tolist() == [0.0, 0.0]
        assert index_of([[["tea"], []]]).coverage(query_hashes("cup")).tolist() == [0.0, 0.0]


class TestColumns:
    @pytest.mark.parametrize("count", [0, 1, 69, 70, 71, 1000])
    @pytest.mark.parametrize("width", [1, 128, 1536, 20_000])
    def test_products_are_those_of_every_row(self, count: int, width: int) -> None:
        """Fails when the blocks leave out, double or mix up rows."""
        chance = np.random.default_rng(0)
        rows = chance.normal(size=(min(count, 100) if width > 2000 else count, width)).astype(np.float32)
        vector = chance.normal(size=width).astype(np.float32)
        assert np.allclose(products(rows, vector), rows @ vector, atol=1e-2)

    def test_a_column_grows_and_keeps_what_it_has(self) -> None:
        """Fails when growing loses or moves a value."""
        column = Column(np.int64)
        for number in range(1000):
            column.extend([number])
        assert column.values.tolist() == list(range(1000))
        assert column.nbytes < 3 * 8 * 1000


def vector(*numbers: float) -> Embedding:
    return Embedding(MODEL, np.array(numbers, dtype=np.float32))


def message(id: int, content: str = "tea", **more: Any) -> StoredMessage:
    given = {"session_id": "s", "position": id, "exchange_id": "x", "role": "user", "at": NOW + id * DAY, **more}
    return StoredMessage(id=id, content=content, **given)


def fact(id: int, content: str = "tea", **more: Any) -> Fact:
    given = {"kind": "fact", "slot": str(id), "content_hash": str(id), "valid_from": NOW, **more}
    return Fact(id=id, entity_id="ann", content=content, recorded_at=NOW, last_mentioned_at=NOW, **given)


def entity(*batches: Sequence[Any]) -> EntityIndex:
    index = EntityIndex(MODEL)
    for number, batch in enumerate(batches, start=1):
        index.apply(
            Changes(
                version=Version(1, number),
                whole=number == 1,
                messages=tuple(item for item in batch if isinstance(item, StoredMessage)),
                facts=tuple(item for item in batch if isinstance(item, Fact)),
            )
        )
    return index


def asked(index: EntityIndex, query: str = "tea", *, vector: Any = None, **more: Any) -> tuple[Candidates, list[int]]:
    found, documents = index.candidates(query, vector, now=NOW, **more)
    return found, [document.id for document in documents]


class TestEntityIndex:
    def test_growing_is_the_same_as_reading_it_all(self) -> None:
        """Fails when what is added in pieces is scored, linked or ordered otherwise than at once."""
        chance = random.Random(1)  # noqa: S311 - it only has to be the same each time
        said = [message(number, f"w{chance.randint(0, 9)} w{chance.randint(0, 9)}") for number in range(1, 41)]
        known = [fact(number, f"w{chance.randint(0, 9)}", sources=(number,)) for number in range(1, 21)]
        whole = entity([*said, *known])
        pieces = entity(*([*said[at : at + 2], *known[at : at + 1]] for at in range(0, 40, 2)), known)
        one, ids = asked(whole, "w1 w2")
        other, others = asked(pieces, "w1 w2")
        kinds = [("message" if flag else "fact", id) for flag, id in zip(one.messages, ids, strict=True)]
        order = [
            kinds.index(("message" if flag else "fact", id)) for flag, id in zip(other.messages, others, strict=True)
        ]
        assert np.allclose(one.words[order], other.words, atol=1e-5)
        assert np.allclose(one.characters[order], other.characters, atol=1e-5)
        assert {(kinds[f], kinds[m]) for f, m in one.links.T} == {
            (kinds[order[f]], kinds[order[m]]) for f, m in other.links.T
        }

    def test_neighbours_are_those_by_position_whatever_order_they_came_in(self) -> None:
        """Fails when messages that arrive late, or of another session, stand in the wrong place."""
        late = message(4, position=2)
        index = entity([message(1, position=1), message(2, position=3), message(3, session_id="t", position=2)], [late])
        found, ids = asked(index)
        before = {ids[row]: ids[at] for row, at in enumerate(found.before) if at >= 0}
        after = {ids[row]: ids[at] for row, at in enumerate(found.after) if at >= 0}
        assert before == {4: 1, 2: 4}
        assert after == {1: 4, 4: 2}
        assert found.sessions[ids.index(3)] != found.sessions[ids.index(1)]

    @pytest.mark.parametrize(
        "bad",
        [
            None,
            Embedding("other", np.array([1, 0], dtype=np.float32)),
            vector(1, 0, 0),
            vector(1),
            vector(float("nan"), 0),
            Embedding(MODEL, np.zeros((2, 2), dtype=np.float32)),
        ],
    )
    def test_an_embedding_that_does_not_fit_is_no_evidence(self, bad: Embedding | None) -> None:
        """Fails when one missing, foreign or broken embedding breaks recall, or hides the good ones."""
        rows = [message(1, embedding=bad), message(2, embedding=vector(1, 0)), message(3, embedding=vector(0, 1))]
        for index in (entity(rows), entity(rows[:1], rows[1:])):
            found, _ = asked(index, vector=np.array([1, 0], dtype=np.float32))
            if bad is None or bad.model == "other" or index.version == Version(1, 1):
                assert found.meaning.tolist() == [0.0, 1.0, 0.0]
            assert np.isfinite(found.meaning).all()
            assert (found.words > 0).all()

    def test_a_query_of_another_length_has_no_meaning(self) -> None:
        """Fails when a changed embedder raises where it should do without."""
        index = entity([message(1, embedding=vector(1, 0))])
        for query in (None, np.ones(3, dtype=np.float32), np.ones(0, dtype=np.float32)):
            assert asked(index, vector=query)[0].meaning.tolist() == [0.0]

    def test_an_embedding_may_come_later(self) -> None:
        """Fails when a message that the worker embeds after it was stored is doubled, or stays without meaning."""
        index = entity([message(1)], [message(1, embedding=vector(1, 0)), message(2)])
        found, ids = asked(index, vector=np.array([1, 0], dtype=np.float32))
        assert ids == [1, 2]
        assert found.meaning.tolist() == [1.0, 0.0]

    def test_a_changed_fact_is_brought_up_to_date(self) -> None:
        """Fails when a fact that was superseded or reworded since is still recalled as it was."""
        index = entity([fact(1, "tea"), fact(2, "tea")], [fact(1, "coffee"), fact(2, "tea", status="superseded")])
        found, ids = asked(index)
        assert [id for id, flag in zip(ids, found.recallable, strict=True) if flag] == [1]
        assert found.words.max() == 0.0
        assert asked(index, "coffee")[0].words.max() > 0.0

    def test_quarantined_is_never_evidence(self) -> None:
        """Fails when what was held back is recalled: itself, or through the message that it was read from."""
        rows = [message(1), message(2), fact(1, status="quarantined", sources=(1,))]
        for as_of in (None, NOW + 9 * DAY):
            found, _ = asked(entity(rows), as_of=as_of)
            assert found.recallable.tolist() == [False, True, False]
            assert found.words[[0, 2]].tolist() == [0.0, 0.0]

    def test_a_message_recedes_with_the_facts_read_from_it(self) -> None:
        """Fails when "I live in Paris" outlives the fact that was read from it."""
        rows = [
            message(1, "I live in Paris"),
            message(2, "I live in Berlin, I like tea"),
            fact(1, "lives in Paris", sources=(1,), status="superseded", superseded_by=2, valid_to=NOW),
            fact(2, "lives in Berlin", sources=(2,)),
            fact(3, "likes coffee", sources=(2,), status="superseded", superseded_by=4, valid_to=NOW),
            fact(4, "likes tea", sources=(2,)),
        ]
        found, _ = asked(entity(rows))
        assert found.past.tolist()[:2] == [True, False]
        assert found.successors.tolist() == [3, -1, 3, -1, 5, -1]
        assert found.recallable.tolist() == [True, True, False, True, False, True]

    def test_as_of_asks_what_held_then(self) -> None:
        """Fails when the past is answered with the present, or with what was said later."""
        rows = [
            message(-5, "then"),
            message(5, "later"),
            fact(1, valid_from=NOW - 9 * DAY, valid_to=NOW - DAY, status="superseded", superseded_by=2),
            fact(2, valid_from=NOW - DAY),
        ]
        index = entity(rows)
        assert asked(index, as_of=NOW - 2 * DAY)[0].recallable.tolist() == [True, False, True, False]
        assert asked(index, as_of=NOW)[0].recallable.tolist() == [True, False, False, True]

    def test_what_ended_by_itself_recedes_and_events_do_not(self) -> None:
        """Fails when a finished job reads like a current one, or a past event as no longer true."""
        ended: dict[str, Any] = {"valid_from": NOW - 9 * DAY, "valid_to": NOW - DAY}
        found, _ = asked(entity([fact(1, **ended), fact(2, kind="event", **ended), fact(3)]))
        assert found.past.tolist() == [True, False, False]
        assert found.recallable.all()

    def test_kinds_narrow_the_answer_and_not_the_evidence(self) -> None:
        """Fails when asking for preferences hides what messages say about them."""
        rows = [message(1), fact(1, kind="preference", sources=(1,)), fact(2, kind="rule")]
        found, _ = asked(entity(rows), kinds=["preference"])
        assert found.recallable.tolist() == [False, True, False]
        assert found.words[0] > 0.0
        assert asked(entity(rows), kinds=["message"])[0].recallable.tolist() == [True, False, False]

    def test_tool_traffic_is_a_source_and_not_a_memory(self) -> None:
        """Fails when arguments and results of tools are recalled, or a fact loses its source among them."""
        call = message(1, "search(tea)", kind="tool_call", role="assistant")
        index = entity([call, message(2), fact(1, sources=(1, 2))])
        assert asked(index)[1] == [2, 1]
        assert [source.id for source in index.sources(fact(1, sources=(1, 2, 77)))] == [1, 2]

    def test_the_author_that_is_named_is_told_from_the_others(self) -> None:
        """Fails when naming one speaker lifts all, or a lone speaker's name lifts everything."""
        both = [message(1, author="Anna Bell"), message(2, author="Tim"), message(3)]
        assert asked(entity(both), "What did Anna buy?")[0].named.tolist() == [True, False, False]
        assert asked(entity(both[:1]), "What did Anna buy?")[0].named.tolist() == [False]

    def test_questions_and_chatter_are_told_from_statements(self) -> None:
        """Fails when asking or nodding counts as much as saying."""
        texts = ["Where do I live?", "I love Rome. And you?", "I live in Rome, near the river.", "OK!", "在哪里\uff1f"]
        found, _ = asked(entity([message(number, text) for number, text in enumerate(texts, start=1)]))
        assert found.questions.tolist() == [1.0, 0.5, 0.0, 0.0, 1.0]
        assert found.substance[2] > found.substance[3]

    def test_what_is_handed_out_cannot_be_changed(self) -> None:
        """Fails when a ranker that writes to a column spoils every later answer."""
        found, _ = asked(entity([message(1), message(2)]))
        with pytest.raises(ValueError, match="read-only"):
            found.before[0] = 5

    def test_it_says_how_much_it_takes(self) -> None:
        """Fails when the cache cannot tell a large entity from a small one."""
        small, large = (entity([message(n, f"number {n} of many") for n in range(count)]) for count in (10, 2000))
        assert large.nbytes > 50 * small.nbytes > 0
