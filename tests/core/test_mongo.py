"""Storage in MongoDB: what a crash between any two writes leaves, who may connect how, and servers that come and go."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from databases import mongodb, needs_mongodb

pytest.importorskip("pymongo.database")

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from memori.errors import ForeignSchemaError, NotBuiltError, StorageError
from memori.schema.collections import ENTITY, ERASED, FACT, ITEM, JOB, JOURNAL, MESSAGE, SCHEMA, SESSION
from memori.storage.deployment import Deployment
from memori.storage.journal import Journal
from memori.storage.mongo import MongoStorage
from memori.testing.storage import EVERY, MINUTE, NOW, at_once, exchange, new_fact, revision, said
from memori.types import Exchange, Mention, NewItem, Retirement

pytestmark = needs_mongodb

Client = MongoClient[dict[str, Any]]
MEGABYTE = 1024 * 1024


class Killed(BaseException):
    """What a process does not catch: it goes."""


class Axe(CommandListener):
    """Kills whoever sends one command too many: at the moment it would be sent, all before it being done."""

    def __init__(self) -> None:
        self.left: float = float("inf")

    def started(self, event: CommandStartedEvent) -> None:
        if self.left < 1:
            raise Killed(event.command_name)
        self.left -= 1

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture
def empty() -> Iterator[Database[dict[str, Any]]]:
    """Return a database that was not built."""
    with mongodb() as database:
        yield database


@pytest.fixture
def database(empty: Database[dict[str, Any]]) -> Database[dict[str, Any]]:
    MongoStorage(empty, busy_timeout_s=30.0).build()
    return empty


@pytest.fixture
def storage(database: Database[dict[str, Any]]) -> MongoStorage:
    return MongoStorage(database, busy_timeout_s=30.0)


def again(database: Database[dict[str, Any]], **options: Any) -> Client:
    """Return another client of the same server, as another process has it."""
    host, port = database.client.address or ("", 0)
    return MongoClient(host, port, **options)


def deaths(
    database: Database[dict[str, Any]], work: Callable[[MongoStorage, str], object], entity: str
) -> Iterator[str]:
    """Yield an entity for each command of *work* at which its process may die, after it died there.

    Args:
        work: Is given a storage and the entity. Only the last time does it come to its end.
        entity: What the entities' names begin with.
    """
    for commands in range(1, 100):
        axe = Axe()
        client = again(database, event_listeners=[axe])
        name = f"{entity}-{commands}"
        doomed = MongoStorage(client[database.name], busy_timeout_s=30.0)
        try:
            doomed.version(name)  # Connected, and the schema looked at.
            axe.left = commands
            work(doomed, name)
        except Killed:
            axe.left = float("inf")
            yield name
        else:
            assert commands > 3
            return
        finally:
            axe.left = float("inf")
            client.close()
    raise AssertionError("it sends commands without end")


def left_of(database: Database[dict[str, Any]], row: int) -> dict[str, int]:
    counts = {
        name: database[name].count_documents({"entity_id": row}) for name in (MESSAGE, FACT, JOB, SESSION, JOURNAL)
    }
    return {name: count for name, count in counts.items() if count}


def contents(items: Any) -> list[str]:
    return [item.content for item in items]


@pytest.mark.parametrize("size", [20, MEGABYTE])
@pytest.mark.parametrize("known", [False, True], ids=["new entity", "known entity"])
def test_a_death_while_recording_loses_nothing_and_doubles_nothing(
    database: Database[dict[str, Any]], storage: MongoStorage, size: int, known: bool
) -> None:
    """Fails when an exchange can be half stored, or stored again when it is handed in again after a crash."""
    brought: dict[str, Exchange] = {}

    def work(doomed: MongoStorage, name: str) -> None:
        if known and name not in brought:
            storage.record(exchange("Before.", reply="Yes.", entity=name))
            storage.claim("w", now=NOW, lease=MINUTE, limit=99)
        brought[name] = exchange("x" * size, reply="Understood.", entity=name)
        doomed.record(brought[name])

    before = ["Before.", "Yes."] if known else []
    for name in deaths(database, work, f"record-{size}-{known}"):
        seen = contents(storage.messages(name))
        assert seen in (before, [*before, "x" * size, "Understood."])
        waiting = storage.jobs(now=NOW).pending
        assert waiting == (1 if len(seen) > len(before) else 0)
        assert len(storage.record(brought[name])) == (0 if waiting else 2)
        messages = storage.messages(name)
        assert contents(messages) == [*before, "x" * size, "Understood."]
        assert [item.position for item in messages] == list(range(len(messages)))
        (job,) = storage.claim("w", now=NOW, lease=MINUTE, limit=99)
        assert job.messages == tuple(messages[-2:])
        storage.complete(job, revision(), now=NOW)


def test_a_death_while_augmenting_loses_no_fact_and_doubles_none(
    database: Database[dict[str, Any]], storage: MongoStorage
) -> None:
    """Fails when a job whose worker died leaves half of its facts, or yields them once more when done again."""
    facts: dict[str, int] = {}

    def work(doomed: MongoStorage, name: str) -> None:
        storage.record(exchange("I moved to Oslo.", entity=name))
        (rome,) = storage.revise(name, revision(new_fact("Rome", slot="city")), now=NOW)
        (tea,) = storage.revise(name, revision(new_fact("tea")), now=NOW)
        facts[name] = tea.id
        (job,) = doomed.claim("doomed", now=NOW, lease=MINUTE, limit=9)
        doomed.complete(job, change(rome.id, tea.id), now=NOW)

    def change(rome: int, tea: int) -> Any:
        return revision(
            new_fact("Oslo", slot="city"),
            Retirement(fact_id=rome, valid_to=NOW, superseded_by="Oslo"),
            Mention(fact_id=tea, at=NOW),
            attributes={"tone": "kind"},
        )

    for name in deaths(database, work, "complete"):
        later = NOW + 2 * MINUTE
        for job in storage.claim("next", now=later, lease=MINUTE, limit=9):
            (rome,) = (fact.id for fact in storage.facts(name, statuses=EVERY) if fact.content == "Rome")
            # Done by the first already, unless that died before it had committed.
            storage.complete(job, change(rome, facts[name]), now=later)
        state = {fact.content: (fact.status, fact.mentions) for fact in storage.facts(name, statuses=EVERY)}
        assert state == {"Rome": ("superseded", 1), "Oslo": ("active", 1), "tea": ("active", 2)}
        assert len(storage.facts(name, statuses=EVERY)) == 3
        counts = storage.jobs(now=later)
        assert (counts.pending, counts.running) == (0, 0)
    assert database["memori_process_attribute"].find_one({"name": "tone"}, {"mentions": 1, "_id": 0}) == {
        "mentions": len(facts)
    }


def test_a_death_while_forgetting_can_be_made_good(database: Database[dict[str, Any]], storage: MongoStorage) -> None:
    """Fails when what was to be erased comes back, or is there in part, after a crash."""
    rows: dict[str, int] = {}

    def work(doomed: MongoStorage, name: str) -> None:
        (message, _) = storage.record(exchange("y" * MEGABYTE, entity=name))
        storage.revise(name, revision(new_fact("secret", sources=[message.id])), now=NOW)
        found = database[ENTITY].find_one({"external_id": name})
        assert found is not None
        rows[name] = found["_id"]
        doomed.forget(name)

    for name in deaths(database, work, "forget"):
        assert len(contents(storage.messages(name))) in (0, 2)
        assert storage.forget(name) in (0, 3)
        assert storage.version(name) is None
        assert left_of(database, rows[name]) == {}
    assert all(left_of(database, row) == {} for row in rows.values())


def test_a_death_while_forgetting_one_fact(database: Database[dict[str, Any]], storage: MongoStorage) -> None:
    """Fails when a fact is forgotten in part: gone, but still pointed to, or the other way round."""

    def work(doomed: MongoStorage, name: str) -> None:
        (old,) = storage.revise(name, revision(new_fact("old")), now=NOW)
        (new,) = storage.revise(
            name, revision(new_fact("new"), Retirement(fact_id=old.id, valid_to=NOW, superseded_by="new")), now=NOW
        )
        doomed.forget(name, fact_id=new.id)

    for name in deaths(database, work, "fact"):
        state = {fact.content: fact.superseded_by is None for fact in storage.facts(name, statuses=EVERY)}
        assert state in ({"old": False, "new": True}, {"old": True})


def test_a_death_while_storing_documents(database: Database[dict[str, Any]], storage: MongoStorage) -> None:
    """Fails when some of the application's documents are stored and the others are not."""
    old = {"a": {"n": 0}, "b": {"n": 0}, "large": {"text": "x" * MEGABYTE}}
    young = {"a": {"n": 1}, "c": {"n": 1}, "large": {"text": "y" * MEGABYTE}}

    def put(name: str, values: dict[str, Any]) -> list[NewItem]:
        return [NewItem(namespace=(name,), key=key, value=value) for key, value in values.items()]

    def work(doomed: MongoStorage, name: str) -> None:
        storage.items.write(put(name, old), now=NOW)
        doomed.items.write(put(name, young), [((name,), "b")], now=NOW)

    for name in deaths(database, work, "items"):
        there = {item.key: item.value for item in storage.items.find((name,), now=NOW)}
        assert there in (old, young)
        storage.items.write(put(name, young), [((name,), "b")], now=NOW)
        assert {item.key: item.value for item in storage.items.find((name,), now=NOW)} == young
    assert storage.items.erase(()) > 0
    assert database[ITEM].count_documents({"key": {"$exists": True}}) == 0


def test_what_is_forgotten_is_in_no_journal_of_who_died(
    database: Database[dict[str, Any]], storage: MongoStorage
) -> None:
    """Fails when a large fact that was forgotten lives on in what a process that died was about to write."""
    secret = "s" * MEGABYTE
    change = revision(new_fact(secret, key="k", slot="s"))
    dead = list(deaths(database, lambda doomed, name: doomed.revise(name, change, now=NOW), "journal"))
    assert database[JOURNAL].count_documents({}) > 0
    for name in dead:
        (fact,) = storage.facts(name) or storage.revise(name, change, now=NOW)
        storage.forget(name, fact_id=fact.id)
    known = [found["_id"] for found in database[ENTITY].find()]
    assert database[JOURNAL].count_documents({"entity_id": {"$in": known}}) == 0


class TestLate:
    """A process that committed, slept while others did the rest and more, and then wakes up."""

    def committed(self, database: Database[dict[str, Any]], storage: MongoStorage, name: str, work: Any) -> Any:
        """Return the document of the entity at the moment *work* has committed."""
        for axed in deaths(database, work, name):
            found = database[ENTITY].find_one({"external_id": axed})
            if found is not None and found["pending"] is not None:
                return found
        raise AssertionError("it never commits")

    def wake(self, database: Database[dict[str, Any]], entity: Any) -> None:
        with Deployment(database, timeout_s=30.0).working() as collections:
            Journal(collections).carry_out(entity)

    def test_an_erased_entity_stays_erased(self, database: Database[dict[str, Any]], storage: MongoStorage) -> None:
        """Fails when a process that was suspended while recording brings back what was erased meanwhile."""
        entity = self.committed(
            database, storage, "late", lambda doomed, name: doomed.record(exchange("secret", entity=name))
        )
        assert storage.forget(entity["external_id"]) == 2
        self.wake(database, entity)
        assert storage.version(entity["external_id"]) is None
        assert left_of(database, entity["_id"]) == {}
        assert database[ERASED].find_one(entity["_id"]) == {"_id": entity["_id"]}

    def test_a_forgotten_fact_stays_forgotten(self, database: Database[dict[str, Any]], storage: MongoStorage) -> None:
        """Fails when a process that was suspended while storing a fact brings it back after it was forgotten."""
        entity = self.committed(
            database,
            storage,
            "late-fact",
            lambda doomed, name: doomed.revise(name, revision(new_fact("secret"), new_fact("tea")), now=NOW),
        )
        name = entity["external_id"]
        (secret,) = (fact for fact in storage.facts(name) if fact.content == "secret")
        assert storage.forget(name, fact_id=secret.id) == 1
        self.wake(database, entity)
        assert contents(storage.facts(name, statuses=EVERY)) == ["tea"]
        assert database[FACT].count_documents({"content": "secret", "entity_id": entity["_id"]}) == 0

    def test_newer_values_stay(self, database: Database[dict[str, Any]], storage: MongoStorage) -> None:
        """Fails when a process that was suspended overwrites what others decided after it."""

        def work(doomed: MongoStorage, name: str) -> None:
            (fact,) = storage.revise(name, revision(new_fact("tea")), now=NOW)
            doomed.revise(name, revision(Mention(fact_id=fact.id, at=NOW)), now=NOW)

        entity = self.committed(database, storage, "late-mention", work)
        name = entity["external_id"]
        (fact,) = storage.facts(name)
        assert fact.mentions == 2
        storage.revise(name, revision(Mention(fact_id=fact.id, at=NOW)), now=NOW)
        self.wake(database, entity)
        (fact,) = storage.facts(name)
        assert fact.mentions == 3

    def test_what_died_late_is_swept_up_by_build(
        self, database: Database[dict[str, Any]], storage: MongoStorage
    ) -> None:
        """Fails when what a late process brought back before it died is there for good."""
        storage.record(exchange("secret", entity="swept"))
        found = database[ENTITY].find_one({"external_id": "swept"})
        assert found is not None
        zombie = database[MESSAGE].find_one({"entity_id": found["_id"]})
        assert zombie is not None
        storage.forget("swept")
        database[MESSAGE].insert_one(zombie)
        storage.build()
        assert left_of(database, found["_id"]) == {}


def test_content_of_ten_megabytes_comes_back(storage: MongoStorage) -> None:
    """Fails when a message or a fact of 10 MB is refused or cut off."""
    text = "é" * (5 * MEGABYTE)
    storage.record(exchange(text, reply=text, entity="large"))
    storage.revise("large", revision(new_fact(text, key="large", slot="large")), now=NOW)
    assert [item.content == text for item in storage.messages("large")] == [True, True]
    assert [fact.content == text for fact in storage.facts("large")] == [True]


def test_content_beyond_a_document_is_refused_whole(storage: MongoStorage) -> None:
    """Fails when MongoDB's limit is not told, or an exchange beyond it is stored in part."""
    with pytest.raises(StorageError, match="16 MiB"):
        storage.record(exchange("z" * (17 * MEGABYTE), entity="too large"))
    assert storage.version("too large") is None
    assert len(storage.record(exchange("Smaller.", entity="too large"))) == 2


def test_a_job_is_claimed_by_one_of_many_processes_clients(database: Database[dict[str, Any]]) -> None:
    """Fails when two workers with connections of their own are given the same job."""
    clients = [again(database) for _ in range(4)]
    storages = [MongoStorage(client[database.name], busy_timeout_s=30.0) for client in clients]
    ids = {f"claimed-{number}" for number in range(24)}
    for number, id in enumerate(sorted(ids)):
        storages[0].record(exchange("Hi.", entity=f"claims-{number % 5}", id=id))

    def work(number: int) -> list[str]:
        mine: list[str] = []
        while jobs := storages[number].claim(f"worker-{number}", now=NOW, lease=MINUTE, limit=2):
            mine += [job.exchange_id for job in jobs if job.exchange_id in ids]
        return mine

    claimed = [id for mine in at_once(4, work) for id in mine]
    assert sorted(claimed) == sorted(ids)
    for client in clients:
        client.close()


def test_many_processes_clients_write_to_one_entity(database: Database[dict[str, Any]]) -> None:
    """Fails when writers that share no lock but the database's lose or double anything of one entity."""
    clients = [again(database) for _ in range(4)]
    storages = [MongoStorage(client[database.name], busy_timeout_s=30.0) for client in clients]

    def work(number: int) -> None:
        for turn in range(5):
            storages[number].record(exchange(f"{number}.{turn}", reply=None, entity="shared", session="one"))
            storages[number].revise("shared", revision(new_fact(f"{number}.{turn}")), now=NOW)

    at_once(4, work)
    wanted = sorted(f"{number}.{turn}" for number in range(4) for turn in range(5))
    messages = storages[0].messages("shared")
    assert sorted(contents(messages)) == sorted(contents(storages[0].facts("shared"))) == wanted
    assert sorted(item.position for item in messages) == list(range(20))
    version = storages[0].version("shared")
    assert version is not None
    assert version.number == 40
    for client in clients:
        client.close()


class TestBuild:
    def test_a_database_that_was_not_built_says_so(self, empty: Database[dict[str, Any]]) -> None:
        """Fails when MongoDB, which makes collections unasked, is written to before it was built."""
        storage = MongoStorage(empty)
        for work in (
            lambda: storage.record(exchange("Hi.")),
            lambda: storage.version("alice"),
            lambda: storage.jobs(now=NOW),
            lambda: storage.claim("w", now=NOW, lease=MINUTE, limit=1),
        ):
            with pytest.raises(NotBuiltError, match="build"):
                work()
        assert empty.list_collection_names() == []

    def test_a_database_that_was_dropped_says_so(self, empty: Database[dict[str, Any]]) -> None:
        """Fails when a database that vanished under a running program is written to as if it were built."""
        storage = MongoStorage(empty)
        storage.build()
        storage.record(exchange("Hi."))
        empty.client.drop_database(empty)
        with pytest.raises(NotBuiltError):
            storage.record(exchange("Hi."))
        with pytest.raises(NotBuiltError):
            storage.jobs(now=NOW)

    def test_many_build_at_once(self, empty: Database[dict[str, Any]]) -> None:
        """Fails when processes that start together stand in each other's way."""

        def work(number: int) -> int:
            storage = MongoStorage(empty, busy_timeout_s=30.0)
            storage.build()
            return len(storage.record(exchange(f"{number}", entity=f"{number}")))

        assert at_once(8, work) == [2] * 8
        assert empty[SCHEMA].count_documents({}) == 1

    def test_a_newer_database_is_refused(self, empty: Database[dict[str, Any]]) -> None:
        """Fails when an older memori writes to a database whose collections it does not know."""
        MongoStorage(empty).build()
        empty[SCHEMA].update_one({}, {"$set": {"version": 99}})
        storage = MongoStorage(empty)
        for work in (storage.build, lambda: storage.record(exchange("Hi."))):
            with pytest.raises(StorageError, match=r"99.*upgrade memori"):
                work()

    def test_another_programs_collections_are_left_alone(self, empty: Database[dict[str, Any]]) -> None:
        """Fails when memori mixes its documents into collections of the same name."""
        empty["memori_entity"].insert_one({"_id": 1})
        with pytest.raises(ForeignSchemaError, match="memori_entity"):
            MongoStorage(empty).build()
        assert empty.list_collection_names() == ["memori_entity"]
        assert list(empty["memori_entity"].find()) == [{"_id": 1}]

    def test_what_was_never_committed_is_swept_up(self, empty: Database[dict[str, Any]]) -> None:
        """Fails when a large exchange of a process that died before its commit stays, or one on its way goes."""
        storage = MongoStorage(empty)
        storage.build()
        empty[JOURNAL].insert_one({"_id": "old", "token": "old", "part": 0, "entity_id": 1, "written_at": 0})
        fresh = {"_id": "new", "token": "new", "part": 0, "entity_id": 2, "written_at": 1 << 60}
        empty[JOURNAL].insert_one(fresh)
        storage.build()
        assert [found["_id"] for found in empty[JOURNAL].find()] == ["new"]


def test_what_people_said_is_in_no_error(database: Database[dict[str, Any]]) -> None:
    """Fails when a failure that is logged tells what was being stored."""
    storage, secret = MongoStorage(database), f"hunter{1 + 1}"
    with pytest.raises(StorageError) as caught:
        storage.revise("errors", revision(new_fact(secret, kind=cast("Any", object()))), now=NOW)
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_a_reply_that_was_stored_by_another_is_not_stored_again(storage: MongoStorage) -> None:
    """Fails when an exchange whose commit was acknowledged to nobody is stored again under its id."""
    once = exchange(said("user", "Hi."), entity="again")
    assert len(storage.record(once)) == 2
    assert storage.record(replace(once, at=NOW + timedelta(days=1))) == []
