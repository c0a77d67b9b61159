"""What a registered LangChain model may be relied on for: it is what it was, whatever is made of it remembers, once."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import pickle
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain.agents")

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    messages_to_dict,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from memori import ConfigurationError, Memori
from memori.testing.provider import ProviderServer, Reply
from memori_langchain import MemoriMiddleware

KNOWN = "The user's favorite color is teal."
ASKED = "What is my favorite color?"
TEAL = "favorite color is teal"


class Model(BaseChatModel):
    """A model that answers by a function, and what it was sent."""

    temperature: float = 0.0
    answer: Callable[[list[BaseMessage]], AIMessage] = lambda messages: AIMessage("Teal.")
    requests: list[list[BaseMessage]] = []  # noqa: RUF012 - pydantic copies it

    @property
    def _llm_type(self) -> str:
        return "own"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=tools)

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        self.requests.append(messages)
        return ChatResult(generations=[ChatGeneration(message=self.answer(messages))])


class Streaming(Model):
    """The same, word by word."""

    def _stream(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        self.requests.append(messages)
        for word in self.answer(messages).text.split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))


@pytest.fixture
def memori(tmp_path: Path) -> Iterator[Memori]:
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        memori.remember(KNOWN, kind="preference", entity_id="alice")
        yield memori


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


def registered(memori: Memori, model: Any) -> Any:
    memori.llm.register(model)
    return model


def asked(question: str = ASKED) -> Any:
    """Return what an agent is invoked with."""
    return {"messages": [("user", question)]}


def text(messages: Sequence[BaseMessage]) -> str:
    return "\n".join(message.text for message in messages)


def stored(memori: Memori, entity_id: str = "alice") -> list[tuple[str, str]]:
    assert memori.augmentation.wait(30)
    return [(message.role, message.content) for message in memori.messages(entity_id=entity_id)]


ONCE = [("user", ASKED), ("assistant", "Teal.")]


class TestWhatIsMadeOfIt:
    @pytest.mark.parametrize(
        ("make", "warmed"),
        [
            pytest.param(lambda model: model.model_copy(update={"temperature": 0.5}), 0.5, id="model_copy"),
            pytest.param(lambda model: copy.copy(model), 0.0, id="copy"),
            pytest.param(lambda model: copy.deepcopy(model), 0.0, id="deepcopy"),
            pytest.param(lambda model: type(model)(**dict(model)), 0.0, id="rebuilt"),
            pytest.param(lambda model: model.bind(stop=["."]), 0.0, id="bind"),
            pytest.param(lambda model: model.with_config(tags=["x"]), 0.0, id="with_config"),
            pytest.param(lambda model: model.with_retry(), 0.0, id="with_retry"),
            pytest.param(
                lambda model: model.configurable_fields(temperature=ConfigurableField(id="heat")).with_config(
                    configurable={"heat": 0.5}
                ),
                0.5,
                id="configurable_fields",
            ),
            pytest.param(
                lambda model: (
                    Model(temperature=1.0)
                    .configurable_alternatives(ConfigurableField(id="which"), own=model)
                    .with_config(configurable={"which": "own"})
                ),
                0.0,
                id="configurable_alternatives",
            ),
            pytest.param(lambda model: (lambda question: [HumanMessage(question)]) | model, 0.0, id="pipe"),
        ],
    )
    def test_remembers(self, memori: Memori, make: Callable[[Any], Runnable[Any, Any]], warmed: float) -> None:
        """Fails when memory is lost by what LangChain does to models, or the original answers in a copy's place."""
        requests: list[list[BaseMessage]] = []
        heat: list[float] = []

        class Heated(Model):
            def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
                requests.append(messages)
                heat.append(self.temperature)
                return super()._generate(messages, *args, **kwargs)

        made = make(registered(memori, Heated()))
        with memori.scope("alice"):
            made.invoke(ASKED)
        assert [text(messages).count(TEAL) for messages in requests] == [1]
        assert stored(memori) == ONCE
        assert heat == [warmed]

    def test_is_without_memory_when_unpickled(self, memori: Memori) -> None:
        """Fails when a model that can be pickled cannot be any more, or a database goes along with it."""
        model = registered(memori, Model(temperature=0.5, answer=teal))
        loaded = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
        assert type(loaded) is Model
        assert loaded.temperature == 0.5
        with memori.scope("alice"):
            assert loaded.invoke(ASKED).text == "Teal."
        assert stored(memori) == []

    def test_cannot_be_pickled_when_the_model_could_not(self, memori: Memori) -> None:
        """Fails when registering hides why a model cannot be pickled."""
        with pytest.raises(Exception, match="lambda") as plain:
            pickle.dumps(Model())
        with pytest.raises(type(plain.value), match="lambda"):
            pickle.dumps(registered(memori, Model()))


def teal(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage("Teal.")


class TestTheModel:
    def test_is_of_its_type_and_equal_to_what_it_was(self, memori: Memori) -> None:
        """Fails when anything that looks at a model can tell that it is registered."""
        plain = Streaming(temperature=0.5)
        model = registered(memori, plain.model_copy())
        assert isinstance(model, Streaming)
        assert type(model).__name__ == "Streaming"
        assert type(model).__qualname__ == Streaming.__qualname__
        assert type(model).__module__ == Streaming.__module__
        assert type(model).__doc__ == Streaming.__doc__
        assert repr(model) == repr(plain)
        assert model == plain
        assert plain == model
        assert model != Streaming(temperature=0.6)
        assert model != object()
        assert model._get_invocation_params() == plain._get_invocation_params()
        assert model.get_name() == plain.get_name()
        assert type(model).lc_id() == Streaming.lc_id()
        assert dumpd(model) == dumpd(plain)
        assert model.model_dump(exclude={"answer"}) == plain.model_dump(exclude={"answer"})
        assert type(model).model_json_schema is not None
        assert type(model).model_fields.keys() == Streaming.model_fields.keys()

    def test_streams_only_if_it_could_before(self, memori: Memori) -> None:
        """Fails when LangChain takes a model for one that streams because it is registered."""
        model = registered(memori, Model())
        with memori.scope("alice"):
            assert [chunk.text for chunk in model.stream(ASKED)] == ["Teal."]
        assert len(model.requests) == 1
        assert stored(memori) == ONCE

    def test_is_told_apart_by_nobody_who_traces(self, memori: Memori) -> None:
        """Fails when a callback sees what the user did not say, or other names than before."""
        starts: list[Any] = []

        class Tracer(BaseCallbackHandler):
            def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
                kwargs.pop("run_id")
                starts.append((serialized, messages_to_dict(messages[0]), kwargs))

        model = Model()
        with memori.scope("alice"):
            model.invoke(ASKED, {"callbacks": [Tracer()]})
            registered(memori, model).invoke(ASKED, {"callbacks": [Tracer()]})
        assert TEAL in text(model.requests[-1])
        assert starts[0] == starts[1]

    def test_leaves_the_callers_messages_as_they_are(self, memori: Memori) -> None:
        """Fails when a block gets into a list or a message that belongs to the caller."""
        messages = [SystemMessage("Be brief."), HumanMessage([{"type": "text", "text": ASKED}])]
        before = messages_to_dict(messages)
        model = registered(memori, Model())
        with memori.scope("alice"):
            model.invoke(messages)
        assert messages_to_dict(messages) == before
        assert [message.type for message in model.requests[0]] == ["system", "human", "human"]
        assert model.requests[0][0] == messages[0]
        assert model.requests[0][-1].content == messages[-1].content

    def test_is_given_memories_in_the_systems_name_where_that_is_wanted(self, memori: Memori) -> None:
        """Fails when injection_role is not heeded."""
        memori.config.injection_role = "system"
        model = registered(memori, Model())
        with memori.scope("alice"):
            model.invoke([SystemMessage("Be brief."), HumanMessage(ASKED)])
        assert [message.type for message in model.requests[0]] == ["system", "system", "human"]
        assert TEAL in model.requests[0][1].text


class TestRegistering:
    def test_twice_is_once(self, memori: Memori) -> None:
        """Fails when a model that is registered again remembers everything twice."""
        model = registered(memori, registered(memori, Model()))
        with memori.scope("alice"):
            model.invoke(ASKED)
        assert text(model.requests[0]).count("<memories id=") == 1
        assert stored(memori) == ONCE

    def test_is_undone_whole(self, memori: Memori) -> None:
        """Fails when a model that was given back differs from what it was, or still takes part."""
        model = Model()
        assert memori.llm.unregister(model) is False
        registered(memori, model)
        copied = model.model_copy()
        assert memori.llm.unregister(model) is True
        assert memori.llm.unregister(model) is False
        assert type(model) is Model
        with memori.scope("alice"):
            model.invoke(ASKED)
        assert TEAL not in text(model.requests[0])
        assert stored(memori) == []
        with memori.scope("alice"):
            copied.invoke(ASKED)
        assert stored(memori) == ONCE

    def test_keeps_no_memory_alive_once_the_model_is_gone(self, tmp_path: Path) -> None:
        """Fails when a model that was registered, or a Memori, is never freed."""
        memori = Memori(conn=tmp_path / "memori.db")
        model = registered(memori, Model())
        gone: list[weakref.ref[Any]] = [weakref.ref(memori), weakref.ref(type(model))]
        memori.close()
        del memori, model
        gc.collect()
        assert [reference() for reference in gone] == [None, None]

    def test_asks_for_langchain_core_alone(self) -> None:
        """Fails when who has a model, and neither LangChain's agents nor graphs, cannot register it."""
        program = (
            "import sys\n"
            "sys.modules.update(langchain=None, langgraph=None)\n"
            "from langchain_core.language_models import FakeListChatModel\n"
            "from memori import Memori\n"
            "with Memori(conn='sqlite://', worker=False) as memori:\n"
            "    model = FakeListChatModel(responses=['Teal.'])\n"
            "    memori.llm.register(model)\n"
            "    print(model.invoke('What is my favorite color?').text)\n"
        )
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert finished.stdout == "Teal.\n", finished.stderr

    def test_makes_one_class_for_all_models_of_a_class(self, memori: Memori) -> None:
        """Fails when each model that is registered costs a class."""
        assert type(registered(memori, Model())) is type(registered(memori, Model()))

    def test_of_two_memories_gives_each_its_own(self, memori: Memori, tmp_path: Path) -> None:
        """Fails when one of two Memoris on a model is left out, or one sees what the other recalled."""
        with Memori(conn=tmp_path / "other.db") as other:
            other.config.storage.build()
            other.config.recall_timeout_s = other.config.capture_timeout_s = 10.0
            other.remember("The user's favorite color was red once.", kind="preference", entity_id="alice")
            model = registered(other, registered(memori, Model()))
            with memori.scope("alice"), other.scope("alice"):
                model.invoke(ASKED)
            assert text(model.requests[0]).count("<memories id=") == 2
            assert stored(memori) == stored(other) == ONCE
            memori.llm.unregister(model)
            with memori.scope("alice"), other.scope("alice"):
                model.invoke("And my favorite color now?")
            assert text(model.requests[1]).count("<memories id=") == 1
            assert stored(memori) == ONCE

    def test_of_two_memories_is_kept_by_both_when_cancelled(self, memori: Memori, tmp_path: Path) -> None:
        """Fails when a reply that has come is lost to the second, because the task ended while the first stored it."""

        class Cancelled(Streaming):
            async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                yield ChatGenerationChunk(message=AIMessageChunk(content="Teal."))
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

        async def main() -> None:
            with pytest.raises(asyncio.CancelledError):
                async for _ in model.astream(ASKED):
                    pass

        with Memori(conn=tmp_path / "other.db") as other:
            other.config.storage.build()
            model = registered(other, registered(memori, Cancelled()))
            with memori.scope("alice"), other.scope("alice"):
                asyncio.run(main())
            assert stored(memori) == stored(other) == ONCE

    def test_of_two_models_keeps_what_both_say(self, memori: Memori) -> None:
        """Fails when one memory serves one model only."""
        models = [registered(memori, Model()), registered(memori, Streaming())]
        with memori.scope("alice"):
            for model in models:
                model.invoke(f"{ASKED} ({type(model).__name__})")
        assert [len(model.requests) for model in models] == [1, 1]
        assert [content for _, content in stored(memori)][::2] == [f"{ASKED} (Model)", f"{ASKED} (Streaming)"]

    @pytest.mark.parametrize("name", ["chatbedrock", "chatopenai", "chatgooglegenai", "chatvertexai"])
    def test_by_the_older_names_is_the_same(self, memori: Memori, name: str) -> None:
        """Fails when code written for the older API does not run."""
        model = Model()
        assert memori.llm.register(**{name: model}) is memori
        with memori.scope("alice"):
            model.invoke(ASKED)
        assert stored(memori) == ONCE

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(lambda: Model().bind(stop=["."]), id="binding"),
            pytest.param(lambda: Model() | StrOutputParser(), id="chain"),
            pytest.param(lambda: create_agent(Model(), []), id="agent"),
            pytest.param(lambda: FakeListLLM(responses=["x"]), id="text model"),
        ],
    )
    def test_of_anything_else_says_what_to_pass(self, memori: Memori, other: Callable[[], Any]) -> None:
        """Fails when what cannot be registered is accepted in silence, or refused without a way on."""
        with pytest.raises(ConfigurationError, match="pass the chat model itself"):
            memori.llm.register(other())


class TestWhoseItIs:
    def test_goes_by_the_scope_of_each_thread_and_task(self, memori: Memori) -> None:
        """Fails when calls made at once mix their users."""
        model = registered(memori, Streaming())
        users = [f"user {number}" for number in range(6)]

        def ask(user: str) -> None:
            with memori.scope(user):
                model.batch([f"{user} says: {number}" for number in range(3)])

        async def aask(user: str) -> None:
            with memori.scope(user):
                async for _ in model.astream(f"{user} says: later"):
                    await asyncio.sleep(0)

        async def all_at_once() -> None:
            await asyncio.gather(*map(aask, users))

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(ask, users))
        asyncio.run(all_at_once())
        for user in users:
            said = [content for role, content in stored(memori, user) if role == "user"]
            assert sorted(said) == [f"{user} says: {number}" for number in (0, 1, 2, "later")]

    def test_is_nobodys_answer_out_of_a_cache_that_was_made_for_another(self, memori: Memori) -> None:
        """Fails when LangChain's cache hands what one user was told to another, or a cached answer is not kept."""
        model = registered(memori, Model(cache=InMemoryCache(), answer=from_memory))
        answers = []
        for user in ("alice", "alice", "bob", "bob"):
            with memori.scope(user):
                answers.append(model.invoke(ASKED).text)
        assert answers == ["Teal.", "Teal.", "I do not know.", "I do not know."]
        assert len(model.requests) == 2
        assert stored(memori)[:2] == ONCE
        assert len(stored(memori)) == len(stored(memori, "bob")) == 4

    def test_is_so_with_the_cache_of_the_whole_program(self, memori: Memori) -> None:
        """Fails when the cache that is set for all models is asked without memories."""
        model = registered(memori, Model(answer=from_memory))

        async def ask(user: str) -> str:
            with memori.scope(user):
                return str((await model.ainvoke(ASKED)).text)

        set_llm_cache(InMemoryCache())
        try:
            assert [asyncio.run(ask(user)) for user in ("alice", "bob")] == ["Teal.", "I do not know."]
        finally:
            set_llm_cache(None)

    def test_is_the_graphs_thread(self, memori: Memori) -> None:
        """Fails when two conversations of one user become one, or the application's own session does not count."""
        agent = create_agent(registered(memori, Model()), [], checkpointer=InMemorySaver())
        for thread, session in (("t1", None), ("t2", None), ("t3", "named")):
            config: RunnableConfig = {"configurable": {"thread_id": thread}}
            with memori.scope("alice", session_id=session):
                agent.invoke(asked(f"{ASKED} ({thread}, {session})"), config)
        assert memori.augmentation.wait(30)
        sessions = {message.content: message.session_id for message in memori.messages(entity_id="alice")}
        assert sessions[f"{ASKED} (t1, None)"] == "t1"
        assert sessions[f"{ASKED} (t2, None)"] == "t2"
        assert sessions[f"{ASKED} (t3, named)"] == "named"


def from_memory(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage("Teal." if TEAL in text(messages) else "I do not know.")


class Failing:
    """An answer that fails so many times first."""

    def __init__(self, times: int) -> None:
        self._left = times

    def __call__(self, messages: list[BaseMessage]) -> AIMessage:
        self._left -= 1
        if self._left >= 0:
            raise ConnectionError("overloaded")
        return AIMessage("Teal.")


class BreakingOff(Streaming):
    """A model that streams, if only to itself, and breaks off in the middle as long as its answer fails."""

    streaming: bool = False

    def _stream(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        self.requests.append(messages)
        yield ChatGenerationChunk(message=AIMessageChunk(content="Te"))
        self.answer(messages)
        yield ChatGenerationChunk(message=AIMessageChunk(content="al."))


class TestOnce:
    @pytest.mark.parametrize("make", [Model, functools.partial(BreakingOff, streaming=True)])
    def test_when_it_is_tried_again(self, memori: Memori, make: Callable[..., Model]) -> None:
        """Fails when each try of a call is an exchange of its own."""
        model = registered(memori, make(answer=Failing(2)))
        with memori.scope("alice"):
            model.with_retry(wait_exponential_jitter=False, stop_after_attempt=3).invoke(ASKED)
        assert [text(messages).count("<memories id=") for messages in model.requests] == [1, 1, 1]
        assert stored(memori) == ONCE

    def test_when_another_model_answers_in_its_place(self, memori: Memori) -> None:
        """Fails when a fallback is not remembered, or what it stood in for is."""
        first, second = registered(memori, Model(answer=Failing(1))), registered(memori, Streaming())
        with memori.scope("alice"):
            list(first.with_fallbacks([second]).stream(ASKED))
        assert stored(memori) == [("user", ASKED), ("assistant", "Teal. ")]

    def test_beside_the_middleware(self, memori: Memori) -> None:
        """Fails when an agent with the middleware, on a model that is registered, is given or keeps things twice."""
        model = registered(memori, Streaming())
        agent = create_agent(model, [], middleware=[MemoriMiddleware(memori)])
        with memori.scope("alice"):
            agent.invoke(asked())
        assert text(model.requests[0]).count("<memories id=") == 1
        assert stored(memori) == ONCE

    @pytest.mark.parametrize("responses", [False, True])
    def test_beside_its_own_client(self, memori: Memori, server: ProviderServer, responses: bool) -> None:
        """Fails when a model and the SDK's client that it asks by, both registered, remember the same call twice."""
        openai = pytest.importorskip("langchain_openai.chat_models")
        server.script(*[Reply(text="Teal.")] * 4)
        model = openai.ChatOpenAI(
            model="gpt", api_key="key", base_url=f"{server.url}/v1", max_retries=0, use_responses_api=responses
        )
        for client in (model, model.root_client, model.root_async_client):
            memori.llm.register(client)

        async def aask() -> None:
            with memori.scope("alice"):
                await model.ainvoke(f"{ASKED} 3")
                async for _ in model.astream(f"{ASKED} 4"):
                    pass
            await model.root_async_client.close()

        with memori.scope("alice"):
            model.invoke(f"{ASKED} 1")
            list(model.stream(f"{ASKED} 2"))
        asyncio.run(aask())
        assert [request.text.count("<memories id=") for request in server.requests] == [1] * 4
        said = [content for _, content in stored(memori)]
        assert said == [item for number in (1, 2, 3, 4) for item in (f"{ASKED} {number}", "Teal.")]

    def test_when_it_asks_another_that_is_registered(self, memori: Memori) -> None:
        """Fails when a model that hands its work to another makes two exchanges of one."""
        inner = registered(memori, Streaming())
        outer = registered(memori, Model(answer=lambda messages: inner.invoke(messages)))
        with memori.scope("alice"):
            outer.invoke(ASKED)
        assert text(inner.requests[0]).count("<memories id=") == 1
        assert stored(memori) == ONCE

    def test_when_its_events_are_listened_to(self, memori: Memori) -> None:
        """Fails when the older kind of events is made of a call without memories, or of two."""
        model = registered(memori, Streaming())

        async def main() -> list[str]:
            with memori.scope("alice"):
                return [event["event"] async for event in model.astream_events(ASKED, version="v2")]

        assert asyncio.run(main()).count("on_chat_model_end") == 1
        assert [text(messages).count("<memories id=") for messages in model.requests] == [1]
        assert stored(memori) == [("user", ASKED), ("assistant", "Teal. ")]

    def test_waits_for_the_rate_limiter_once(self, memori: Memori) -> None:
        """Fails when a registered model counts as two calls against a limit."""

        class Limiter(BaseRateLimiter):
            acquired = 0

            def acquire(self, *, blocking: bool = True) -> bool:
                self.acquired += 1
                return True

            async def aacquire(self, *, blocking: bool = True) -> bool:
                return self.acquire()

        limiter = Limiter()
        model = registered(memori, Streaming(rate_limiter=limiter))
        with memori.scope("alice"):
            model.invoke(ASKED)
            list(model.stream(ASKED))
        assert limiter.acquired == 2


class TestWhatIsNotTheUsers:
    def test_a_summary_that_langchain_asks_for_is_not_remembered(self, memori: Memori) -> None:
        """Fails when the prompt of LangChain's own summaries counts as the user's words, or is given memories."""

        def answer(messages: list[BaseMessage]) -> AIMessage:
            return AIMessage("They like teal." if "ummar" in text(messages[-1:]) else "Teal.")

        model = registered(memori, Model(answer=answer))
        summaries = SummarizationMiddleware(model, trigger=("messages", 3), keep=("messages", 1))
        agent = create_agent(model, [], middleware=[summaries], checkpointer=InMemorySaver())
        config: RunnableConfig = {"configurable": {"thread_id": "t"}}
        with memori.scope("alice"):
            for turn in range(3):
                agent.invoke(asked(f"{ASKED} {turn}"), config)
        without = [messages for messages in model.requests if "<memories id=" not in text(messages)]
        assert len(without) == len(model.requests) - 3 >= 1
        expected = [item for turn in range(3) for item in (("user", f"{ASKED} {turn}"), ("assistant", "Teal."))]
        assert stored(memori) == expected

    def test_what_a_tool_asks_is_given_memories_and_not_kept(self, memori: Memori) -> None:
        """Fails when the words of a model or a tool, put to a model within a tool, become the user's."""
        model = registered(memori, Model(answer=lambda messages: AIMessage("Teal, says the tool.")))

        @tool
        def color_of(whom: str) -> str:
            """Return a favorite color."""
            return str(model.invoke(f"What is the favorite color of {whom}, the user?").text)

        calls = iter([AIMessage("", tool_calls=[{"name": "color_of", "args": {"whom": "Al"}, "id": "1"}])])
        outer = registered(memori, Model(answer=lambda messages: next(calls, AIMessage("Teal."))))
        with memori.scope("alice"):
            create_agent(outer, [color_of]).invoke(asked())
        assert TEAL in text(model.requests[0])
        assert [role for role, _ in stored(memori)] == ["user", "assistant", "tool", "assistant"]
        assert "the user?" not in str(stored(memori))


class TestStreams:
    def test_that_an_agent_shows_are_kept_as_far_as_they_came(self, memori: Memori) -> None:
        """Fails when what an agent's stream has shown is lost because its model broke off."""
        agent = create_agent(registered(memori, BreakingOff(answer=Failing(1))), [])
        with memori.scope("alice"), pytest.raises(ConnectionError, match="overloaded"):
            list(agent.stream(asked(), stream_mode="messages"))
        assert stored(memori) == [("user", ASKED), ("assistant", "Te")]
        assert memori.messages(entity_id="alice")[-1].partial

    @pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
    @pytest.mark.parametrize("left", [False, True])
    def test_of_events_that_a_model_makes_itself_are_kept(self, memori: Memori, left: bool) -> None:
        """Fails when a model with events of its own goes without memories, or its reply is not read out of them."""

        class Native(Model):
            def _stream_chat_model_events(self, messages: list[BaseMessage], **kwargs: Any) -> Iterator[Any]:
                self.requests.append(messages)
                yield {"event": "message-start", "id": "m"}
                yield {"event": "content-block-start", "index": 0, "content": {"type": "text", "text": ""}}
                for word in ("Te", "al."):
                    yield {"event": "content-block-delta", "index": 0, "delta": {"type": "text-delta", "text": word}}
                yield {"event": "content-block-finish", "index": 0, "content": {"type": "text", "text": "Teal."}}
                yield {"event": "message-finish"}

        model = registered(memori, Native())
        with memori.scope("alice"):
            events = model._stream_chat_model_events([HumanMessage(ASKED)])
            if left:
                seen = [next(events) for _ in range(3)]
                assert seen[-1]["delta"]["text"] == "Te"
                events.close()
            else:
                assert str(model.stream_events(ASKED, version="v3").text) == "Teal."
        assert TEAL in text(model.requests[0])
        assert stored(memori) == ([("user", ASKED), ("assistant", "Te")] if left else ONCE)

    def test_that_break_before_anything_is_said_are_tried_again(self, memori: Memori) -> None:
        """Fails when words that are sent again, because nothing came of them, are stored twice."""

        class Hesitant(Streaming):
            def _stream(self, *args: Any, **kwargs: Any) -> Any:
                yield ChatGenerationChunk(message=AIMessageChunk(content=""))
                if not self.requests:
                    self.requests.append([])
                    raise ConnectionError("overloaded")
                yield ChatGenerationChunk(message=AIMessageChunk(content="Teal."))

        model = registered(memori, Hesitant())
        with memori.scope("alice", session_id="one"):
            with pytest.raises(ConnectionError, match="overloaded"):
                list(model.stream(ASKED))
            list(model.stream(ASKED))
        assert stored(memori) == ONCE

    def test_that_are_cancelled_keep_what_came_at_once(self, memori: Memori) -> None:
        """Fails when a task that is cancelled in mid-stream loses what its user has seen."""
        shown = asyncio.Event()

        class Endless(Streaming):
            async def _astream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                yield ChatGenerationChunk(message=AIMessageChunk(content="Te"))
                shown.set()
                await asyncio.Event().wait()

        model = registered(memori, Endless())

        async def ask() -> None:
            async for _ in model.astream(ASKED):
                pass

        async def main() -> None:
            with memori.scope("alice"):
                task = asyncio.create_task(ask())
                await shown.wait()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())
        assert stored(memori) == [("user", ASKED), ("assistant", "Te")]


class TestFailure:
    def test_of_the_database_is_no_failure_of_the_call(self, tmp_path: Path) -> None:
        """Fails when a call does not come through because memory is out of order."""
        with Memori(conn=f"sqlite:///{tmp_path}/missing/folder/memori.db") as memori:
            memori.config.recall_timeout_s = memori.config.capture_timeout_s = 0.2
            memori.config.close_timeout_s = 0.2
            model = registered(memori, Streaming())
            with memori.scope("alice"):
                assert model.invoke(ASKED).text == "Teal."
                assert "".join(chunk.text for chunk in model.stream(ASKED)) == "Teal. "
            assert memori.status().failures > 0

    def test_to_read_a_message_is_no_failure_of_the_call(self, memori: Memori) -> None:
        """Fails when what memori cannot read cannot be asked."""

        class Odd(HumanMessage):
            @property
            def content_blocks(self) -> Any:
                raise ValueError("odd")

        model = registered(memori, Model(answer=lambda messages: AIMessage("Teal.")))
        with memori.scope("alice"):
            assert model.invoke([Odd(content=[{"type": "text", "text": ASKED}])]).text == "Teal."
        assert memori.status().failures == 1

    def test_is_raised_where_that_is_wanted(self, memori: Memori) -> None:
        """Fails when on_error="raise" is not heeded."""
        memori.config.on_error = "raise"

        class Odd(HumanMessage):
            @property
            def content_blocks(self) -> Any:
                raise ValueError("odd")

        with memori.scope("alice"), pytest.raises(ValueError, match="odd"):
            registered(memori, Model()).invoke([Odd(content=[{"type": "text", "text": ASKED}])])

    def test_for_nobody_goes_out_as_it_was_made(self, memori: Memori) -> None:
        """Fails when a call without an entity is refused, or kept for somebody."""
        model = registered(memori, Model())
        assert model.invoke(ASKED).text == "Teal."
        assert text(model.requests[0]) == ASKED
        assert memori.status().skipped == 1
