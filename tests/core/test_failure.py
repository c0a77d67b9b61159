"""Memory never harms the call, and nothing captured is lost: databases that fail, and come back."""

from __future__ import annotations

import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from memori import Memori, MemoriError, Settings
from memori.testing.provider import ProviderServer, Reply

BOUND_S = 0.25
QUICK = Settings(retry_max_s=0.5)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def client(server: ProviderServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url + "/v1", api_key="local", max_retries=0) as client:
        yield client


def call(client: OpenAI, text: str = "I live in Rome.") -> str | None:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def wait_for(what: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


class Database:
    """A SQLite file that can be taken away and given back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mode = "rwc"
        self.locker: subprocess.Popen[str] | None = None

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.path}?mode={self.mode}", uri=True, timeout=0.5)

    def build(self) -> None:
        with Memori(conn=self.connect, worker=False) as memori:
            memori.config.storage.build()

    def lock(self) -> None:
        # Another process, as two connections of one process share what they know of a file.
        code = (
            "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]); connection.execute('BEGIN EXCLUSIVE'); "
            "print(1, flush=True); sys.stdin.read()"
        )
        self.locker = subprocess.Popen(
            [sys.executable, "-c", code, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.locker.stdout is not None
        assert self.locker.stdout.readline() == "1\n"

    def unlock(self) -> None:
        assert self.locker is not None
        self.locker.communicate()
        self.locker = None

    def delete(self) -> None:
        for path in self.path.parent.glob(self.path.name + "*"):
            path.unlink()

    def make_read_only(self) -> None:
        self.mode = "ro"

    def make_writable(self) -> None:
        self.mode = "rwc"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "memori.db")
    yield database
    if database.locker is not None:
        database.unlock()


FAILURES: dict[str, tuple[Callable[[Database], None], Callable[[Database], None]]] = {
    "unbuilt": (lambda database: None, lambda database: database.build()),
    "deleted": (lambda database: database.delete(), lambda database: database.build()),
    "locked": (lambda database: database.lock(), lambda database: database.unlock()),
    "read-only": (lambda database: database.make_read_only(), lambda database: database.make_writable()),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_database_neither_breaks_nor_delays_the_call(
    database: Database, client: OpenAI, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when a call raises, waits longer than it may, or its exchange is not stored once the database is back."""
    break_it, mend_it = FAILURES[failure]
    plain = statistics.median(seconds(lambda: call(client)) for _ in range(5))
    # These two are so from the beginning: sqlite3 would go on writing by a connection that was opened before.
    from_the_start = failure in ("unbuilt", "read-only")
    if failure == "unbuilt":
        database.connect().close()
    else:
        database.build()
    if from_the_start:
        break_it(database)
    with Memori(conn=database.connect, settings=QUICK) as memori:
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        if not from_the_start:
            call(client, "The first, while all is well.")
            assert memori.messages()[0].content == "The first, while all is well."
            break_it(database)
        with caplog.at_level(logging.WARNING, logger="memori"):
            took = [seconds(partial(call, client, f"Call {number}.")) for number in range(5)]
            assert statistics.median(took) - plain < BOUND_S, took
            wait_for(lambda: memori.status().failures > 0)
        assert memori.status().last_failure
        assert any(record.name == "memori" and record.levelno >= logging.WARNING for record in caplog.records)
        assert memori.status().pending == 5
        mend_it(database)
        wait_for(lambda: memori.status().pending == 0)
        said = [item.content for item in memori.messages() if item.role == "user"]
        assert said[-5:] == [f"Call {number}." for number in range(5)]
        assert memori.augmentation.wait(30)


@pytest.mark.timeout(120)
def test_a_database_locked_for_ten_seconds_costs_no_call_more_than_its_bound(
    database: Database, client: OpenAI
) -> None:
    """Fails when a long lock holds any call up, or when one of its exchanges is lost or stored out of order."""
    database.build()
    plain = statistics.median(seconds(lambda: call(client)) for _ in range(5))
    with Memori(conn=database.connect, settings=QUICK) as memori:
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        database.lock()
        end = time.monotonic() + 10
        took: list[float] = []
        while time.monotonic() < end:
            took.append(seconds(partial(call, client, f"Call {len(took)}.")))
            time.sleep(0.2)
        database.unlock()
        assert sorted(took)[-2] - plain < BOUND_S, took
        wait_for(lambda: memori.status().pending == 0)
        said = [item.content for item in memori.messages() if item.role == "user"]
        assert said == [f"Call {number}." for number in range(len(took))]


def test_a_closed_connection_costs_the_call_nothing(client: OpenAI) -> None:
    """Fails when a connection that the user closed makes the call raise."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    # No worker: Python's sqlite3 crashes when a connection is closed in the middle of another thread's query.
    with Memori(conn=connection, worker=False) as memori:
        memori.llm.register(client)
        memori.config.storage.build()
        memori.attribution(entity_id="alice")
        assert call(client) == "Understood."
        connection.close()
        assert call(client) == "Understood."
        wait_for(lambda: memori.status().failures > 0)
        assert memori.status().pending == 1


def test_a_connection_to_a_file_may_be_closed_at_once(tmp_path: Path, client: OpenAI) -> None:
    """Fails when memori depends on a connection that its user no longer wants."""
    connection = sqlite3.connect(tmp_path / "memori.db")
    with Memori(conn=connection) as memori:
        memori.llm.register(client)
        memori.config.storage.build()
        memori.attribution(entity_id="alice")
        connection.close()
        call(client)
        assert len(memori.messages()) == 2
        assert memori.status().failures == 0


def test_answers_with_less_are_counted(tmp_path: Path) -> None:
    """Fails when an embedder that is down, and recall by words alone because of it, cannot be seen from outside."""

    def broken(texts: list[str]) -> list[list[float]]:
        raise ConnectionError("no embeddings today")

    with Memori(conn=str(tmp_path / "memori.db"), embedder=broken, worker=False) as memori:
        memori.config.storage.build()
        memori.remember("Likes tea.", entity_id="alice")
        assert memori.recall("tea", entity_id="alice")[0].content == "Likes tea."
        recall = memori.status().recall
        assert (recall.entities, recall.words_only_answers, recall.stale_answers) == (1, 1, 0)
        assert recall.bytes > 0


def test_an_unreachable_server_costs_the_call_nothing(client: OpenAI, tmp_path: Path) -> None:
    """Fails when a database that cannot be opened at all makes the call, or the constructor, raise."""
    with Memori(conn=f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}", settings=QUICK) as memori:
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        assert call(client) == "Understood."
        wait_for(lambda: memori.status().failures > 0)
        assert memori.status().augmentation is None
        memori.config.close_timeout_s = 0.1


def test_the_spool_survives_a_crash(database: Database, server: ProviderServer, tmp_path: Path) -> None:
    """Fails when an exchange whose call returned is gone after a crash although there was a spool."""
    database.build()
    database.lock()
    code = """
import os, sys
from memori import Memori
from openai import OpenAI
client = OpenAI(base_url=sys.argv[2], api_key="local")
memori = Memori(conn=sys.argv[1], spool=sys.argv[3]).llm.register(client)
memori.attribution(entity_id="alice")
for number in range(3):
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"Call {number}."}])
os.kill(os.getpid(), 9)
"""
    spool = tmp_path / "spool"
    command = [sys.executable, "-c", code, f"sqlite:///{database.path}", server.url + "/v1", str(spool)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -9, killed.stderr
    assert len(list(spool.glob("*.json"))) == 3
    database.unlock()
    with Memori(conn=database.connect, spool=spool, settings=QUICK) as memori:
        wait_for(lambda: memori.status().spooled == 0)
        said = [item.content for item in memori.messages(entity_id="alice") if item.role == "user"]
        assert said == ["Call 0.", "Call 1.", "Call 2."]


def test_what_is_held_is_bounded_and_what_is_lost_is_counted(client: OpenAI, tmp_path: Path) -> None:
    """Fails when a database that stays down fills the memory, or when a loss is passed over in silence."""
    with Memori(conn=f"sqlite:///{tmp_path / 'no' / 'folder.db'}", settings=Settings(pending_limit=3)) as memori:
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        for number in range(5):
            call(client, f"Call {number}.")
        assert (memori.status().pending, memori.status().lost) == (3, 2)
        memori.config.close_timeout_s = 0.1


def test_more_than_the_bound_goes_to_the_spool(database: Database, client: OpenAI, tmp_path: Path) -> None:
    """Fails when what does not fit into memory is lost although there is a spool."""
    database.build()
    database.lock()
    with Memori(
        conn=database.connect, settings=Settings(pending_limit=2, retry_max_s=0.5), spool=tmp_path / "spool"
    ) as memori:
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        for number in range(5):
            call(client, f"Call {number}.")
        assert (memori.status().lost, memori.status().spooled) == (0, 5)
        database.unlock()
        wait_for(lambda: memori.status().spooled == 0)
        said = {item.content for item in memori.messages() if item.role == "user"}
        assert said == {f"Call {number}." for number in range(5)}


def test_a_file_that_cannot_be_removed_from_the_spool_stops_nothing(
    database: Database, client: OpenAI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when the one file ends the thread that stores, or is not told of."""
    database.build()
    database.lock()
    with Memori(conn=database.connect, settings=QUICK, spool=tmp_path / "spool") as memori:
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        call(client, "Call 0.")
        wait_for(lambda: memori.status().spooled == 1)
        (spooled,) = (tmp_path / "spool").glob("*.json")
        spooled.unlink()
        spooled.mkdir()  # What nobody can unlink, root included.
        database.unlock()
        wait_for(lambda: memori.status().pending == 0)
        call(client, "Call 1.")
        wait_for(lambda: memori.status().pending == 0)
        assert [item.content for item in memori.messages() if item.role == "user"] == ["Call 0.", "Call 1."]
        # A call on a busy machine may have failed later, for its own reason.
        assert any(record.getMessage().startswith("spooling") for record in caplog.records)


def test_a_file_that_cannot_be_read_in_the_spool_is_passed_over(database: Database, tmp_path: Path) -> None:
    """Fails when the one file keeps an application from starting, or is not told of."""
    database.build()
    (tmp_path / "spool" / "one.json").mkdir(parents=True)
    with Memori(conn=database.connect, spool=tmp_path / "spool") as memori:
        assert "one.json" in str(memori.status().last_failure)
        assert memori.messages(entity_id="alice") == []


def test_a_failing_extractor_fails_no_call_and_is_told(tmp_path: Path, client: OpenAI) -> None:
    """Fails when an extractor's error reaches the call, or when `wait` hides it."""

    def broken(messages: Any) -> Any:
        raise RuntimeError("the extractor is broken")

    settings = Settings(augmentation_attempts=2, retry_min_s=0.01)
    with Memori(conn=f"sqlite:///{tmp_path / 'memori.db'}", extractor=broken, settings=settings) as memori:
        memori.config.storage.build()
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        assert call(client) == "Understood."
        assert memori.augmentation.wait(30) is False
        counts = memori.augmentation.status()
        assert (counts.failed, counts.pending) == (1, 0)
        assert "the extractor is broken" in counts.errors[0]
        assert len(memori.messages()) == 2


def test_what_was_given_up_can_be_taken_up_again(tmp_path: Path, client: OpenAI) -> None:
    """Fails when work that failed for good is out of reach for good."""
    database = f"sqlite:///{tmp_path / 'memori.db'}"

    def broken(messages: Any) -> Any:
        raise RuntimeError("the extractor is broken")

    with Memori(conn=database, extractor=broken, settings=Settings(augmentation_attempts=1)) as memori:
        memori.config.storage.build()
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        call(client)
        assert memori.augmentation.wait(30) is False
    with Memori(conn=database) as memori:
        memori.attribution(entity_id="alice")
        assert memori.augmentation.retry() == 1
        assert memori.augmentation.wait(30)
        assert [fact.object for fact in memori.facts()] == ["Rome"]


def test_whoever_wants_errors_gets_them(client: OpenAI, tmp_path: Path) -> None:
    """Fails when ``on_error="raise"`` hides a failure of ours."""
    with Memori(conn=f"sqlite:///{tmp_path / 'no' / 'folder.db'}", on_error="raise") as memori:
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        memori.config.close_timeout_s = 0.1
        with pytest.raises(MemoriError):
            call(client)


def test_the_providers_errors_pass_untouched(tmp_path: Path, client: OpenAI, server: ProviderServer) -> None:
    """Fails when a provider's error is wrapped, swallowed, or stored as an exchange."""
    with Memori(conn=f"sqlite:///{tmp_path / 'memori.db'}") as memori:
        memori.config.storage.build()
        memori.llm.register(client)
        memori.attribution(entity_id="alice")
        server.script(Reply(status=429, error_message="slow down"))
        with pytest.raises(openai.RateLimitError, match="slow down"):
            call(client)
        assert memori.messages() == []


def test_a_clean_exit_without_waiting_loses_nothing(tmp_path: Path, server: ProviderServer) -> None:
    """Fails when a program that just ends loses an exchange, prints noise, or dies by a signal."""
    code = """
import sys
from memori import Memori
from openai import OpenAI
client = OpenAI(base_url=sys.argv[2], api_key="local")
memori = Memori(conn=sys.argv[1]).llm.register(client)
memori.config.storage.build()
memori.attribution(entity_id="alice")
for place in ("Rome", "Oslo"):
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"I live in {place}."}])
"""
    database = f"sqlite:///{tmp_path / 'memori.db'}"
    command = [sys.executable, "-W", "error", "-c", code, database, server.url + "/v1"]
    # A wait that was too short on a busy machine would be logged, rightly.
    patient = os.environ | {"MEMORI_RECALL_TIMEOUT_S": "10", "MEMORI_CAPTURE_TIMEOUT_S": "10"}
    for _ in range(5):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=patient)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    with Memori(conn=database) as memori:
        memori.attribution(entity_id="alice")
        assert memori.augmentation.wait(90)
        assert len(memori.messages()) == 20
        assert [fact.object for fact in memori.facts()] == ["Oslo"]
