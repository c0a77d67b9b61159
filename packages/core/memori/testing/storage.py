"""What every `memori.protocols.Storage` must do. Subclass `StorageSuite` and give it a ``storage`` fixture."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from memori.protocols import Storage
from memori.types import (
    Attribution,
    Change,
    Embedding,
    Exchange,
    ExtractedFact,
    Fact,
    FactKind,
    Job,
    JobCounts,
    Mention,
    Message,
    NewFact,
    Retirement,
    Revision,
    Role,
    Status,
    StoredMessage,
    Version,
)

__all__ = ["NOW", "StorageSuite", "exchange", "new_fact", "revision", "said"]

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
EVERY: tuple[Status, ...] = ("active", "superseded", "quarantined")

SCRIPTS = [
    "Ich heiße Jürgen und mag Käse, wirklich!",
    "我最喜欢的颜色是蓝色。我住在北京。",
    "Меня зовут Ольга, я живу в Казани.",
    "أنا أعيش في القاهرة وأحب القهوة.",
    "मेरा नाम प्रिया है।",
    "ฉันชอบกินส้มตำ",
    "저는 서울에 살아요",
    "אני גר בחיפה",
    "Μένω στην Αθήνα",
    "👩‍👩‍👧‍👦 🇮🇹 \U0001d4bd\U0002070e",
    "e\u0301 and é, \u202eright to left\u202c, tab\tand\r\nnewline",
    "'; DROP TABLE memori_entity; -- %s %(x)s :x ? {}",
]
ODD = ["", " ", "x ", " x\n", "x\x00", "\x00", "a\x1a0b\x1a", "x\x1f", "\x1f", "\ufeffx\uffff"]


def said(role: Role, content: str, **more: Any) -> Message:
    """Return a message."""
    return Message(role=role, content=content, **more)


def exchange(
    *sent: str | Message,
    reply: str | Message | None = "Understood.",
    entity: str = "alice",
    process: str | None = "support",
    session: str = "session-1",
    at: datetime = NOW,
    id: str | None = None,
    **more: Any,
) -> Exchange:
    """Return an exchange in which the user said *sent* and was answered *reply*."""
    answers = () if reply is None else (said("assistant", reply) if isinstance(reply, str) else reply,)
    return Exchange(
        id=id or uuid.uuid4().hex,
        attribution=Attribution(entity, process, session),
        sent=tuple(said("user", item) if isinstance(item, str) else item for item in sent),
        reply=answers,
        at=at,
        **more,
    )


def new_fact(
    content: str,
    *,
    slot: str | None = None,
    key: str | None = None,
    status: Status = "active",
    at: datetime = NOW,
    until: datetime | None = None,
    superseded_by: str | None = None,
    embedding: Embedding | None = None,
    kind: FactKind = "fact",
    sources: Sequence[int] = (),
    **more: Any,
) -> NewFact:
    """Return the change that stores a fact; its slot and its content hash are its content unless given."""
    return NewFact(
        fact=ExtractedFact(kind=kind, content=content, sources=tuple(sources), **more),
        slot=slot or content,
        content_hash=key or content,
        status=status,
        valid_from=at,
        valid_to=until,
        superseded_by=superseded_by,
        embedding=embedding,
    )


def revision(*changes: Change, slots: Sequence[str] = (), **more: Any) -> Revision:
    """Return a revision that makes these changes, whatever is stored."""
    return Revision(slots=frozenset(slots), decide=lambda _: changes, **more)


def vector(*numbers: float, model: str = "model-1") -> Embedding:
    return Embedding(model, np.array(numbers, dtype=np.float32))


def contents(items: Sequence[Any]) -> list[str]:
    return [item.content for item in items]


def everything(storage: Storage, entity: str) -> tuple[Any, ...]:
    """Return all that is readable of an entity, comparable."""
    return (
        storage.version(entity),
        [replace(item, embedding=None) for item in storage.messages(entity)],
        [replace(item, embedding=None) for item in storage.facts(entity, statuses=EVERY)],
    )


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Return what *work* returns for 0, 1, …, called by *count* threads that start together."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class StorageSuite:
    """The contract of `memori.protocols.Storage`, as tests.

    A subclass has one fixture, ``storage``: built, empty, and closed after the test.
    """

    # --- build ---

    def test_build_again_keeps_everything(self, storage: Storage) -> None:
        """Fails when build is not idempotent, or loses what is there."""
        storage.record(exchange("I live in Rome."))
        before = everything(storage, "alice")
        storage.build()
        assert everything(storage, "alice") == before

    def test_build_is_silent(self, storage: Storage, capfd: pytest.CaptureFixture[str]) -> None:
        """Fails when build writes to the program's standard output or error."""
        storage.build()
        assert capfd.readouterr() == ("", "")

    # --- record ---

    def test_record_returns_what_messages_reads(self, storage: Storage) -> None:
        """Fails when a recorded message comes back different from how it was stored, or out of order."""
        before = NOW - DAY
        stored = storage.record(
            exchange(
                said(
                    "user", "Hi, Bob here.", author="bob", at=before, metadata={"tags": ["a", 1, None], "ü": {"x": 1.5}}
                ),
                said("assistant", 'lookup({"q": "x"})', kind="tool_call"),
                said("tool", "42", kind="tool_result", author="lookup"),
                reply="It is 42.",
                id="exchange-1",
                provider="openai",
                model="gpt-4o-mini",
            )
        )
        assert storage.messages("alice") == stored
        assert [(item.role, item.kind, item.content, item.author) for item in stored] == [
            ("user", "text", "Hi, Bob here.", "bob"),
            ("assistant", "tool_call", 'lookup({"q": "x"})', None),
            ("tool", "tool_result", "42", "lookup"),
            ("assistant", "text", "It is 42.", None),
        ]
        assert [item.position for item in stored] == [0, 1, 2, 3]
        assert [item.at for item in stored] == [before, NOW, NOW, NOW]
        assert stored[0].metadata == {"tags": ["a", 1, None], "ü": {"x": 1.5}}
        assert stored[1].metadata == {}
        assert {(item.session_id, item.process_id, item.exchange_id, item.partial) for item in stored} == {
            ("session-1", "support", "exchange-1", False)
        }
        assert len({item.id for item in stored}) == 4
        assert all(item.id > 0 for item in stored)

    def test_record_without_process(self, storage: Storage) -> None:
        """Fails when an exchange needs a process."""
        assert [item.process_id for item in storage.record(exchange("Hi.", process=None))] == [None, None]

    def test_positions_go_on(self, storage: Storage) -> None:
        """Fails when the positions of a session have gaps or repeat, or sessions share them."""
        for number in range(3):
            storage.record(exchange(f"Message {number}.", at=NOW + number * MINUTE))
        storage.record(exchange("Elsewhere.", session="session-2"))
        assert [item.position for item in storage.messages("alice", session_id="session-1")] == list(range(6))
        assert [item.position for item in storage.messages("alice", session_id="session-2")] == [0, 1]

    def test_recording_again_stores_nothing(self, storage: Storage) -> None:
        """Fails when an exchange that is handed in twice (a retry, a spool) is stored twice."""
        once = exchange("I live in Rome.")
        assert len(storage.record(once)) == 2
        before = everything(storage, "alice")
        assert storage.record(once) == []
        assert storage.record(replace(once, sent=(said("user", "Something else."),))) == []
        assert everything(storage, "alice") == before
        assert storage.jobs(now=NOW).pending == 1

    def test_embeddings_are_put_beside_what_is_there(self, storage: Storage) -> None:
        """Fails when an embedding is not stored, or nobody is told of it, or it costs anything else."""
        message, reply = storage.record(exchange("I live in Rome.", reply="Noted."))
        (fact,) = storage.revise("alice", revision(new_fact("Alice lives in Rome.")), now=NOW)
        before = storage.version("alice")
        one, other, third = (vector(1.0, number, model="model-2") for number in (0.0, 1.0, 2.0))
        assert storage.embed("alice", messages={message.id: one, reply.id: other}, facts={fact.id: third}) == 3
        changes = storage.changes("alice", since=before)
        assert changes is not None
        assert changes.version != before
        told: list[StoredMessage | Fact] = [*changes.messages, *changes.facts]
        assert [item.id for item in told] == [message.id, reply.id, fact.id]
        assert contents(told) == contents([message, reply, fact])
        stored = [(item.embedding.model, item.embedding.vector.tolist()) for item in told if item.embedding]
        assert stored == [("model-2", [1.0, number]) for number in (0.0, 1.0, 2.0)]
        assert storage.jobs(now=NOW).pending == 1

    def test_what_is_not_there_is_not_embedded(self, storage: Storage) -> None:
        """Fails when another's memory is touched, or one that was erased comes back, by a late embedding."""
        (message,) = storage.record(exchange("I live in Rome.", reply=None))
        (fact,) = storage.revise("alice", revision(new_fact("Alice lives in Rome.")), now=NOW)
        (gone,) = storage.revise("bob", revision(new_fact("Bob lives in Rome.")), now=NOW)
        storage.forget("bob", fact_id=gone.id)
        before = everything(storage, "alice"), storage.version("alice"), storage.version("bob")
        late = vector(1.0, 0.0)
        assert storage.embed("bob", messages={message.id: late}, facts={fact.id: late, gone.id: late}) == 0
        assert storage.embed("nobody", messages={message.id: late}, facts={fact.id: late}) == 0
        assert storage.embed("alice", messages={}, facts={}) == 0
        assert (everything(storage, "alice"), storage.version("alice"), storage.version("bob")) == before
        assert storage.facts("bob") == []
        assert storage.version("nobody") is None
        assert storage.embed("alice", messages={message.id: late, message.id + 999: late}, facts={}) == 1

    def test_every_entity_is_listed_once(self, storage: Storage) -> None:
        """Fails when going through the entities page by page leaves one out, or meets one twice."""
        names = ["alice", "Alice", "émile", "李雷", "a@example.com", "0", *(f"a{odd}" for odd in ODD)]
        assert storage.entities(limit=5) == []
        for name in names:
            storage.record(exchange("Hi.", entity=name))
        found: list[tuple[int, str]] = []
        while page := storage.entities(after=found[-1][0] if found else 0, limit=5):
            assert len(page) <= 5
            found += page
        assert sorted(name for _, name in found) == sorted(names)
        assert [number for number, _ in found] == sorted({number for number, _ in found})
        storage.forget("alice")
        assert [name for _, name in storage.entities(limit=100)] == [name for _, name in found if name != "alice"]

    def test_who_wants_nothing_back_has_it_stored_all_the_same(self, storage: Storage) -> None:
        """Fails when an exchange that is not read back is returned, or stored otherwise."""
        assert storage.record(exchange("I live in Rome.", reply="Noted."), read_back=False) == []
        assert contents(storage.messages("alice")) == ["I live in Rome.", "Noted."]
        assert storage.jobs(now=NOW).pending == 1

    def test_saying_the_same_again_is_a_second_message(self, storage: Storage) -> None:
        """Fails when what is said twice without its history is taken for one message."""
        storage.record(exchange("Yes.", reply="Good."))
        storage.record(exchange("Yes.", reply="Good."))
        assert contents(storage.messages("alice")) == ["Yes.", "Good.", "Yes.", "Good."]

    def test_the_applications_own_list_is_stored_once(self, storage: Storage) -> None:
        """Fails when an application that sends its whole list each time gets every message stored again."""
        own: list[Message] = []
        for turn in range(4):
            own.append(said("user", f"Question {turn}?"))
            answer = said("assistant", f"Answer  {turn}.\n")
            storage.record(exchange(*own, reply=answer))
            own.append(said("assistant", f"Answer {turn}."))
        assert contents(storage.messages("alice")) == [
            text for turn in range(4) for text in (f"Question {turn}?", f"Answer  {turn}.\n")
        ]

    def test_a_trimmed_window_stores_nothing_twice(self, storage: Storage) -> None:
        """Fails when a list whose beginning was cut off is taken for news."""
        storage.record(exchange("One.", reply="First."))
        storage.record(exchange("One.", said("assistant", "First."), "Two.", reply="Second."))
        stored = storage.record(exchange(said("assistant", "Second."), "Three.", reply="Third."))
        assert contents(stored) == ["Three.", "Third."]

    def test_asking_for_another_answer_stores_the_answer_only(self, storage: Storage) -> None:
        """Fails when a regenerated answer brings its question again, or is itself dropped."""
        storage.record(exchange("One.", reply="First."))
        asked = ("One.", said("assistant", "First."), "Two.")
        storage.record(exchange(*asked, reply="Second."))
        assert contents(storage.record(exchange(*asked, reply="Second, better."))) == ["Second, better."]
        assert contents(storage.record(exchange(*asked, reply="Second."))) == ["Second."]

    def test_unseen_history_is_stored_once(self, storage: Storage) -> None:
        """Fails when the history of an imported conversation is lost, or stored with each call."""
        imported = ("I am Ann.", said("assistant", "Hello Ann."), "Remember me?")
        assert contents(storage.record(exchange(*imported, reply="Yes."))) == [
            "I am Ann.", "Hello Ann.", "Remember me?", "Yes.",
        ]  # fmt: skip
        again = storage.record(exchange(*imported, said("assistant", "Yes."), "Good.", reply="Fine."))
        assert contents(again) == ["Good.", "Fine."]

    def test_a_tool_loop_is_stored_once(self, storage: Storage) -> None:
        """Fails when the calls of a tool loop, each with the whole turn so far, double its messages."""
        call = said("assistant", 'weather({"city": "Rome"})', kind="tool_call")
        result = said("tool", "sunny", kind="tool_result", author="weather")
        storage.record(exchange("What is the weather?", reply=call))
        storage.record(exchange("What is the weather?", call, result, reply="Sunny."))
        assert contents(storage.messages("alice")) == ["What is the weather?", call.content, "sunny", "Sunny."]

    def test_a_reply_cut_off_is_known_when_it_comes_back_whole(self, storage: Storage) -> None:
        """Fails when the partial reply of a broken stream and the application's whole one are two messages."""
        storage.record(exchange("Tell me.", reply="Once upon a", partial=True))
        stored = storage.record(
            exchange("Tell me.", said("assistant", "Once upon a time."), "Go on.", reply="The end.")
        )
        assert contents(stored) == ["Go on.", "The end."]
        assert [item.partial for item in storage.messages("alice")] == [False, True, False, False]

    def test_an_exchange_that_brings_nothing_makes_no_job(self, storage: Storage) -> None:
        """Fails when work is queued for an exchange without news, or its entity's version is raised."""
        storage.record(exchange("One.", reply="First."))
        before = everything(storage, "alice")
        assert storage.record(exchange("One.", said("assistant", "First."), reply=None)) == []
        assert storage.record(exchange(reply=None, entity="bob")) == []
        assert everything(storage, "alice") == before
        assert storage.version("bob") is None
        assert storage.jobs(now=NOW).pending == 1

    @pytest.mark.parametrize("text", SCRIPTS)
    def test_every_script_comes_back(self, storage: Storage, text: str) -> None:
        """Fails when a text of some script, or one that looks like SQL, is changed or refused."""
        who: dict[str, Any] = {"entity": text, "process": text, "session": text}
        storage.record(exchange(said("user", text, author=text, metadata={text: text}), reply=text, **who))
        stored = storage.messages(text, session_id=text)
        assert contents(stored) == [text, text]
        assert (stored[0].author, stored[0].process_id, stored[0].metadata) == (text, text, {text: text})
        (fact,) = storage.revise(text, revision(new_fact(text, subject=text, predicate=text, object=text)), now=NOW)
        assert (fact.content, fact.subject, fact.slot, fact.entity_id) == (text, text, text, text)

    def test_facts_of_different_scripts_stay_apart(self, storage: Storage) -> None:
        """Fails when hashes or slots are compared by less than all of their characters."""
        for text in SCRIPTS:
            storage.revise("alice", revision(new_fact(text)), now=NOW)
        assert sorted(contents(storage.facts("alice"))) == sorted(SCRIPTS)

    def test_half_surrogates_cost_nothing_but_themselves(self, storage: Storage) -> None:
        """Fails when half a surrogate pair, which no driver can encode, loses the exchange."""
        odd = "before\ud83dafter"
        stored = storage.record(exchange(said("user", odd, author=odd, metadata={"odd": odd}), reply=odd, model=odd))
        assert contents(storage.messages("alice")) == ["before\ufffdafter"] * 2
        assert storage.messages("alice") == stored
        (fact,) = storage.revise("alice", revision(new_fact(odd, key="odd", slot="odd", object=odd)), now=NOW)
        assert fact.content == fact.object == "before\ufffdafter"
        known = (said("user", odd, author=odd), said("assistant", odd), "More.")
        assert contents(storage.record(exchange(*known, reply=None))) == ["More."]
        storage.record(exchange("Hi.", entity=odd, reply=None))
        assert storage.version(odd) == storage.version("before\ufffdafter") is not None
        assert contents(storage.messages(odd)) == ["Hi."]

    @pytest.mark.parametrize("text", ODD, ids=ascii)
    def test_odd_texts_come_back_exactly(self, storage: Storage, text: str) -> None:
        """Fails when an engine changes, refuses or loses a NUL, spaces at an end, or nothing at all."""
        who: dict[str, Any] = {"entity": f"e{text}", "process": f"p{text}", "session": f"s{text}"}
        message = said("user", text, author=text, metadata={"odd": text})
        stored = storage.record(exchange(message, reply=text, provider=text, model=text, **who))
        assert [(item.content, item.session_id, item.process_id) for item in stored] == [
            (text, f"s{text}", f"p{text}")
        ] * 2
        assert storage.messages(f"e{text}", session_id=f"s{text}") == stored
        assert (stored[0].author, stored[0].metadata) == (text, {"odd": text})
        change = new_fact("x", key=f"k{text}", slot=f"s{text}", subject="x", predicate=text, object="x")
        storage.revise(f"e{text}", revision(change), now=NOW)
        (fact,) = storage.facts(f"e{text}")
        assert (fact.content_hash, fact.slot, fact.predicate) == (f"k{text}", f"s{text}", text)
        known = (message, said("assistant", text), "More.")
        assert contents(storage.record(exchange(*known, reply=None, **who))) == ["More."]

    def test_ten_megabytes(self, storage: Storage) -> None:
        """Fails when a message of 10 MB is cut off or refused."""
        piece = "Größe 🙂 مرحبا\x00 "
        long = piece * (10_000_000 // len(piece.encode()))
        storage.record(exchange(long, reply=None))
        (message,) = storage.messages("alice")
        assert message.content == long

    def test_long_texts_and_vectors(self, storage: Storage) -> None:
        """Fails when a text of a megabyte or a vector of 70 kB is cut off or refused."""
        long = "Größe 🙂 " * 110_000
        stored = storage.record(exchange(long, reply=None, provider="p" * 3000, model="m" * 3000))
        wide = Embedding("wide", np.arange(17_500, dtype=np.float32))
        storage.revise(
            "alice",
            revision(new_fact(long, key="long", slot="long", embedding=wide), message_embeddings={stored[0].id: wide}),
            now=NOW,
        )
        (message,), (fact,) = storage.messages("alice"), storage.facts("alice")
        assert message.content == fact.content == long
        for embedding in (message.embedding, fact.embedding):
            assert embedding is not None
            assert np.array_equal(embedding.vector, wide.vector)

    def test_times_are_utc_to_the_microsecond(self, storage: Storage) -> None:
        """Fails when a time loses its fraction, or its offset is dropped instead of converted."""
        at = datetime(2026, 7, 1, 1, 30, 0, 999999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        early = datetime(1, 1, 1, tzinfo=UTC)
        storage.record(exchange(said("user", "Hi.", at=early), at=at))
        (fact,) = storage.revise("alice", revision(new_fact("x", at=at, until=at + DAY)), now=at)
        times = [item.at for item in storage.messages("alice")]
        assert times == [early, at]
        assert [fact.valid_from, fact.valid_to, fact.recorded_at] == [at, at + DAY, at]
        assert {time.utcoffset() for time in times if time is not None} == {timedelta()}

    # --- identity ---

    def test_entities_do_not_see_each_other(self, storage: Storage) -> None:
        """Fails when a query forgets its entity."""
        storage.record(exchange("I am Alice.", entity="alice"))
        storage.revise("alice", revision(new_fact("is Alice")), now=NOW)
        version = storage.version("alice")
        assert storage.messages("bob") == []
        assert storage.messages("bob", session_id="session-1") == []
        assert storage.facts("bob", statuses=EVERY) == []
        assert storage.version("bob") is None
        assert storage.changes("bob", since=None) is None
        assert storage.changes("bob", since=version) is None
        assert storage.forget("bob") == 0

    def test_ids_are_the_applications_not_row_numbers(self, storage: Storage) -> None:
        """Fails when the entity "2" is taken for the one in row 2."""
        for entity in ("first", "second", "2", "1"):
            storage.record(exchange(f"I am {entity}.", entity=entity, session="1"))
            storage.revise(entity, revision(new_fact(f"is {entity}")), now=NOW)
        for entity in ("first", "second", "2", "1"):
            assert contents(storage.messages(entity, session_id="1"))[0] == f"I am {entity}."
            assert contents(storage.facts(entity)) == [f"is {entity}"]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("alice", "Alice"),
            ("straße", "strasse"),
            ("é", "e\u0301"),
            ("a%", "ab"),
            ("ann", "ann "),
            ("ann ", "ann\t"),
            ("ann", "ann\x00"),
            ("ann ", "ann \x1f"),
            ("\x00", "\x1a0"),
        ],
        ids=ascii,
    )
    def test_ids_are_compared_exactly(self, storage: Storage, one: str, other: str) -> None:
        """Fails when ids that differ in case, accents, form or trailing spaces, or look like patterns, are one."""
        for name in (one, other):
            storage.record(exchange(f"I am {name}.", entity=name, process=name, session=name))
            storage.record(exchange(f"I am in {name}.", entity="alice-and-all", process=name, session=name))
        assert contents(storage.messages(one)) == [f"I am {one}.", "Understood."]
        assert contents(storage.messages(other)) == [f"I am {other}.", "Understood."]
        shared = storage.messages("alice-and-all", session_id=one)
        assert [(item.content, item.process_id) for item in shared[:1]] == [(f"I am in {one}.", one)]
        assert len(shared) == 2

    def test_one_session_id_of_two_entities_is_two_sessions(self, storage: Storage) -> None:
        """Fails when sessions are told apart by their id alone."""
        storage.record(exchange("I am Alice.", reply="Hello.", entity="alice"))
        stored = storage.record(exchange("I am Alice.", said("assistant", "Hello."), "And?", reply="Hi.", entity="bob"))
        assert contents(stored) == ["I am Alice.", "Hello.", "And?", "Hi."]
        assert [item.position for item in stored] == [0, 1, 2, 3]
        assert contents(storage.messages("alice", session_id="session-1")) == ["I am Alice.", "Hello."]

    def test_ids_of_255_characters(self, storage: Storage) -> None:
        """Fails when an id of 255 characters of any script is cut off, or a longer one is accepted and cut off."""
        for name in ("界" * 254 + "a", "界" * 254 + "b", "\U0001f642" * 254 + " ", "\x00" * 255):
            storage.record(exchange("Hi.", entity=name, process=name, session=name))
            assert len(storage.messages(name, session_id=name)) == 2
        for part in ("entity", "process", "session"):
            too_long: dict[str, Any] = {part: "x" * 256}
            with pytest.raises(ValueError, match="255"):
                storage.record(exchange("Hi.", **too_long))

    # --- messages ---

    def test_messages_in_order_of_time_and_position(self, storage: Storage) -> None:
        """Fails when messages are read in the order in which they were stored, or the limit keeps the oldest."""
        storage.record(exchange("Later.", reply="Yes.", at=NOW + DAY, session="late"))
        storage.record(exchange("Earlier.", reply="No.", at=NOW, session="early"))
        assert contents(storage.messages("alice")) == ["Earlier.", "No.", "Later.", "Yes."]
        assert contents(storage.messages("alice", limit=3)) == ["No.", "Later.", "Yes."]
        assert contents(storage.messages("alice", session_id="early", limit=1)) == ["No."]
        assert storage.messages("alice", session_id="none") == []

    # --- jobs ---

    def job(self, storage: Storage, worker: str = "worker", *, now: datetime = NOW) -> Job:
        (job,) = storage.claim(worker, now=now, lease=MINUTE, limit=1)
        return job

    def test_a_job_carries_what_its_exchange_brought(self, storage: Storage) -> None:
        """Fails when a job has messages of another exchange, or not those of its own, in order."""
        storage.record(exchange("One.", reply="First.", id="x1"))
        second = storage.record(
            exchange("One.", said("assistant", "First."), "Two.", reply="Second.", id="x2", at=NOW + DAY)
        )
        storage.record(exchange("Three.", entity="bob", at=NOW + 2 * DAY))
        jobs = storage.claim("worker", now=NOW, lease=MINUTE, limit=10)
        assert [contents(job.messages) for job in jobs] == [
            ["One.", "First."], ["Two.", "Second."], ["Three.", "Understood."],
        ]  # fmt: skip
        assert jobs[1].messages == tuple(second)
        job = jobs[1]
        assert (job.exchange_id, job.entity_id, job.process_id, job.session_id) == (
            "x2",
            "alice",
            "support",
            "session-1",
        )
        assert (job.attempts, job.worker, job.at) == (1, "worker", NOW + DAY)

    def test_claims_go_to_the_oldest_exchange_first(self, storage: Storage) -> None:
        """Fails when jobs are claimed in another order than that of their exchanges, or beyond the limit."""
        for number in (3, 1, 2):
            storage.record(exchange(f"Message {number}.", at=NOW + number * MINUTE, session=f"session-{number}"))
        claimed = storage.claim("worker", now=NOW + DAY, lease=MINUTE, limit=2)
        assert [job.messages[0].content for job in claimed] == ["Message 1.", "Message 2."]
        assert [job.messages[0].content for job in storage.claim("other", now=NOW, lease=MINUTE, limit=2)] == [
            "Message 3."
        ]
        assert storage.claim("third", now=NOW, lease=MINUTE, limit=2) == []

    def test_an_exchange_from_the_future_is_due(self, storage: Storage) -> None:
        """Fails when the work on an exchange waits until the time that the exchange itself has."""
        storage.record(exchange("Hi.", at=NOW + 365 * DAY))
        assert len(storage.claim("worker", now=NOW, lease=MINUTE, limit=1)) == 1

    def test_a_lease_runs_out(self, storage: Storage) -> None:
        """Fails when the work of a worker that died is never given to another, or given away too early."""
        storage.record(exchange("Hi."))
        first = self.job(storage, "first")
        assert storage.claim("second", now=NOW + 0.9 * MINUTE, lease=MINUTE, limit=1) == []
        second = self.job(storage, "second", now=NOW + MINUTE)
        assert (second.id, second.attempts, second.worker) == (first.id, 2, "second")
        assert storage.complete(first, revision(new_fact("too late")), now=NOW) is False
        storage.fail(first, "too late", retry_at=None)
        assert storage.facts("alice") == []
        assert storage.jobs(now=NOW + MINUTE) == JobCounts(running=1)
        assert storage.complete(second, revision(new_fact("in time")), now=NOW) is True
        assert contents(storage.facts("alice")) == ["in time"]

    def test_a_worker_is_no_longer_itself_after_its_lease(self, storage: Storage) -> None:
        """Fails when a worker completes by an old lease what it has claimed again by a new one."""
        storage.record(exchange("Hi."))
        first = self.job(storage)
        again = self.job(storage, now=NOW + MINUTE)
        assert storage.complete(first, revision(new_fact("old")), now=NOW) is False
        assert storage.complete(again, revision(new_fact("new")), now=NOW) is True

    def test_completing_twice_does_it_once(self, storage: Storage) -> None:
        """Fails when a job that is done can be done again."""
        storage.record(exchange("Hi."))
        job = self.job(storage)
        assert storage.complete(job, revision(new_fact("one")), now=NOW) is True
        before = everything(storage, "alice")
        assert storage.complete(job, revision(new_fact("two")), now=NOW) is False
        assert everything(storage, "alice") == before
        assert storage.jobs(now=NOW) == JobCounts(done=1)
        assert storage.claim("worker", now=NOW + DAY, lease=MINUTE, limit=1) == []

    def test_a_revision_that_fails_changes_nothing(self, storage: Storage) -> None:
        """Fails when a job or a memory is left half done by an error."""
        stored = storage.record(exchange("Hi."))
        job = self.job(storage)
        before = everything(storage, "alice")

        def decide(_: Sequence[Fact]) -> Sequence[Change]:
            raise LookupError("no")

        bad = Revision(slots=frozenset(), decide=decide, message_embeddings={stored[0].id: vector(1)})
        with pytest.raises(LookupError):
            storage.complete(job, bad, now=NOW)
        assert everything(storage, "alice") == before
        assert storage.jobs(now=NOW).running == 1
        assert storage.complete(job, revision(new_fact("well")), now=NOW) is True

    def test_a_failed_job_waits_for_its_time(self, storage: Storage) -> None:
        """Fails when a job that failed is claimed before its time, never again, or its error is not told."""
        storage.record(exchange("Hi."))
        storage.fail(self.job(storage), "no answer", retry_at=NOW + 10 * MINUTE)
        counts = storage.jobs(now=NOW)
        assert (counts.pending, counts.running, counts.errors) == (1, 0, ("no answer",))
        assert counts.next_due == NOW + 10 * MINUTE
        assert storage.claim("worker", now=NOW + 9 * MINUTE, lease=MINUTE, limit=1) == []
        job = self.job(storage, now=NOW + 10 * MINUTE)
        assert job.attempts == 2
        assert storage.complete(job, revision(), now=NOW) is True
        assert storage.jobs(now=NOW) == JobCounts(done=1)

    def test_a_job_given_up_can_be_put_back(self, storage: Storage) -> None:
        """Fails when a job that was given up is claimed by itself, or retry does not bring it back afresh."""
        storage.record(exchange("Hi."))
        storage.record(exchange("Hello.", session="session-2", at=NOW + MINUTE))
        storage.fail(self.job(storage), "gave up", retry_at=None)
        assert storage.jobs(now=NOW).failed == 1
        assert [job.session_id for job in storage.claim("w", now=NOW + DAY, lease=MINUTE, limit=9)] == ["session-2"]
        assert storage.retry() == 1
        assert storage.retry() == 0
        assert self.job(storage).attempts == 1

    def test_jobs_given_back_are_as_if_not_claimed(self, storage: Storage) -> None:
        """Fails when work that was handed back waits, counts as tried, or is taken from who has it by now."""
        for number in range(3):
            storage.record(exchange(f"{number}", at=NOW + number * MINUTE))
        jobs = storage.claim("one", now=NOW, lease=MINUTE, limit=3)
        assert storage.complete(jobs[2], revision(), now=NOW)
        storage.release(jobs)
        storage.release([])
        assert (storage.jobs(now=NOW).pending, storage.jobs(now=NOW).done) == (2, 1)
        again = storage.claim("two", now=NOW, lease=MINUTE, limit=3)
        assert [job.id for job in again] == [job.id for job in jobs[:2]]
        assert [job.attempts for job in again] == [1, 1]
        storage.release(jobs)
        assert storage.jobs(now=NOW).running == 2
        assert storage.complete(again[0], revision(), now=NOW)

    def test_a_job_that_its_workers_never_finish_is_leased_alone(self, storage: Storage) -> None:
        """Fails when an exchange that ends its workers goes on taking others with it."""
        for number in range(4):
            storage.record(exchange(f"{number}", at=NOW + number * MINUTE))
        for round_ in range(2):
            storage.claim("w", now=NOW + round_ * DAY, lease=MINUTE, limit=2)
        later = NOW + 2 * DAY
        claims = [storage.claim("w", now=later, lease=MINUTE, limit=4) for _ in range(4)]
        assert [[(contents(job.messages)[0], job.attempts) for job in jobs] for jobs in claims] == [
            [("0", 3)],
            [("1", 3)],
            [("2", 1), ("3", 1)],
            [],
        ]

    def test_jobs_given_up_can_be_listed(self, storage: Storage) -> None:
        """Fails when what was given up cannot be told from what is tried again, or lacks its error."""
        for number in range(4):
            storage.record(exchange(f"{number}", id=f"x{number}", process=None if number else "support"))
        jobs = storage.claim("w", now=NOW, lease=MINUTE, limit=4)
        storage.fail(jobs[0], "not yet", retry_at=NOW + DAY)
        for number in (1, 2, 3):
            storage.fail(jobs[number], f"error {number}", retry_at=None)
        listed = storage.failed(limit=2)
        assert [(job.exchange_id, job.error, job.attempts) for job in listed] == [
            ("x3", "error 3", 1),
            ("x2", "error 2", 1),
        ]
        assert {(job.entity_id, job.process_id, job.session_id) for job in listed} == {("alice", None, "session-1")}
        assert listed[0].failed_at is not None
        assert listed[0].failed_at.tzinfo is not None
        assert len(storage.failed(limit=9)) == 3
        storage.retry()
        assert storage.failed(limit=9) == []

    def test_counts(self, storage: Storage) -> None:
        """Fails when the counts of jobs, or the errors (newest first, at most ten), are wrong."""
        assert storage.jobs(now=NOW) == JobCounts()
        for number in range(14):
            storage.record(exchange("Hi.", session=f"session-{number}", at=NOW + number * MINUTE))
        for number in range(12):
            storage.fail(self.job(storage), f"error {number}", retry_at=None if number % 2 else NOW + DAY)
        self.job(storage)
        counts = storage.jobs(now=NOW)
        assert (counts.pending, counts.running, counts.failed, counts.done) == (7, 1, 6, 0)
        assert counts.errors == tuple(f"error {number}" for number in range(11, 1, -1))
        late = storage.jobs(now=NOW + MINUTE)
        assert (late.pending, late.running) == (8, 0)

    def test_many_workers_share_the_jobs(self, storage: Storage) -> None:
        """Fails when a job is leased to two workers at once, or to none."""
        for number in range(40):
            storage.record(exchange("Hi.", session=f"session-{number}"))

        def work(number: int) -> list[int]:
            mine: list[int] = []
            while jobs := storage.claim(f"worker-{number}", now=NOW, lease=MINUTE, limit=3):
                mine += [job.id for job in jobs]
            return mine

        claimed = Counter(job for mine in at_once(6, work) for job in mine)
        assert len(claimed) == 40
        assert set(claimed.values()) == {1}

    # --- revisions ---

    def test_a_new_fact_comes_back_whole(self, storage: Storage) -> None:
        """Fails when something of a fact is lost or changed."""
        messages = storage.record(exchange("I live in Rome."))
        change = new_fact(
            "The user lives in Rome.",
            slot="slot-1",
            key="hash-1",
            at=NOW - DAY,
            kind="attribute",
            subject="user",
            predicate="lives_in",
            object="Rome",
            subject_type="person",
            object_type="city",
            importance=0.1 + 0.2,
            confidence=1 / 3,
            trust="tool",
            sources=[messages[1].id, messages[0].id],
            embedding=vector(0.25, -1.5),
        )
        (fact,) = storage.revise("alice", revision(change), now=NOW)
        (read,) = storage.facts("alice")
        for item in (fact, read):
            assert item.embedding is not None
            assert item.embedding.model == "model-1"
            assert item.embedding.vector.dtype == np.float32
            assert item.embedding.vector.tolist() == [0.25, -1.5]
        version = storage.version("alice")
        assert version is not None
        assert replace(fact, embedding=None) == replace(read, embedding=None)
        assert replace(fact, embedding=None) == Fact(
            id=fact.id,
            entity_id="alice",
            kind="attribute",
            content="The user lives in Rome.",
            slot="slot-1",
            content_hash="hash-1",
            subject="user",
            predicate="lives_in",
            object="Rome",
            importance=0.1 + 0.2,
            confidence=1 / 3,
            trust="tool",
            status="active",
            valid_from=NOW - DAY,
            recorded_at=NOW,
            last_mentioned_at=NOW,
            sources=(messages[0].id, messages[1].id),
            version=version.number,
        )

    def test_decide_is_given_the_facts_of_its_slots(self, storage: Storage) -> None:
        """Fails when a decision is not given all facts of its slots, of every status, oldest first, and no others."""
        (message, _) = storage.record(exchange("Hi."))
        storage.revise(
            "alice",
            revision(
                new_fact("c", slot="one", at=NOW + DAY, sources=[message.id]),
                new_fact("a", slot="one", at=NOW - DAY, status="quarantined"),
                new_fact("b", slot="two", status="superseded"),
                new_fact("d", slot="three"),
            ),
            now=NOW,
        )
        storage.revise("bob", revision(new_fact("bob's", slot="one")), now=NOW)
        given: list[Fact] = []

        def decide(facts: Sequence[Fact]) -> Sequence[Change]:
            given[:] = facts
            return ()

        storage.revise("alice", Revision(slots=frozenset({"one", "two", "none"}), decide=decide), now=NOW)
        assert contents(given) == ["a", "b", "c"]
        assert [fact.status for fact in given] == ["quarantined", "superseded", "active"]
        assert given[2].sources == (message.id,)

    def test_many_slots_at_once(self, storage: Storage) -> None:
        """Fails when a revision of more slots than a statement takes parameters is refused."""
        changes = [new_fact(f"fact {number}") for number in range(1500)]
        assert len(storage.revise("alice", revision(*changes), now=NOW)) == 1500
        given: list[int] = []

        def decide(facts: Sequence[Fact]) -> Sequence[Change]:
            given.append(len(facts))
            return ()

        storage.revise("alice", Revision(slots=frozenset(change.slot for change in changes), decide=decide), now=NOW)
        assert given == [1500]

    def test_one_fact_of_many_messages(self, storage: Storage) -> None:
        """Fails when more than a thousand rows go into one statement, or some of them are left out."""
        stored = storage.record(exchange(*(f"{number}" for number in range(1100)), reply=None))
        embeddings = {item.id: vector(float(item.position)) for item in stored}
        said = new_fact("counts", sources=[item.id for item in stored])
        (fact,) = storage.revise("alice", revision(said, message_embeddings=embeddings), now=NOW)
        assert fact.sources == tuple(item.id for item in stored)
        embedded = [item.embedding for item in storage.messages("alice")]
        assert [None if item is None else item.vector[0] for item in embedded] == list(range(1100))

    def test_a_retirement_closes_the_fact(self, storage: Storage) -> None:
        """Fails when a retired fact still holds, vanishes, or does not point to the one that took its place."""
        (old,) = storage.revise("alice", revision(new_fact("lives in Rome", at=NOW - DAY)), now=NOW)
        (new,) = storage.revise(
            "alice",
            revision(
                new_fact("lives in Oslo"),
                Retirement(fact_id=old.id, valid_to=NOW, superseded_by="lives in Oslo"),
            ),
            now=NOW,
        )
        assert contents(storage.facts("alice")) == ["lives in Oslo"]
        (closed,) = storage.facts("alice", statuses=("superseded",))
        assert (closed.id, closed.valid_to, closed.superseded_by) == (old.id, NOW, new.id)
        assert closed.version == new.version

    def test_a_late_arrival_points_to_what_holds(self, storage: Storage) -> None:
        """Fails when a fact that is stored as superseded does not find its successor, stored before or beside it."""
        (present,) = storage.revise("alice", revision(new_fact("lives in Oslo")), now=NOW)
        stored = storage.revise(
            "alice",
            revision(
                new_fact("born in Paris", status="superseded", until=NOW - DAY, superseded_by="lives in Rome"),
                new_fact("lives in Rome", status="superseded", until=NOW, superseded_by="lives in Oslo"),
                new_fact("was on Mars", status="superseded", until=NOW, superseded_by="nowhere"),
            ),
            now=NOW,
        )
        assert contents(stored) == ["born in Paris", "lives in Rome", "was on Mars"]
        assert [fact.superseded_by for fact in stored] == [stored[1].id, present.id, None]

    def test_a_fact_that_another_program_knew(self, storage: Storage) -> None:
        """Fails when what is brought from elsewhere loses how often and when it was told there."""
        brought = replace(
            new_fact("old", at=NOW - 9 * DAY),
            mentions=7,
            recorded_at=NOW - 9 * DAY,
            last_mentioned_at=NOW - 2 * DAY,
        )
        (stored,) = storage.revise("alice", revision(brought), now=NOW)
        assert (stored.mentions, stored.recorded_at, stored.last_mentioned_at) == (7, NOW - 9 * DAY, NOW - 2 * DAY)
        (again,) = storage.revise("alice", revision(Mention(fact_id=stored.id, at=NOW)), now=NOW)
        assert (again.mentions, again.recorded_at, again.last_mentioned_at) == (8, NOW - 9 * DAY, NOW)

    def test_what_is_known_of_a_process_is_added_once(self, storage: Storage) -> None:
        """Fails when a process cannot be described before it took part in anything, or a name is stored twice."""
        storage.record(exchange("Hi.", process="support"))
        assert storage.describe("support", {"tone": "formal", "n" * 300: "long"}, now=NOW) == 2
        assert storage.describe("support", {"tone": "casual", "n" * 300: "long", "language": "Greek"}, now=NOW) == 1
        assert storage.describe("new", {"tone": "formal"}, now=NOW) == 1
        assert storage.describe("new", {}, now=NOW) == 0

    def test_a_mention_counts(self, storage: Storage) -> None:
        """Fails when a mention does not count, loses the later time, or adds a source twice."""
        first, second = storage.record(exchange("One.", reply="Two."))
        (fact,) = storage.revise("alice", revision(new_fact("x", sources=[first.id])), now=NOW)
        (later,) = storage.revise(
            "alice", revision(Mention(fact_id=fact.id, at=NOW + DAY, sources=(first.id, second.id))), now=NOW
        )
        assert (later.mentions, later.last_mentioned_at, later.sources) == (2, NOW + DAY, (first.id, second.id))
        assert later.version > fact.version
        (again,) = storage.revise("alice", revision(Mention(fact_id=fact.id, at=NOW - DAY)), now=NOW)
        assert (again.mentions, again.last_mentioned_at) == (3, NOW + DAY)

    def test_a_fact_stored_already_is_mentioned(self, storage: Storage) -> None:
        """Fails when the same content hash makes a second row, or an error."""
        (fact,) = storage.revise("alice", revision(new_fact("x")), now=NOW)
        again = storage.revise("alice", revision(new_fact("x"), new_fact("y"), new_fact("y")), now=NOW + DAY)
        assert [(item.content, item.mentions) for item in again] == [("x", 2), ("y", 2)]
        assert again[0].id == fact.id
        storage.revise("bob", revision(new_fact("x")), now=NOW)
        assert [item.mentions for item in storage.facts("bob")] == [1]

    def test_changes_of_anothers_facts_do_nothing(self, storage: Storage) -> None:
        """Fails when a revision reaches facts or messages of another entity."""
        (hers, _) = storage.record(exchange("I am Alice.", entity="alice"))
        (fact,) = storage.revise("alice", revision(new_fact("x")), now=NOW)
        before = everything(storage, "alice")
        stored = storage.revise(
            "bob",
            revision(
                new_fact("bob's", sources=[hers.id, 10**9]),
                Mention(fact_id=fact.id, at=NOW + DAY, sources=(hers.id,)),
                Retirement(fact_id=fact.id, valid_to=NOW, superseded_by="bob's"),
                message_embeddings={hers.id: vector(1)},
            ),
            now=NOW,
        )
        assert [(item.content, item.sources) for item in stored] == [("bob's", ())]
        assert everything(storage, "alice") == before
        assert storage.messages("alice")[0].embedding is None

    def test_revisions_of_one_entity_follow_each_other(self, storage: Storage) -> None:
        """Fails when two revisions decide on the same state: one of them is lost, or a fact is doubled."""

        def count(facts: Sequence[Fact]) -> Sequence[Change]:
            return [new_fact(f"{len(facts)}", slot="counter")]

        def work(_: int) -> None:
            for _ in range(4):
                storage.revise("alice", Revision(slots=frozenset({"counter"}), decide=count), now=NOW)

        at_once(6, work)
        assert sorted(int(fact.content) for fact in storage.facts("alice")) == list(range(24))

    def test_message_embeddings_are_stored(self, storage: Storage) -> None:
        """Fails when the embeddings that a job brings are lost, or do not count as a change."""
        first, second = storage.record(exchange("One.", reply="Two."))
        before = storage.version("alice")
        job = self.job(storage)
        storage.complete(job, revision(message_embeddings={first.id: vector(1, 2), 10**9: vector(3)}), now=NOW)
        changes = storage.changes("alice", since=before)
        assert changes is not None
        (embedded,) = changes.messages
        assert embedded.id == first.id
        assert embedded.embedding is not None
        assert embedded.embedding.vector.tolist() == [1, 2]
        assert storage.messages("alice")[1].id == second.id
        assert storage.messages("alice")[1].embedding is None

    def test_embeddings_of_any_size_or_none_can_be_read_together(self, storage: Storage) -> None:
        """Fails when one fact with a missing or other embedding keeps the entity from being read."""
        storage.revise(
            "alice",
            revision(
                new_fact("none"),
                new_fact("two", embedding=vector(1, 2)),
                new_fact("three", embedding=vector(1, 2, 3, model="other")),
                new_fact("empty", embedding=vector()),
                new_fact("double", embedding=Embedding("f8", np.array([0.5], dtype=np.float64))),
                new_fact("strided", embedding=Embedding("m", np.arange(6, dtype=np.float32)[::2])),
            ),
            now=NOW,
        )
        read = {fact.content: fact.embedding for fact in storage.facts("alice")}
        assert read["none"] is None
        found = {
            content: item.vector.tolist() for content, item in read.items() if item is not None and item.vector.size
        }
        assert found == {"two": [1, 2], "three": [1, 2, 3], "double": [0.5], "strided": [0, 2, 4]}

    # --- facts ---

    def test_facts_newest_first_and_filtered(self, storage: Storage) -> None:
        """Fails when facts are in another order, or a filter lets others through."""
        storage.revise(
            "alice",
            revision(
                new_fact("old", at=NOW - DAY),
                new_fact("new", at=NOW + DAY, kind="preference"),
                new_fact("tie 1"),
                new_fact("tie 2", kind="rule"),
                new_fact("closed", status="superseded", until=NOW),
                new_fact("held back", status="quarantined"),
            ),
            now=NOW,
        )
        assert contents(storage.facts("alice")) == ["new", "tie 2", "tie 1", "old"]
        assert contents(storage.facts("alice", limit=2)) == ["new", "tie 2"]
        assert contents(storage.facts("alice", kinds=["rule", "preference"])) == ["new", "tie 2"]
        assert storage.facts("alice", kinds=[]) == []
        assert contents(storage.facts("alice", statuses=("quarantined",))) == ["held back"]
        assert len(storage.facts("alice", statuses=EVERY)) == 6

    def test_facts_as_of_a_time(self, storage: Storage) -> None:
        """Fails when the past is asked and the present answers, or a moment belongs to two facts or to none."""
        storage.revise(
            "alice",
            revision(
                new_fact("Rome", at=NOW - 10 * DAY, until=NOW - 5 * DAY, status="superseded"),
                new_fact("Oslo", at=NOW - 5 * DAY),
                new_fact("held back", at=NOW - 20 * DAY, status="quarantined"),
            ),
            now=NOW,
        )

        def held(at: datetime) -> list[str]:
            return contents(storage.facts("alice", as_of=at))

        assert held(NOW - 11 * DAY) == []
        assert held(NOW - 10 * DAY) == ["Rome"]
        assert held(NOW - 5 * DAY - timedelta(microseconds=1)) == ["Rome"]
        assert held(NOW - 5 * DAY) == ["Oslo"]
        assert held(NOW + DAY) == ["Oslo"]

    # --- version, changes ---

    def test_versions_tell_every_change(self, storage: Storage) -> None:
        """Fails when a change of an entity's memory leaves its version as it was, or one of another's raises it."""
        assert storage.version("alice") is None
        assert storage.changes("alice", since=None) is None
        versions = []
        storage.record(exchange("Hi."))
        versions.append(storage.version("alice"))
        (fact,) = storage.revise("alice", revision(new_fact("x")), now=NOW)
        versions.append(storage.version("alice"))
        storage.revise("alice", revision(Mention(fact_id=fact.id, at=NOW)), now=NOW)
        versions.append(storage.version("alice"))
        storage.complete(self.job(storage), revision(new_fact("y")), now=NOW)
        versions.append(storage.version("alice"))
        storage.record(exchange("Hi.", entity="bob"))
        assert storage.version("alice") == versions[-1]
        numbers = [version.number for version in versions if version is not None]
        assert len(numbers) == 4
        assert numbers == sorted(set(numbers))
        assert len({version.generation for version in versions if version is not None}) == 1

    def test_changes_are_what_changed(self, storage: Storage) -> None:
        """Fails when a cache that follows the changes differs from what is stored."""
        messages: dict[int, Any] = {}
        facts: dict[int, Any] = {}
        since: Version | None = None

        def follow() -> tuple[int, int]:
            nonlocal since
            changes = storage.changes("alice", since=since)
            assert changes is not None
            if changes.whole:
                messages.clear()
                facts.clear()
            messages.update((item.id, replace(item, embedding=None)) for item in changes.messages)
            facts.update((item.id, replace(item, embedding=None)) for item in changes.facts)
            since = changes.version
            version, stored, known = everything(storage, "alice")
            assert version == since
            assert sorted(messages.values(), key=lambda item: item.id) == sorted(stored, key=lambda item: item.id)
            assert sorted(facts.values(), key=lambda item: item.id) == sorted(known, key=lambda item: item.id)
            return len(changes.messages), len(changes.facts)

        (first, _) = storage.record(exchange("One."))
        (fact, _) = storage.revise("alice", revision(new_fact("a", sources=[first.id]), new_fact("b")), now=NOW)
        assert follow() == (2, 2)
        assert follow() == (0, 0)
        storage.record(exchange("Two."))
        assert follow() == (2, 0)
        storage.revise(
            "alice",
            revision(new_fact("c"), Retirement(fact_id=fact.id, valid_to=NOW, superseded_by="c")),
            now=NOW,
        )
        assert follow() == (0, 2)
        storage.forget("alice", fact_id=fact.id)
        assert follow() == (4, 2)

    def test_changes_are_by_id(self, storage: Storage) -> None:
        """Fails when changes come in another order than that of their ids."""
        storage.record(exchange("Late.", at=NOW + DAY))
        storage.record(exchange("Early.", at=NOW - DAY))
        storage.revise("alice", revision(new_fact("late", at=NOW + DAY), new_fact("early", at=NOW - DAY)), now=NOW)
        changes = storage.changes("alice", since=None)
        assert changes is not None
        for items in (changes.messages, changes.facts):
            ids = [item.id for item in items]
            assert ids == sorted(ids)

    def test_a_version_that_never_was_gets_everything(self, storage: Storage) -> None:
        """Fails when a cache of another generation, or ahead of a restored database, is told only what is newer."""
        storage.record(exchange("Hi."))
        version = storage.version("alice")
        assert version is not None
        for since in (Version(version.generation + 1, 0), Version(version.generation, version.number + 5)):
            changes = storage.changes("alice", since=since)
            assert changes is not None
            assert changes.whole
            assert len(changes.messages) == 2

    def test_recalled_is_noted_and_changes_no_version(self, storage: Storage) -> None:
        """Fails when a recall is not counted, goes back in time, reaches others, or makes every cache read again."""
        (fact, other) = storage.revise("alice", revision(new_fact("x"), new_fact("y")), now=NOW)
        version = storage.version("alice")
        storage.recalled("alice", [fact.id, 10**9], at=NOW + DAY)
        storage.recalled("alice", [fact.id], at=NOW)
        storage.recalled("bob", [other.id], at=NOW)
        storage.recalled("alice", [], at=NOW)
        read = {item.content: item for item in storage.facts("alice")}
        assert (read["x"].times_recalled, read["x"].last_recalled_at) == (2, NOW + DAY)
        assert (read["y"].times_recalled, read["y"].last_recalled_at) == (0, None)
        assert storage.version("alice") == version

    # --- forget ---

    def test_forgetting_one_fact(self, storage: Storage) -> None:
        """Fails when a fact survives being forgotten, takes others with it, or brings back what it superseded."""
        (message, _) = storage.record(exchange("Hi."))
        (old,) = storage.revise("alice", revision(new_fact("old", sources=[message.id])), now=NOW)
        (new,) = storage.revise(
            "alice",
            revision(new_fact("new"), Retirement(fact_id=old.id, valid_to=NOW, superseded_by="new")),
            now=NOW,
        )
        before = storage.version("alice")
        assert storage.forget("bob", fact_id=new.id) == 0
        assert storage.forget("alice", fact_id=10**9) == 0
        assert storage.version("alice") == before
        assert storage.forget("alice", fact_id=new.id) == 1
        assert storage.forget("alice", fact_id=new.id) == 0
        (left,) = storage.facts("alice", statuses=EVERY)
        assert (left.content, left.status, left.superseded_by, left.sources) == (
            "old",
            "superseded",
            None,
            (message.id,),
        )
        after = storage.version("alice")
        assert before is not None
        assert after is not None
        assert after.generation != before.generation
        assert len(storage.messages("alice")) == 2

    def test_a_number_is_never_given_again(self, storage: Storage) -> None:
        """Fails when a new fact gets the id of one that was forgotten: who still holds it would erase the wrong one."""
        (fact,) = storage.revise("alice", revision(new_fact("x")), now=NOW)
        storage.forget("alice", fact_id=fact.id)
        (other,) = storage.revise("alice", revision(new_fact("y")), now=NOW)
        assert other.id != fact.id

    def test_forgetting_an_entity(self, storage: Storage) -> None:
        """Fails when anything of a forgotten entity is left, or anything of another's goes."""
        for entity in ("alice", "bob"):
            for number in range(3):
                (message, _) = storage.record(exchange(f"Hi {number}.", entity=entity, session=f"session-{number}"))
            storage.revise(
                entity,
                revision(
                    new_fact("a", sources=[message.id], subject="s", predicate="p", object="o"),
                    new_fact("b", status="superseded", superseded_by="a"),
                ),
                now=NOW,
            )
        (job,) = (job for job in storage.claim("w", now=NOW, lease=MINUTE, limit=1))
        assert job.entity_id == "alice"
        kept = everything(storage, "bob")
        assert storage.forget("alice") == 8
        assert storage.forget("alice") == 0
        assert everything(storage, "alice") == (None, [], [])
        assert storage.changes("alice", since=None) is None
        assert storage.complete(job, revision(new_fact("too late")), now=NOW) is False
        assert storage.facts("alice") == []
        assert everything(storage, "bob") == kept
        assert storage.jobs(now=NOW).pending == 3

    def test_an_entity_that_comes_back_is_another(self, storage: Storage) -> None:
        """Fails when a cache takes an entity that was erased and returned for the one it knew."""
        storage.record(exchange("My secret.", id="secret"))
        before = storage.version("alice")
        storage.forget("alice")
        storage.record(exchange("Something new."))
        after = storage.version("alice")
        assert before is not None
        assert after is not None
        assert after.generation != before.generation
        changes = storage.changes("alice", since=before)
        assert changes is not None
        assert changes.whole
        assert contents(changes.messages) == ["Something new.", "Understood."]

    # --- many at once ---

    def test_sixteen_threads_and_a_new_entity(self, storage: Storage) -> None:
        """Fails when several who store the first exchange of one entity, process and session lose any of them."""

        def work(number: int) -> int:
            return len(storage.record(exchange(f"Message {number}.", reply=f"Reply {number}.", process="new")))

        assert at_once(16, work) == [2] * 16
        stored = storage.messages("alice")
        assert sorted(item.position for item in stored) == list(range(32))
        assert len({item.content for item in stored}) == 32
        assert storage.jobs(now=NOW).pending == 16

    def test_one_exchange_handed_in_by_many(self, storage: Storage) -> None:
        """Fails when an exchange that several threads hand in at once is stored more than once, or not at all."""
        same = exchange("I live in Rome.")
        counts = at_once(8, lambda _: len(storage.record(same)))
        assert sorted(counts) == [0] * 7 + [2]
        assert len(storage.messages("alice")) == 2

    def test_many_entities_at_once(self, storage: Storage) -> None:
        """Fails when threads that work for several entities mix them up, or stand in each other's way."""

        def work(number: int) -> None:
            entity = f"entity-{number % 4}"
            for turn in range(5):
                storage.record(exchange(f"{entity}: {number}.{turn}", reply=None, entity=entity, session=f"{number}"))
                storage.revise(entity, revision(new_fact(f"{entity}: {number}.{turn}")), now=NOW)
                assert storage.version(entity) is not None

        at_once(8, work)
        for number in range(4):
            entity = f"entity-{number}"
            assert len(storage.messages(entity)) == len(storage.facts(entity)) == 10
            assert all(text.startswith(entity) for text in contents(storage.messages(entity)))
            assert all(text.startswith(entity) for text in contents(storage.facts(entity)))
            version = storage.version(entity)
            assert version is not None
            assert version.number == 20
