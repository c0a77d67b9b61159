"""What any extractor must do: subclass `ExtractorSuite`, give it the fixture ``extractor``, and run it."""

from __future__ import annotations

import math
import socket
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NoReturn, get_args

import pytest

from memori.protocols import Extractor
from memori.types import ExtractedFact, Extraction, FactKind, MessageKind, Role, StoredMessage, Trust

__all__ = ["ExtractorSuite", "exchange", "message"]

AT = datetime(2024, 3, 8, 12, 30, tzinfo=UTC)

STATEMENTS = (
    "My favorite color is blue.",
    "I live in Rome and work as a nurse.",
    "Please always answer in French.",
    "I'm allergic to peanuts.",
    "Last Saturday I ran a marathon.",
)
SAYING_NOTHING = (
    "Hello!",
    "hi there, how are you?",
    "Thanks a lot, that helped.",
    "What is my favorite color?",
    "Where do I live?",
    "ok",
    "…",
)


def message(
    content: str, *, number: int = 1, role: Role = "user", kind: MessageKind = "text", author: str | None = None
) -> StoredMessage:
    """Return a stored message of a session, said on Friday 8 March 2024."""
    return StoredMessage(
        id=number,
        session_id="session",
        position=number,
        exchange_id="exchange",
        role=role,
        kind=kind,
        content=content,
        author=author,
        at=AT,
    )


def exchange(*contents: str, role: Role = "user") -> list[StoredMessage]:
    """Return messages of one role, numbered from 11."""
    return [message(content, number=number, role=role) for number, content in enumerate(contents, start=11)]


class ExtractorSuite:
    """The contract of `memori.protocols.Extractor`. Needs a fixture ``extractor``; talks to no one.

    An extractor that asks a model runs it with a model that answers from this machine, and sets *local* to False.
    """

    local = True

    @pytest.fixture(autouse=True)
    def _offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make every attempt to connect to another machine fail."""

        def refuse(_: socket.socket, address: object) -> NoReturn:
            raise AssertionError(f"the extractor tried to connect to {address!r}")

        if self.local:
            monkeypatch.setattr(socket.socket, "connect", refuse)
            monkeypatch.setattr(socket.socket, "connect_ex", refuse)

    def facts(self, extractor: Extractor, messages: Sequence[StoredMessage]) -> tuple[ExtractedFact, ...]:
        """Return the facts in *messages*, each checked to be of the right types and within its bounds."""
        extraction = extractor.extract(messages)
        assert isinstance(extraction, Extraction)
        assert isinstance(extraction.facts, tuple)
        assert all(isinstance(item, str) for pair in extraction.attributes.items() for item in pair)
        for fact in extraction.facts:
            assert isinstance(fact, ExtractedFact)
            assert fact.kind in get_args(FactKind)
            assert fact.trust in get_args(Trust)
            assert fact.content.strip()
            assert 0.0 <= fact.importance <= 1.0
            assert 0.0 <= fact.confidence <= 1.0
            assert not math.isnan(fact.importance + fact.confidence)
            for text in (fact.subject, fact.predicate, fact.object, fact.subject_type, fact.object_type):
                assert text is None or text.strip()
            for time in (fact.valid_from, fact.valid_to):
                assert time is None or time.utcoffset() is not None
            assert set(fact.sources) <= {message.id for message in messages}
        return extraction.facts

    def test_plain_statements_become_facts(self, extractor: Extractor) -> None:
        """Fails when an ordinary first-person statement yields nothing, or a fact of the wrong types."""
        for statement in STATEMENTS:
            assert self.facts(extractor, exchange(statement)), statement

    def test_a_statement_becomes_a_triple_about_the_user(self, extractor: Extractor) -> None:
        """Fails when facts cannot be superseded because they have no subject, predicate and object."""
        facts = self.facts(extractor, exchange("My favorite color is blue."))
        assert [fact.object for fact in facts if fact.object and fact.object.casefold() == "blue"]
        assert all(fact.subject and fact.predicate for fact in facts)

    def test_each_fact_names_the_message_it_came_from(self, extractor: Extractor) -> None:
        """Fails when a memory cannot be explained by the message it was read from."""
        messages = [message(STATEMENTS[0], number=41), message("Nice!", number=42, role="assistant"),
                    message(STATEMENTS[3], number=43)]  # fmt: skip
        sources = {source for fact in self.facts(extractor, messages) for source in fact.sources}
        assert sources == {41, 43}

    def test_no_messages_are_no_facts(self, extractor: Extractor) -> None:
        """Fails when an empty exchange raises or invents something."""
        assert self.facts(extractor, []) == ()

    @pytest.mark.parametrize("content", ["", " ", "\n\n", "\x00", "\ud83d", "[image: image/png, sha256 1a2b3c4d…]"])
    def test_messages_without_words_are_no_facts(self, extractor: Extractor, content: str) -> None:
        """Fails when empty, broken or non-text content raises or invents something."""
        assert self.facts(extractor, exchange(content)) == ()

    def test_the_assistant_is_no_evidence_about_the_user(self, extractor: Extractor) -> None:
        """Fails when the model's chatter is learned as what the user said."""
        assert self.facts(extractor, exchange(*STATEMENTS, role="assistant")) == ()

    def test_what_a_tool_returns_is_no_evidence_about_the_user(self, extractor: Extractor) -> None:
        """Fails when a page that a tool fetched is learned as what the user said."""
        messages = [
            message("I live in Rome.", role="tool", kind="tool_result"),
            message("I live in Rome.", number=2, kind="tool_call"),
        ]
        assert not [fact for fact in self.facts(extractor, messages) if fact.trust in ("user", "application")]

    @pytest.mark.parametrize("content", SAYING_NOTHING)
    def test_questions_and_greetings_are_no_facts(self, extractor: Extractor, content: str) -> None:
        """Fails when a question or a greeting is taken for a statement."""
        assert self.facts(extractor, exchange(content)) == ()

    def test_several_people_are_kept_apart(self, extractor: Extractor) -> None:
        """Fails when what one person in a chat says of themselves is filed under another, or under the user."""
        messages = [message("I live in Rome.", author="Caroline"), message("I live in Oslo.", number=2, author="Mel")]
        lives = {fact.subject: fact.object for fact in self.facts(extractor, messages)}
        assert lives == {"Caroline": "Rome", "Mel": "Oslo"}

    @pytest.mark.parametrize(
        "name", ["東京", "Санкт-Петербург", "القاهرة", "São Paulo", "Mu\u0308nchen", "กรุงเทพ", "서울", "Θεσσαλονίκη"]
    )
    def test_other_scripts_stay_whole(self, extractor: Extractor, name: str) -> None:
        """Fails when a name in another script is cut, transliterated or dropped."""
        facts = self.facts(extractor, exchange(f"I live in {name}."))
        assert [fact.object for fact in facts] == [unicodedata.normalize("NFC", name)]
        assert unicodedata.normalize("NFC", name) in facts[0].content

    def test_a_huge_message_is_read_in_bounded_time(self, extractor: Extractor) -> None:
        """Fails when a pasted book raises, or what stands before it is lost."""
        facts = self.facts(extractor, exchange("I'm allergic to peanuts.\n" + "lorem ipsum dolor sit amet " * 10_000))
        assert "peanuts" in [fact.object for fact in facts]

    def test_the_same_exchange_gives_the_same_shape(self, extractor: Extractor) -> None:
        """Fails when kinds, predicates or sources of the same exchange change from one reading to the next."""
        shapes = [
            [
                (fact.kind, fact.subject, fact.predicate, fact.sources)
                for fact in self.facts(extractor, exchange(*STATEMENTS))
            ]
            for _ in range(3)
        ]
        assert shapes[0] == shapes[1] == shapes[2]

    def test_the_messages_are_left_as_they_are(self, extractor: Extractor) -> None:
        """Fails when extraction changes the list it was given."""
        messages = exchange(*STATEMENTS)
        before = list(messages)
        extractor.extract(messages)
        assert messages == before

    def test_threads_do_not_mix(self, extractor: Extractor) -> None:
        """Fails when two exchanges read at once leak into each other."""
        cities = [f"Townsville{number}" for number in range(40)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda city: self.facts(extractor, exchange(f"I live in {city}.")), cities))
        assert [[fact.object for fact in facts] for facts in found] == [[city] for city in cities]
