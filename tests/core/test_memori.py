"""The facade: the public API, and the older one that programs were written for."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import mongodb, needs_mongodb
from openai import OpenAI

from memori import (
    AttributionError,
    ClosedError,
    ConfigurationError,
    Memori,
    Message,
    NotBuiltError,
    Settings,
)
from memori.memori import Llm
from memori.testing.provider import ProviderServer

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=needs_mongodb)])
def conn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    if request.param == "sqlite":
        yield tmp_path / "memori.db"
        return
    with mongodb() as database:
        yield database


@pytest.fixture
def memori(conn: object) -> Iterator[Memori]:
    with Memori(conn=conn) as memori:
        memori.config.storage.build()
        yield memori.attribution(entity_id="alice", process_id="support")


class TestMemories:
    def test_what_is_remembered_is_recalled_with_its_reasons(self, memori: Memori) -> None:
        """Fails when a fact is not found by what it says, or cannot be explained."""
        fact = memori.remember(
            "The user's favorite color is blue.",
            kind="preference",
            subject="user",
            predicate="favorite_color",
            object="blue",
            importance=0.8,
        )
        assert (fact.kind, fact.subject, fact.predicate, fact.object) == (
            "preference",
            "user",
            "favorite_color",
            "blue",
        )
        assert (fact.importance, fact.trust, fact.status, fact.mentions) == (0.8, "application", "active", 1)
        (item,) = memori.recall("What is my favorite color?", explain=True)
        assert (item.id, item.kind, item.content) == (fact.id, "preference", fact.content)
        assert 0.0 < item.score <= 1.0
        assert item.explanation is not None
        assert item.explanation.scores["words"] > 0
        assert memori.remember("The user's favorite color is blue.", kind="preference").mentions >= 1

    def test_a_new_value_takes_the_old_ones_place_and_history_stays(self, memori: Memori) -> None:
        """Fails when two values of a single-valued slot hold at once, or the older can no longer be asked for."""
        for city, at in (("Paris", NOON), ("Berlin", NOON + timedelta(days=30))):
            memori.remember(
                f"The user lives in {city}.", subject="user", predicate="lives_in", object=city, valid_from=at
            )
        assert [fact.object for fact in memori.facts()] == ["Berlin"]
        assert [fact.object for fact in memori.facts(as_of=NOON + timedelta(days=1))] == ["Paris"]
        assert [fact.object for fact in memori.facts(statuses=("active", "superseded"))] == ["Berlin", "Paris"]
        past = memori.recall("Where does the user live?", as_of=NOON + timedelta(days=1))
        assert [item.content for item in past] == ["The user lives in Paris."]

    def test_a_captured_conversation_is_recalled_and_augmented(self, memori: Memori) -> None:
        """Fails when a conversation that did not pass through a client is stored differently from one that did."""
        stored = memori.capture(
            [
                {"role": "user", "content": "I live in Rome and work as a nurse.", "metadata": {"ticket": 7}},
                Message(role="assistant", content="Noted."),
            ],
            session_id="import-1",
            at=NOON,
        )
        assert [(item.role, item.session_id, item.at) for item in stored] == [
            ("user", "import-1", NOON),
            ("assistant", "import-1", NOON),
        ]
        assert memori.augmentation.wait(30)
        facts = {fact.predicate: fact for fact in memori.facts()}
        assert facts["lives_in"].object == "Rome"
        assert facts["lives_in"].valid_from == NOON
        (item,) = memori.recall("Where do I live?", limit=1, kinds=["fact", "attribute"])
        assert [source.metadata for source in item.sources] == [{"ticket": 7}]

    def test_an_import_that_is_run_again_stores_nothing(self, memori: Memori) -> None:
        """Fails when a dated conversation is stored twice."""
        conversation = [{"role": "user", "content": "I like tea.", "at": NOON}]
        assert len(memori.capture(conversation, session_id="s")) == 1
        assert memori.capture(conversation, session_id="s") == []
        assert len(memori.messages()) == 1

    def test_one_fact_is_forgotten_and_the_rest_stay(self, memori: Memori) -> None:
        """Fails when forgetting one takes more, or leaves it to be recalled."""
        tea, coffee = (memori.remember(f"The user likes {drink}.") for drink in ("tea", "coffee"))
        assert memori.recall("tea")[0].id == tea.id
        assert memori.forget(tea.id) == 1
        assert [fact.id for fact in memori.facts()] == [coffee.id]
        assert tea.id not in [item.id for item in memori.recall("tea")]
        assert memori.forget(tea.id) == 0

    def test_an_entity_is_forgotten_whole_and_others_stay(self, memori: Memori) -> None:
        """Fails when anything of the entity is left, or anything of another goes."""
        memori.capture([{"role": "user", "content": "I live in Rome."}])
        memori.remember("The user likes tea.")
        memori.remember("The user likes gin.", entity_id="bob")
        assert memori.augmentation.wait(30)
        assert memori.recall("tea")
        assert memori.forget(everything=True) >= 3
        assert memori.facts(statuses=("active", "superseded", "quarantined")) == []
        assert memori.messages() == []
        assert memori.recall("tea Rome") == []
        assert len(memori.facts(entity_id="bob")) == 1

    @pytest.mark.parametrize("arguments", [{}, {"fact_id": 1, "everything": True}])
    def test_forgetting_must_be_told_what(self, memori: Memori, arguments: dict[str, Any]) -> None:
        """Fails when a call that says too little or too much erases anything."""
        memori.remember("The user likes tea.")
        with pytest.raises(ConfigurationError, match="everything=True"):
            memori.forget(**arguments)
        assert len(memori.facts()) == 1

    def test_kinds_and_scores_narrow_the_answer(self, memori: Memori) -> None:
        """Fails when a filter of recall is ignored."""
        memori.remember("The user likes green tea.", kind="preference")
        memori.remember("The user bought green tea.", kind="event")
        assert [item.kind for item in memori.recall("green tea", kinds=["event"])] == ["event"]
        assert memori.recall("green tea", min_score=1.0) == []
        assert len(memori.recall("green tea", limit=1)) == 1


class TestErrors:
    def test_no_entity(self, tmp_path: Path) -> None:
        """Fails when something is read or written for nobody."""
        with Memori(conn=tmp_path / "memori.db") as memori:
            memori.config.storage.build()
            for ask in (memori.facts, memori.messages, lambda: memori.recall("x"), lambda: memori.remember("x")):
                with pytest.raises(AttributionError, match="attribution"):
                    ask()

    def test_no_tables(self, tmp_path: Path) -> None:
        """Fails when an unbuilt database gives anything but an error that says to build it."""
        with Memori(conn=tmp_path / "memori.db") as memori:
            memori.attribution(entity_id="alice")
            with pytest.raises(NotBuiltError, match=r"build\(\)"):
                memori.remember("x")

    @pytest.mark.parametrize("content", ["", "  ", 7, None])
    def test_nothing_to_remember(self, memori: Memori, content: Any) -> None:
        """Fails when a fact without content is stored."""
        with pytest.raises(ConfigurationError):
            memori.remember(content)
        assert memori.facts() == []

    @pytest.mark.parametrize(("entity", "error"), [(7, TypeError), ("", ValueError)])
    def test_an_unusable_attribution(self, memori: Memori, entity: Any, error: type[Exception]) -> None:
        """Fails when the older API's errors for a bad id change."""
        with pytest.raises(error):
            memori.attribution(entity)

    def test_a_closed_instance(self, memori: Memori) -> None:
        """Fails when a closed instance hangs or half works."""
        memori.close()
        memori.close()
        with pytest.raises(ClosedError, match="closed"):
            memori.recall("x")

    def test_an_unknown_client(self, memori: Memori) -> None:
        """Fails when a client that memori cannot listen to is taken in silence."""
        with pytest.raises(ConfigurationError, match="openai"):
            memori.llm.register(object())
        with pytest.raises(ConfigurationError, match="pass a client"):
            memori.llm.register()

    def test_a_closed_instance_leaves_its_clients_working(self, memori: Memori) -> None:
        """Fails when closing memori breaks the application's own calls."""
        with ProviderServer() as server, OpenAI(base_url=server.url + "/v1", api_key="local") as client:
            memori.llm.register(client)
            memori.close()
            answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
            assert answer.choices[0].message.content == "Understood."


class TestOlderApi:
    def test_the_signatures_are_kept(self) -> None:
        """Fails when a program written for the older API no longer runs."""
        made = inspect.signature(Memori.__init__).parameters
        assert list(made)[1:3] == ["conn", "debug_truncate"]
        assert made["debug_truncate"].default is True
        assert {"api_key", "base_url", "use_rust_core"} <= set(made)
        register = inspect.signature(Llm.register).parameters
        assert list(register)[1:] == [
            "client", "openai_chat", "claude", "gemini", "xai", "chatbedrock", "chatgooglegenai", "chatopenai",
            "chatvertexai",
        ]  # fmt: skip
        assert list(inspect.signature(Memori.recall).parameters)[1:3] == ["query", "limit"]

    def test_ignored_arguments_are_accepted(self, tmp_path: Path) -> None:
        """Fails when an argument that means nothing here raises."""
        Memori(tmp_path / "memori.db", False, api_key="k", base_url="https://x", use_rust_core=True).close()

    def test_chained_calls_return_the_instance(self, memori: Memori) -> None:
        """Fails when a chain of the older API breaks."""
        assert memori.attribution("alice").new_session().set_session("s1") is memori
        assert (memori.config.entity_id, memori.config.process_id, memori.config.session_id) == ("alice", None, "s1")
        with ProviderServer() as server, OpenAI(base_url=server.url, api_key="local") as client:
            assert memori.llm.register(openai_chat=client) is memori
            assert memori.llm.unregister(client)

    def test_items_answer_attributes_and_keys(self, memori: Memori) -> None:
        """Fails when code that reads ``item["content"]`` breaks."""
        memori.remember("The user likes tea.")
        (item,) = memori.recall("tea", 1)
        for name in ("id", "content", "similarity", "rank_score", "date_created", "summaries"):
            assert item[name] == getattr(item, name)
            assert name in item.keys()  # noqa: SIM118 - the name is what is tested
        assert item.get("nothing", 7) == 7
        assert dict(item)["content"] == item.content
        with pytest.raises(KeyError):
            item["nothing"]

    def test_the_configuration_names_are_kept(self, memori: Memori) -> None:
        """Fails when a name that older programs read or set is gone."""
        config = memori.config
        assert (config.recall_facts_limit, config.recall_relevance_threshold) == (5, 0.1)
        assert config.session_timeout_minutes == 30
        config.recall_embeddings_limit = 1000
        assert config.embeddings.model
        assert config.llm.provider is None
        assert config.cache.conversation_id is None

    def test_conversations_can_be_read_back(self, memori: Memori) -> None:
        """Fails when the read-only views that older tests look at are empty or wrong."""
        memori.capture([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], session_id=None)
        row = memori.config.cache.conversation_id
        assert row is not None
        driver = memori.config.storage.driver
        assert driver.conversation.messages.read(row) == [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
        ]
        conversation = driver.conversation.read(row)
        assert conversation is not None
        assert conversation["id"] == row

    def test_texts_are_embedded(self, memori: Memori) -> None:
        """Fails when `embed_texts` gives anything but a list of numbers for each text."""
        one, other = memori.embed_texts(["tea", "coffee"])
        assert len(one) == len(other) > 0
        assert memori.embed_texts("tea") == [one]
        json.dumps(one)

    def test_everything_of_an_entity_is_deleted(self, memori: Memori) -> None:
        """Fails when the older name for erasing leaves anything."""
        memori.remember("The user likes tea.")
        memori.delete_entity_memories("alice")
        assert memori.facts() == []


class TestAsync:
    def test_every_twin_does_what_its_namesake_does(self, memori: Memori) -> None:
        """Fails when an asynchronous method loses the scope, an argument or a result."""

        async def main() -> None:
            with memori.scope(entity_id="bob"):
                fact = await memori.aremember("The user likes tea.", kind="preference")
                assert [item.id for item in await memori.arecall("tea", 3)] == [fact.id]
                assert [item.id for item in await memori.afacts(kinds=["preference"])] == [fact.id]
                assert len(await memori.acapture([{"role": "user", "content": "hi"}])) == 1
                assert len(await memori.amessages()) == 1
                assert await memori.augmentation.await_(30)
                assert (await memori.astatus()).lost == 0
                assert await memori.aforget(fact.id) == 1
                assert await memori.aforget(everything=True) == 1
            await memori.aclose()

        asyncio.run(main())
        assert memori.config.entity_id == "alice"

    def test_it_is_an_asynchronous_context_manager(self, tmp_path: Path) -> None:
        """Fails when ``async with`` does not close."""

        async def main() -> Memori:
            async with Memori(conn=tmp_path / "memori.db") as memori:
                pass
            return memori

        with pytest.raises(ClosedError):
            asyncio.run(main()).recall("x")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_works_on_its_own(tmp_path: Path) -> None:
    """Fails when the child of a server that forks hangs, loses its exchanges, or repeats its parent's."""
    with ProviderServer() as server, OpenAI(base_url=server.url + "/v1", api_key="local") as client:
        memori = Memori(conn=tmp_path / "memori.db").llm.register(client)
        memori.config.storage.build()
        memori.attribution(entity_id="alice")

        def ask(text: str) -> None:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])

        ask("I live in Rome.")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                ask("I like tea.")
                code = 0 if memori.augmentation.wait(20) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        ask("I like rain.")
        assert memori.augmentation.wait(30)
        said = [item.content for item in memori.messages() if item.role == "user"]
        assert said == ["I live in Rome.", "I like tea.", "I like rain."]
        assert {fact.object for fact in memori.facts()} == {"Rome", "tea", "rain"}
        memori.close()


def test_settings_come_from_the_caller_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a setting does not reach the instance, or a caller's object is changed by it."""
    monkeypatch.setenv("MEMORI_RECALL_FACTS_LIMIT", "9")
    monkeypatch.setenv("MEMORI_DATABASE_URL", f"sqlite:///{tmp_path / 'from_environment.db'}")
    with Memori() as memori:
        assert memori.config.recall_facts_limit == 9
        memori.config.storage.build()
    assert (tmp_path / "from_environment.db").exists()
    settings = Settings(recall_facts_limit=2)
    with Memori(conn=tmp_path / "memori.db", settings=settings, on_error="raise") as memori:
        assert (memori.config.recall_facts_limit, memori.config.on_error) == (2, "raise")
        memori.config.recall_facts_limit = 3
    assert (settings.recall_facts_limit, settings.on_error) == (2, "log")
    with pytest.raises(ConfigurationError, match="on_error"):
        Memori(conn=tmp_path / "memori.db", on_error="explode")
