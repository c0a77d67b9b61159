"""Two users, many threads or tasks, one client, one `Memori`."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from openai import AsyncOpenAI, OpenAI

from memori import Memori
from memori.testing.provider import ProviderRequest, ProviderServer

USERS = {"alice": "teal", "bob": "crimson"}
CALLS = 40


@pytest.fixture
def memori(tmp_path: Path) -> Memori:
    memori = Memori(conn=f"sqlite:///{tmp_path / 'memori.db'}")
    memori.config.storage.build()
    # What is measured here is whose memories go where, on however slow a machine.
    memori.config.recall_timeout_s = memori.config.capture_timeout_s = 30.0
    for user, color in USERS.items():
        memori.remember(f"The user's favorite color is {color}.", kind="preference", entity_id=user)
    return memori


def question(user: str, number: int) -> str:
    return f"This is {user}, call {number}: what is my favorite color?"


def check(memori: Memori, requests: list[ProviderRequest]) -> None:
    assert len(requests) == CALLS
    for request in requests:
        user = next(user for user in USERS if f"This is {user}," in request.text)
        other = next(name for name in USERS if name != user)
        assert USERS[user] in request.text
        assert USERS[other] not in request.text
        assert f"This is {other}," not in request.text
    for user in USERS:
        said = [item.content for item in memori.messages(entity_id=user) if item.role == "user"]
        assert sorted(said) == sorted(question(user, number) for number in range(CALLS) if owner(number) == user)


def owner(number: int) -> str:
    return list(USERS)[number % 2]


def test_threads_keep_users_apart(memori: Memori) -> None:
    """Fails when a call fails, is stored under the other user, or carries the other's memory."""
    failed: list[BaseException] = []
    with ProviderServer() as server, memori, OpenAI(base_url=server.url + "/v1", api_key="local") as client:
        memori.llm.register(client)

        def work(thread: int) -> None:
            for number in range(thread * CALLS // 8, (thread + 1) * CALLS // 8):
                user = owner(number)
                try:
                    with memori.scope(entity_id=user):
                        client.chat.completions.create(
                            model="m", messages=[{"role": "user", "content": question(user, number)}]
                        )
                except BaseException as error:  # noqa: BLE001 - whatever it was, the test must say it
                    failed.append(error)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        check(memori, server.requests)


def test_tasks_keep_users_apart(memori: Memori) -> None:
    """Fails when a task's call is stored under another task's user, or carries the other's memory."""

    async def work(client: AsyncOpenAI, number: int) -> None:
        user = owner(number)
        with memori.scope(entity_id=user):
            await asyncio.sleep(0)
            await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": question(user, number)}]
            )

    async def main(url: str) -> None:
        async with AsyncOpenAI(base_url=url + "/v1", api_key="local") as client:
            memori.llm.register(client)
            await asyncio.gather(*(work(client, number) for number in range(CALLS)))

    with ProviderServer() as server, memori:
        asyncio.run(main(server.url))
        check(memori, server.requests)
