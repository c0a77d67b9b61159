"""kill -9 under load: what was acknowledged is there, once, and the work on it is finished after the restart."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from databases import mongodb, needs_mongodb

from memori import Memori, Settings
from memori.testing.provider import ProviderServer

KILLS = int(os.environ.get("MEMORI_TEST_KILLS", "50"))
LOAD = Path(__file__).with_name("crash_load.py")


@pytest.mark.timeout(600)
def test_a_killed_process_loses_no_exchange_and_doubles_no_fact(tmp_path: Path) -> None:
    """Fails when a call returns before its exchange is durable, or when a job done again stores a fact again."""
    kill_under_load(f"sqlite:///{tmp_path / 'memori.db'}", kills=KILLS)


@needs_mongodb
@pytest.mark.timeout(600)
def test_a_killed_process_loses_and_doubles_nothing_on_mongodb() -> None:
    """Fails when writes to several documents are not done together, or not once."""
    with mongodb() as database:
        host, port = database.client.address or ("", 0)
        kill_under_load(f"mongodb://{host}:{port}/{database.name}", kills=max(KILLS // 5, 1))


def kill_under_load(database: str, *, kills: int) -> None:
    moments = random.Random(20261122)  # noqa: S311 - the moments shall be the same in each run
    with Memori(conn=database, worker=False) as memori:
        memori.config.storage.build()
    acknowledged: list[tuple[str, str]] = []
    with ProviderServer() as server:
        loader = subprocess.Popen(
            [sys.executable, str(LOAD), database, server.url + "/v1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert loader.stdin is not None
        assert loader.stdout is not None
        for kill in range(kills):
            loader.stdin.write(f"{kill}\n")
            loader.stdin.flush()
            for line in loader.stdout:
                word, _, rest = line.rstrip("\n").partition(" ")
                if word == "pid":
                    pid = int(rest)
                elif word == "gone":
                    break
                else:
                    acknowledged.append((f"user-{word}", rest))
                    if len(acknowledged) and acknowledged[-1][1].endswith("-0-0."):
                        # Only from the first answer on is there a load to be killed under.
                        time.sleep(moments.uniform(0.0, 0.4))
                        os.kill(pid, signal.SIGKILL)
        loader.stdin.close()
        assert loader.wait(30) == 0
        loader.stdout.close()

    assert len(acknowledged) >= kills
    with Memori(conn=database, settings=Settings(lease_s=1.0)) as memori:
        assert memori.augmentation.wait(120), memori.augmentation.status()
        for entity in sorted({entity for entity, _ in acknowledged}):
            said = [text for user, text in acknowledged if user == entity]
            stored = Counter(item.content for item in memori.messages(entity_id=entity) if item.role == "user")
            assert [text for text in said if stored[text] != 1] == []
            facts = memori.facts(entity_id=entity, statuses=("active", "superseded", "quarantined"))
            liked = Counter(str(fact.object) for fact in facts)
            assert [thing for text in said if liked[thing := text.removeprefix("I like ").removesuffix(".")] != 1] == []
            assert {fact.mentions for fact in facts} == {1}
        assert memori.augmentation.status().failed == 0
