"""What chains take of memory: a retriever, a tool, a conversation's history, a callback, and the classic memory."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("langchain_core.runnables", exc_type=ImportError)
pytest.importorskip("langgraph.runtime", exc_type=ImportError)

from blockbuster import blockbuster_ctx
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models import LLM
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnablePassthrough

from memori import AttributionError, ConfigurationError, Memori
from memori_langchain import (
    MemoriCallbackHandler,
    MemoriChatMessageHistory,
    MemoriMemory,
    MemoriRetriever,
    MemoriSearchTool,
)

SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
ANSWER = "Ramen in a blue bowl."


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memori]:
    with Memori(conn=tmp_path_factory.mktemp("memory") / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori


@pytest.fixture
def memori(shared: Memori) -> Iterator[Memori]:
    failures = shared.status().failures
    yield shared
    assert shared.status().failures == failures


@pytest.fixture
def user(memori: Memori, request: pytest.FixtureRequest) -> str:
    """Somebody of whom something is known."""
    user: str = request.node.name
    memori.remember(KNOWN, kind="preference", entity_id=user)
    return user


def said(memori: Memori, user: str) -> list[tuple[str, str, str]]:
    return [(message.role, message.kind, message.content) for message in memori.messages(entity_id=user)]


def guarded(coroutine: Any) -> Any:
    """Run *coroutine* where nothing may block the event loop."""

    async def main() -> Any:
        await asyncio.sleep(0)
        with blockbuster_ctx():
            return await coroutine

    return asyncio.run(main())


USER_SAID = ("user", "text", SAID)
ANSWERED = ("assistant", "text", ANSWER)


def speaking(*replies: Any) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(replies or [AIMessage(ANSWER)]))


def run(script: str) -> str:
    """Return what a fresh Python prints; warnings are errors there."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


# The package


def test_importing_warns_of_nothing_and_loads_neither_agents_nor_graphs() -> None:
    """Fails when registering a model costs the import of agents, or a deprecated class warns whoever never uses it."""
    script = "import memori_langchain, sys; print(*[m for m in ('langchain', 'langgraph') if m in sys.modules])"
    assert run(script) == ""


@pytest.mark.parametrize(
    ("missing", "statement"),
    [
        ("langchain_core", "import memori_langchain"),
        ("langgraph", "from memori_langchain import MemoriContext"),
        ("langchain", "from memori_langchain import MemoriMiddleware"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(missing: str, statement: str) -> None:
    """Fails when an environment without LangChain is not told what to install."""
    script = f"import sys; sys.modules[{missing!r}] = None\ntry: {statement}\nexcept ImportError as error: print(error)"
    assert run(script) == f"{missing.replace('_', '-')} is not installed: pip install 'memori-byodb[langchain]'"


def test_every_public_name_can_be_had() -> None:
    """Fails when a name in ``__all__`` is not there, or another is made up."""
    import memori_langchain

    assert memori_langchain.__all__ == sorted(memori_langchain.__all__)
    for name in memori_langchain.__all__:
        assert getattr(memori_langchain, name).__name__ == name
    with pytest.raises(AttributeError, match="MemoriTeapot"):
        memori_langchain.MemoriTeapot  # noqa: B018


# The retriever


def test_documents_say_where_they_come_from(memori: Memori, user: str) -> None:
    """Fails when a document lacks what it is, whose word it is, or its sources."""
    memori.capture([{"role": "user", "content": "I had soba for lunch."}], entity_id=user)
    documents = MemoriRetriever(memori=memori, user_id=user).invoke("food and lunch")
    assert {document.page_content for document in documents} == {KNOWN, "I had soba for lunch."}
    by_kind = {document.metadata["kind"]: document for document in documents}
    fact, message = by_kind["preference"], by_kind["message"]
    assert (fact.metadata["trust"], fact.metadata["status"]) == ("application", "active")
    assert message.metadata["sources"] == [memori.messages(entity_id=user)[0].id]
    assert message.id == f"message-{memori.messages(entity_id=user)[0].id}"
    assert json.loads(json.dumps(fact.metadata)) == fact.metadata
    assert MemoriRetriever(memori=memori, user_id=user, kinds=["event"]).invoke("food") == []
    assert MemoriRetriever(memori=memori, user_id=user, min_score=1.0).invoke("weather") == []


def test_a_retrievers_user_is_its_own_its_calls_or_the_current_one(memori: Memori, user: str) -> None:
    """Fails when a retriever finds another's memories, or finds some for nobody."""
    memori.remember("The user's favorite food is fugu.", entity_id=f"{user}, another")
    retriever = MemoriRetriever(memori=memori)
    with pytest.raises(AttributionError):
        retriever.invoke("favorite food")
    with memori.scope(entity_id=user):
        assert [document.page_content for document in retriever.invoke("favorite food")] == [KNOWN]
        assert [document.page_content for document in guarded(retriever.ainvoke("favorite food"))] == [KNOWN]
    configurable = retriever.configurable_fields(user_id=ConfigurableField("user_id"))
    found = configurable.invoke("favorite food", {"configurable": {"user_id": f"{user}, another"}})
    assert [document.page_content for document in found] == ["The user's favorite food is fugu."]


def test_a_retriever_feeds_a_chain(memori: Memori, user: str) -> None:
    """Fails when a prompt does not get what a retriever finds."""
    prompt = ChatPromptTemplate.from_messages([("user", "Known: {known}\n{question}")])
    known = MemoriRetriever(memori=memori, user_id=user) | (
        lambda found: "; ".join(item.page_content for item in found)
    )
    chain = {"known": known, "question": RunnablePassthrough()} | prompt
    assert chain.invoke("What is my favorite food?").to_messages()[0].text.startswith(f"Known: {KNOWN}\n")


# The tool


def test_a_search_is_for_its_user_and_fails_softly(memori: Memori, user: str, tmp_path: Path) -> None:
    """Fails when a search outside of an agent is for nobody, or a database that is down becomes the tool's error."""
    tool = MemoriSearchTool(memori=memori, user=user)
    (found,) = json.loads(tool.invoke({"query": "favorite food"}))
    assert (found["content"], found["kind"], found["from"]) == (KNOWN, "preference", "application")
    assert json.loads(guarded(tool.ainvoke({"query": "favorite food", "limit": -1})))[0]["content"] == KNOWN
    with pytest.raises(AttributionError):
        MemoriSearchTool(memori=memori).invoke({"query": "favorite food"})
    with Memori(conn=tmp_path / "unbuilt.db") as unbuilt:
        tool = MemoriSearchTool(memori=unbuilt, user=user)
        assert (
            tool.invoke({"query": "x"}) == guarded(tool.ainvoke({"query": "x"})) == "The memory cannot be reached now."
        )
        assert unbuilt.status().failures >= 2


# A conversation's history


def test_a_history_returns_what_was_added(memori: Memori, user: str) -> None:
    """Fails when messages are lost, added once where said twice, or mixed with another user's or session's."""
    history = MemoriChatMessageHistory(memori, "s", user_id=user)
    other = MemoriChatMessageHistory(memori, "other", user_id=user)
    for _ in range(2):
        history.add_messages([HumanMessage(SAID), AIMessage(ANSWER)])
    guarded(other.aadd_messages([HumanMessage("Else?")]))
    texts = [(message.type, message.text) for message in guarded(history.aget_messages())]
    assert texts == [("human", SAID), ("ai", ANSWER)] * 2
    assert [message.text for message in other.messages] == ["Else?"]
    assert MemoriChatMessageHistory(memori, "s", user_id=f"{user}, another").messages == []
    assert [message.text for message in MemoriChatMessageHistory(memori, "s", user_id=user, limit=1).messages] == [
        ANSWER
    ]
    assert memori.augmentation.wait(30)
    assert {fact.object for fact in memori.facts(entity_id=user)} >= {"blue"}


def test_a_history_joins_calls_with_their_results(memori: Memori, user: str) -> None:
    """Fails when a provider would refuse the history: a call without its result, or the other way round."""
    calls: list[Any] = [
        {"name": "menu", "args": {"food": "ramen"}, "id": "a", "type": "tool_call"},
        {"name": "table", "args": {"people": 2}, "id": "b", "type": "tool_call"},
        {"name": "weather", "args": {}, "id": "c", "type": "tool_call"},
    ]
    history = MemoriChatMessageHistory(memori, "s", user_id=user)
    history.add_messages(
        [
            HumanMessage(SAID),
            AIMessage("One moment.", tool_calls=calls),
            ToolMessage("Table for 2", name="table", tool_call_id="b"),
            ToolMessage("Hakata ramen", name="menu", tool_call_id="a"),
            AIMessage(ANSWER),
        ]
    )
    human, calling, first, second, answer = history.messages
    assert (human.text, calling.text, answer.text) == (SAID, "One moment.", ANSWER)
    assert isinstance(calling, AIMessage)
    assert [(call["name"], call["args"]) for call in calling.tool_calls] == [
        ("menu", {"food": "ramen"}),
        ("table", {"people": 2}),
    ]
    assert isinstance(first, ToolMessage)
    assert isinstance(second, ToolMessage)
    assert [first.tool_call_id, second.tool_call_id] == [call["id"] for call in calling.tool_calls]
    assert [first.text, second.text] == ["Hakata ramen", "Table for 2"]


def test_a_history_is_not_cleared_in_silence(memori: Memori, user: str) -> None:
    """Fails when ``clear`` seems to have erased what is still there."""
    history = MemoriChatMessageHistory(memori, "s", user_id=user)
    with pytest.raises(NotImplementedError, match="session_id"):
        history.clear()
    with pytest.raises(NotImplementedError, match="session_id"):
        guarded(history.aclear())


def test_a_history_serves_a_runnable_with_message_history(memori: Memori, user: str) -> None:
    """Fails when a chain that is still on RunnableWithMessageHistory does not see its conversation."""
    from langchain_core.runnables.history import RunnableWithMessageHistory

    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("user", "{question}")])
    seen: list[list[BaseMessage]] = []

    def noting(value: Any) -> Any:
        seen.append(value.to_messages())
        return value

    def history(session_id: str) -> BaseChatMessageHistory:
        return MemoriChatMessageHistory(memori, session_id, user_id=user)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # RunnableWithMessageHistory's own.
        chain = RunnableWithMessageHistory(
            prompt | noting | speaking(AIMessage(ANSWER), AIMessage("Soba.")),
            history,
            input_messages_key="question",
            history_messages_key="history",
        )
        config: Any = {"configurable": {"session_id": "s"}}
        chain.invoke({"question": SAID}, config)
        guarded(chain.ainvoke({"question": "Else?"}, config))
    assert [message.text for message in seen[1]] == [SAID, ANSWER, "Else?"]
    assert [text for _, _, text in said(memori, user)] == [SAID, ANSWER, "Else?", "Soba."]


# The callback


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream", "batch"])
def test_a_callback_records_a_chain(memori: Memori, user: str, how: str) -> None:
    """Fails when what a chain's model is asked and says is not stored once, or under another name."""
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")])
    chain = prompt | speaking()
    config: Any = {
        "callbacks": [MemoriCallbackHandler(memori, user="fixed", process="kitchen")],
        "metadata": {"user_id": user, "session_id": "evening"},
    }
    given = {"question": SAID}

    async def astream() -> None:
        async for _ in chain.astream(given, config):
            pass

    match how:
        case "invoke":
            chain.invoke(given, config)
        case "ainvoke":
            guarded(chain.ainvoke(given, config))
        case "stream":
            assert "".join(chunk.text for chunk in chain.stream(given, config)) == ANSWER
        case "astream":
            guarded(astream())
        case "batch":
            chain.batch([given], config)
    found = memori.messages(entity_id=user)
    assert said(memori, user) == [USER_SAID, ANSWERED]
    assert {(item.process_id, item.session_id, item.partial) for item in found} == {("kitchen", "evening", False)}
    assert memori.facts(entity_id=user)[0].times_recalled == 0


def test_a_callback_keeps_what_came_of_a_stream_that_is_left(memori: Memori, user: str) -> None:
    """Fails when a stream that its caller leaves is lost, or taken for whole."""
    config: Any = {"callbacks": [MemoriCallbackHandler(memori, user=user)]}
    stream = speaking().stream(SAID, config)
    begun = next(stream).text
    stream.close()  # type: ignore[attr-defined]
    assert memori.augmentation.wait(30)
    found = memori.messages(entity_id=user)
    assert [(item.content, item.partial) for item in found] == [(SAID, False), (begun, True)]


def test_a_callback_notes_a_call_while_python_collects_a_stream_that_was_left(memori: Memori, user: str) -> None:
    """Fails when a call waits for ever: a stream that was left ends in the midst of what the handler notes."""
    handler = MemoriCallbackHandler(memori, user=user)

    class Collecting(UUID):
        def __hash__(self) -> int:
            gc.collect()  # As Python may at any time; here where the call is noted.
            return super().__hash__()

    def ask() -> None:
        gc.disable()
        try:
            stream = speaking().stream(SAID, {"callbacks": [handler]})
            next(stream)
            left: list[Any] = [stream]
            left.append(left)
            del stream, left
            handler.on_chat_model_start({}, [[HumanMessage("Else?")]], run_id=Collecting(int=1))
        finally:
            gc.enable()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert memori.augmentation.wait(30)
    assert said(memori, user)[0] == USER_SAID


def test_a_callback_takes_nobody_for_the_default(tmp_path: Path) -> None:
    """Fails when a call whose user is blank, as a visitor's who is not logged in, is stored for somebody else."""
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.attribution(entity_id="ann")
        config: Any = {"callbacks": [MemoriCallbackHandler(memori, user="bob")], "metadata": {"user_id": ""}}
        assert speaking().invoke(SAID, config).text == ANSWER
        assert said(memori, "ann") == said(memori, "bob") == []
        assert "must not be empty" in str(memori.status().last_failure)


def test_a_callback_leaves_failed_calls_and_calls_for_nobody_alone(memori: Memori, user: str) -> None:
    """Fails when a call that failed leaves half an exchange, or one for nobody fails."""

    def failing() -> Iterator[AIMessage]:
        raise RuntimeError("no")
        yield AIMessage("")

    with pytest.raises(RuntimeError, match="no"):
        GenericFakeChatModel(messages=failing()).invoke(SAID, {"callbacks": [MemoriCallbackHandler(memori, user=user)]})
    assert memori.messages(entity_id=user) == []
    speaking().invoke(SAID, {"callbacks": [MemoriCallbackHandler(memori)]})


class Completing(LLM):
    """A model that completes texts."""

    @property
    def _llm_type(self) -> str:
        return "completing"

    def _call(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        return ANSWER


def test_a_callback_records_models_that_complete_texts(memori: Memori, user: str) -> None:
    """Fails when a model that is no chat model goes unheard."""
    chain = PromptTemplate.from_template("{question}") | Completing()
    chain.invoke({"question": SAID}, {"callbacks": [MemoriCallbackHandler(memori, user=user)]})
    assert said(memori, user) == [USER_SAID, ANSWERED]


# The classic memory


def test_a_classic_memory_gives_and_takes(memori: Memori, user: str) -> None:
    """Fails when a classic chain is not told what is known, or what it said is not stored, or the block is."""
    memory = MemoriMemory(memori=memori, user_id=user, process_id="kitchen", session_id="evening")
    assert memory.memory_variables == ["history"]
    loaded = memory.load_memory_variables({"input": SAID})
    assert "favorite food is ramen" in loaded["history"]
    assert guarded(memory.aload_memory_variables({"input": SAID})) == loaded
    memory.save_context({"input": SAID, **loaded}, {"response": ANSWER})
    guarded(memory.asave_context({"input": "Else?"}, {"response": AIMessage("Soba.")}))
    memory.clear()
    guarded(memory.aclear())
    found = memori.messages(entity_id=user)
    assert said(memori, user) == [USER_SAID, ANSWERED, ("user", "text", "Else?"), ("assistant", "text", "Soba.")]
    assert {(item.process_id, item.session_id) for item in found} == {("kitchen", "evening")}
    stranger = MemoriMemory(memori=memori, user_id=f"{user}, another", memory_key="known")
    assert stranger.load_memory_variables({"input": SAID}) == {"known": ""}


def test_a_classic_memory_asks_which_input_is_the_users(memori: Memori, user: str) -> None:
    """Fails when one of several inputs or outputs is taken for what was said by chance."""
    memory = MemoriMemory(memori=memori, user_id=user)
    with pytest.raises(ConfigurationError, match="input_key"):
        memory.load_memory_variables({"question": SAID, "language": "English"})
    with pytest.raises(ConfigurationError, match="output_key"):
        memory.save_context({"question": SAID}, {"answer": ANSWER, "sources": ""})
    memory = MemoriMemory(memori=memori, user_id=user, input_key="question", output_key="answer")
    with pytest.raises(ConfigurationError, match="question"):
        memory.load_memory_variables({"input": SAID})
    memory.save_context({"question": SAID, "language": "English"}, {"answer": ANSWER, "sources": ""})
    assert said(memori, user) == [USER_SAID, ANSWERED]


def test_a_classic_memory_serves_a_classic_chain(memori: Memori, user: str) -> None:
    """Fails when langchain-classic's chains do not take it for a memory."""
    chains = pytest.importorskip("langchain_classic.chains", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The chain's own.
        chain = chains.LLMChain(
            llm=speaking(),
            prompt=PromptTemplate.from_template("{history}\n{question}"),
            memory=MemoriMemory(memori=memori, user_id=user),
        )
        answered = chain.invoke({"question": SAID})
    assert "favorite food is ramen" in answered["history"]
    assert said(memori, user) == [USER_SAID, ANSWERED]


def test_a_classic_memory_needs_no_classic_chains() -> None:
    """Fails when ``MemoriMemory`` cannot be had where langchain-classic is not installed."""
    script = (
        "import sys; sys.modules['langchain_classic'] = None; from memori_langchain import MemoriMemory; "
        "from memori import Memori; print(MemoriMemory(memori=Memori(conn='sqlite://')).memory_variables)"
    )
    assert run(script) == "['history']"
