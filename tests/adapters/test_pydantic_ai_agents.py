"""What Pydantic AI agents with memory may rely on: whose it is, what history holds, registration, tools, failure."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from pydantic_ai import Agent, RunContext
from pydantic_ai.agent import WrapperAgent
from pydantic_ai.capabilities import ProcessHistory
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturn,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel as PydanticTestModel

from memori import ConfigurationError, Memori
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori_pydantic_ai import MemoriCapability, MemoriDeps, MemoriToolset, memory_instructions

KNOWN = "The user's favorite color is teal."
QUESTION = "What is my favorite color?"

Answer = Callable[[list[ModelMessage], AgentInfo], ModelResponse]


@dataclass
class Shopping(MemoriDeps):
    """A user's memory, and more."""

    shop: str = "paint"


class RefusedError(Exception):
    """The model does not answer."""


class Model:
    """A model that answers by a function, and what it was sent."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.requests: list[list[ModelMessage]] = []
        self._answer = answer or (lambda messages, info: said(f"Answer {len(self.requests)}."))
        self.model = FunctionModel(self._whole, stream_function=self._streamed)

    def _whole(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.requests.append(messages)
        return self._answer(messages, info)

    async def _streamed(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        self.requests.append(messages)
        for part in self._answer(messages, info).parts:
            assert isinstance(part, TextPart)
            for word in part.content.split():
                yield f"{word} "

    @property
    def last(self) -> str:
        """All that the last request said, as JSON."""
        return ModelMessagesTypeAdapter.dump_json(self.requests[-1]).decode()


def said(text: str) -> ModelResponse:
    return ModelResponse(parts=[TextPart(text)])


def called(name: str, **arguments: object) -> ModelResponse:
    return ModelResponse(parts=[ToolCallPart(name, arguments)])


def in_turn(*responses: ModelResponse) -> Answer:
    left = iter(responses)
    return lambda messages, info: next(left)


@pytest.fixture
def memori(tmp_path: Path) -> Iterator[Memori]:
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        memori.remember(KNOWN, kind="preference", entity_id="alice")
        yield memori


def stored(memori: Memori, entity_id: str = "alice") -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in memori.messages(entity_id=entity_id)]


def run(agent: Any, prompt: Any, **options: Any) -> Any:
    return asyncio.run(agent.run(prompt, **options))


class TestHistory:
    def test_replayed_over_five_turns(self, memori: Memori) -> None:
        """Fails when a block gets into the history, adds up in requests, or a turn is stored twice."""
        model = Model()
        agent = Agent(model.model, capabilities=[MemoriCapability(memori, user="alice")])
        history: list[ModelMessage] = []
        for turn in range(5):
            result = run(agent, f"{QUESTION} ({turn})", message_history=history)
            assert model.last.count("<memories id=") == 1
            assert len(model.requests[-1]) == 2 * turn + 1
            assert KNOWN.replace("'", "\\'") in model.last or KNOWN in model.last
            as_json = result.all_messages_json()
            assert b"<memories" not in as_json
            history = ModelMessagesTypeAdapter.validate_json(as_json)
        expected = [
            item
            for turn in range(5)
            for item in (("user", f"{QUESTION} ({turn})"), ("assistant", f"Answer {turn + 1}."))
        ]
        assert stored(memori) == expected
        assert {message.session_id for message in memori.messages(entity_id="alice")} == {history[0].conversation_id}

    def test_of_another_process_is_not_stored_again(self, memori: Memori, tmp_path: Path) -> None:
        """Fails when a conversation that goes on after a restart stores what it said before it."""
        agent = Agent(Model().model, capabilities=[MemoriCapability(memori, user="alice")])
        history = run(agent, "I live in Rome.").all_messages_json()
        with Memori(conn=tmp_path / "memori.db") as restarted:
            restarted.config.capture_timeout_s = 10.0
            agent = Agent(Model().model, capabilities=[MemoriCapability(restarted, user="alice")])
            run(agent, "And you?", message_history=ModelMessagesTypeAdapter.validate_json(history))
        assert [content for _, content in stored(memori)] == ["I live in Rome.", "Answer 1.", "And you?", "Answer 1."]

    def test_that_memori_never_saw_is_stored_once(self, memori: Memori) -> None:
        """Fails when messages that the application brings along are lost, or stored with every turn."""
        model = Model()
        agent = Agent(model.model, capabilities=[MemoriCapability(memori, user="alice")])
        brought: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart("I am a nurse.")]), said("I see.")]
        first = run(agent, "Hello.", message_history=brought)
        run(agent, "Bye.", message_history=first.all_messages())
        assert [content for _, content in stored(memori)] == [
            *("I am a nurse.", "I see."),
            *("Hello.", "Answer 1.", "Bye.", "Answer 2."),
        ]

    @pytest.mark.parametrize("first", [True, False])
    def test_that_a_capability_rewrites_never_holds_the_block(self, memori: Memori, first: bool) -> None:
        """Fails when a history processor, before or after memory, writes what was recalled into the history."""
        model = Model()
        processor: ProcessHistory[None] = ProcessHistory(lambda messages: messages)
        memory: MemoriCapability[None] = MemoriCapability(memori, user="alice")
        agent = Agent(model.model, capabilities=[processor, memory] if first else [memory, processor])
        result = run(agent, QUESTION)
        assert model.last.count("<memories id=") == 1
        assert b"<memories" not in result.all_messages_json()

    def test_is_never_changed(self, memori: Memori) -> None:
        """Fails when the caller's own messages are touched."""
        agent = Agent(Model().model, capabilities=[MemoriCapability(memori, user="alice")])
        history = run(agent, QUESTION).all_messages()
        before = ModelMessagesTypeAdapter.dump_json(history)
        run(agent, QUESTION, message_history=history)
        assert ModelMessagesTypeAdapter.dump_json(history) == before


class TestIdentity:
    def test_of_parallel_tasks_on_one_agent(self, memori: Memori) -> None:
        """Fails when a run carries another user's memories, is stored under another user, or blocks the event loop."""
        colors = {"ann": "amber", "ben": "crimson"}
        for user, color in colors.items():
            memori.remember(f"The user's favorite color is {color}.", kind="preference", entity_id=user)
        model = Model(lambda messages, info: said("Noted."))
        agent: Agent[MemoriDeps, str] = Agent(
            model.model, deps_type=MemoriDeps, capabilities=[MemoriCapability(memori)]
        )

        async def one(number: int) -> None:
            user = list(colors)[number % 2]
            question = f"This is {user}, run {number}: what is my favorite color?"
            deps = MemoriDeps(memori, user)
            if number % 3:
                await agent.run(question, deps=deps)
            else:
                async with agent.run_stream(question, deps=deps) as stream:
                    await stream.get_output()

        async def main() -> None:
            await asyncio.sleep(0)
            with blockbuster_ctx("memori"):
                await asyncio.gather(*(one(number) for number in range(30)))

        asyncio.run(main())
        assert len(model.requests) == 30
        for request in model.requests:
            text = ModelMessagesTypeAdapter.dump_json(request).decode()
            user, other = ("ann", "ben") if "This is ann" in text else ("ben", "ann")
            assert colors[user] in text
            assert colors[other] not in text
            assert f"This is {other}" not in text
        for user in colors:
            texts = [content for role, content in stored(memori, user) if role == "user"]
            assert len(texts) == 15
            assert all(text.startswith(f"This is {user}") for text in texts)

    def test_from_the_applications_own_dependencies(self, memori: Memori) -> None:
        """Fails when a resolver is not asked, or a user_id of the dependencies does not count."""

        @dataclass
        class Request:
            account: str

        @dataclass
        class Customer:
            user_id: str

        model = Model()
        by_resolver: Agent[Request, str] = Agent(
            model.model,
            deps_type=Request,
            capabilities=[MemoriCapability[Request](memori, user=lambda ctx: ctx.deps.account)],
        )
        run(by_resolver, "One.", deps=Request("alice"))
        by_protocol: Agent[Customer, str] = Agent(
            model.model, deps_type=Customer, capabilities=[MemoriCapability(memori)]
        )
        run(by_protocol, "Two.", deps=Customer("alice"))
        by_key: Agent[dict[str, str], str] = Agent(
            model.model, deps_type=dict[str, str], capabilities=[MemoriCapability(memori)]
        )
        memori.attribution(entity_id="bob")
        run(by_key, "Three.", deps={"user_id": "alice"})
        run(by_key, "Four.", deps={})
        assert [content for role, content in stored(memori) if role == "user"] == ["One.", "Two.", "Three."]
        assert ("user", "Four.") in stored(memori, "bob")

    @pytest.mark.parametrize("named", [True, False])
    def test_stays_the_runs_when_the_default_changes(self, memori: Memori, named: bool) -> None:
        """Fails when a run works on another's memory because that one came up while its model was answering."""

        def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            memori.attribution(entity_id="bob")
            return called("look") if len(model.requests) == 1 else said("Teal.")

        model = Model(answer)
        agent: Agent[MemoriDeps | None, str] = Agent(model.model, capabilities=[MemoriCapability(memori)])
        found: list[str] = []

        @agent.tool_plain
        def look() -> str:
            """Look it up."""
            found.extend(item.content for item in memori.recall("favorite color"))
            return "looked"

        memori.remember("The user's favorite color is black.", entity_id="bob")
        memori.attribution(entity_id="alice").set_session("ticket")
        run(agent, QUESTION, deps=MemoriDeps(memori, "alice") if named else None)
        assert KNOWN in found
        assert not any("black" in content for content in found)
        assert {item.session_id for item in memori.messages(entity_id="alice")} == {"ticket"}
        assert stored(memori)[-1] == ("assistant", "Teal.")
        assert stored(memori, "bob") == []

    def test_of_scope_and_attribution(self, memori: Memori) -> None:
        """Fails when a run without an identity of its own is not for the current entity, process and session."""
        agent = Agent(Model().model, capabilities=[MemoriCapability(memori)], name="agent")
        with memori.scope(entity_id="alice", process_id="support", session_id="ticket"):
            run(agent, QUESTION)
        assert {(item.process_id, item.session_id) for item in memori.messages(entity_id="alice")} == {
            ("support", "ticket")
        }

    def test_of_nobody_passes_untouched(self, memori: Memori) -> None:
        """Fails when a run for nobody fails, or is given memories."""
        model = Model()
        assert run(Agent(model.model, capabilities=[MemoriCapability(memori)]), QUESTION).output == "Answer 1."
        assert "<memories" not in model.last
        assert memori.status().skipped == 1

    @pytest.mark.parametrize("process", [None, "app"])
    def test_of_an_agent_that_delegates(self, memori: Memori, process: str | None) -> None:
        """Fails when the agent that is called is stored under another user, or under its caller's process."""
        inner_model = Model(lambda messages, info: said("Teal."))
        inner = Agent(inner_model.model, name="painter", capabilities=[MemoriCapability(memori)])
        outer_model = Model(in_turn(called("paint"), said("Painted it teal.")))
        outer = Agent(outer_model.model, name="host", capabilities=[MemoriCapability(memori)])

        @outer.tool_plain
        async def paint() -> str:
            """Ask the painter."""
            return (await inner.run("Which color does the user like?")).output

        with memori.scope(entity_id="alice", process_id=process):
            run(outer, "Paint my room in my favorite color.")
        messages = memori.messages(entity_id="alice")
        assert [(item.process_id, item.content) for item in messages if item.role == "user"] == [
            (process or "host", "Paint my room in my favorite color."),
            ("painter", "Which color does the user like?"),
        ]
        assert "<memories id=" in inner_model.last
        assert len({item.session_id for item in messages}) == 2

    @pytest.mark.parametrize("entry", ["run", "run_stream", "run_stream_events", "iter", "early exit"])
    def test_is_that_of_all_that_a_run_calls(self, memori: Memori, entry: str) -> None:
        """Fails when an agent or a tool within a run works on another's memory, or the run's user stays behind."""
        inner = Agent(Model(lambda messages, info: said("Teal.")).model, capabilities=[MemoriCapability(memori)])
        outer: Agent[MemoriDeps, str] = Agent(
            PydanticTestModel(), deps_type=MemoriDeps, capabilities=[MemoriCapability(memori)]
        )
        within: list[str | None] = []

        @outer.tool_plain
        def note() -> str:
            """Note who it is."""
            within.append(memori.config.entity_id)
            return "noted"

        @outer.tool_plain
        async def paint() -> str:
            """Ask the painter."""
            return (await inner.run(QUESTION)).output

        async def main() -> None:
            deps = MemoriDeps(memori, "alice")
            match entry:
                case "run":
                    await outer.run("Paint.", deps=deps)
                case "run_stream":
                    async with outer.run_stream("Paint.", deps=deps) as stream:
                        await stream.get_output()
                case "run_stream_events":
                    async with outer.run_stream_events("Paint.", deps=deps) as events:
                        async for _ in events:
                            pass
                case _:
                    async with outer.iter("Paint.", deps=deps) as nodes:
                        async for node in nodes:
                            if entry == "early exit" and Agent.is_call_tools_node(node):
                                break
            assert memori.config.entity_id == "bob"

        memori.attribution(entity_id="bob")
        asyncio.run(main())
        assert stored(memori, "bob") == []
        if entry != "early exit":
            assert within == ["alice"]
            assert ("user", QUESTION) in stored(memori)
        assert memori.status().failures == 0

    def test_of_nobody_that_exists_harms_no_run(self, memori: Memori) -> None:
        """Fails when dependencies whose user_id is none that memory takes end the run, or pass unnoticed."""

        @dataclass
        class Numbered:
            user_id: int

        agent: Agent[Numbered, str] = Agent(Model().model, deps_type=Numbered, capabilities=[MemoriCapability(memori)])
        memori.attribution(entity_id="bob")
        assert run(agent, QUESTION, deps=Numbered(7)).output == "Answer 1."
        assert stored(memori, "bob") == []
        assert "must be a string" in str(memori.status().last_failure)


class TestRegistration:
    def test_of_an_agent_is_the_capability(self, memori: Memori) -> None:
        """Fails when a registered agent has no memory in some way to run it, has it twice, or keeps it afterwards."""
        model = Model()
        agent = Agent(model.model, name="host")
        memori.llm.register(agent)
        memori.llm.register(agent)
        memori.attribution(entity_id="alice")
        run(agent, QUESTION)
        assert model.last.count("<memories id=") == 1

        async def streamed() -> None:
            async with agent.run_stream(QUESTION) as stream:
                await stream.get_output()
            async with agent.run_stream_events(QUESTION) as events:
                async for _ in events:
                    pass

        asyncio.run(streamed())
        assert [content for role, content in stored(memori) if role == "user"] == [QUESTION] * 3
        assert type(agent) is Agent
        assert memori.llm.unregister(agent)
        assert not memori.llm.unregister(agent)
        assert "iter" not in vars(agent)
        run(agent, QUESTION)
        assert "<memories" not in model.last

    def test_holds_under_override(self, memori: Memori) -> None:
        """Fails when a test that puts another model in place takes memory away."""
        agent = memori_agent = Agent(Model().model)
        memori.llm.register(memori_agent)
        memori.attribution(entity_id="alice")
        model = Model()
        with agent.override(model=model.model):
            run(agent, QUESTION)
        assert model.last.count("<memories id=") == 1
        with agent.override(model=PydanticTestModel()):
            run(agent, "Second.")
        assert len(stored(memori)) == 4

    @pytest.mark.parametrize("streamed", [False, True])
    def test_of_a_model_serves_whoever_uses_it(self, memori: Memori, streamed: bool) -> None:
        """Fails when a registered model is used without memory, or keeps its type no longer."""
        model = Model()
        memori.llm.register(model.model)
        memori.llm.register(model.model)
        memori.attribution(entity_id="alice", process_id="app")
        agent = Agent(model.model)

        async def main() -> Any:
            if not streamed:
                return await agent.run(QUESTION)
            async with agent.run_stream(QUESTION) as stream:
                await stream.get_output()
            return stream

        result = asyncio.run(main())
        assert model.last.count("<memories id=") == 1
        assert b"<memories" not in result.all_messages_json()
        assert stored(memori) == [("user", QUESTION), ("assistant", "Answer 1." + " " * streamed)]
        assert type(model.model) is FunctionModel
        assert memori.llm.unregister(model.model)
        run(agent, QUESTION)
        assert "<memories" not in model.last

    def test_of_a_model_keeps_what_came_of_a_stream_left_early(self, memori: Memori) -> None:
        """Fails when a registered model's partial reply is lost."""
        model = Model(lambda messages, info: said("one two three four"))
        memori.llm.register(model.model)
        memori.attribution(entity_id="alice")

        async def main() -> None:
            async with Agent(model.model).run_stream("Count.") as stream:
                async for _ in stream.stream_text(delta=True, debounce_by=None):
                    break

        asyncio.run(main())
        assert memori.augmentation.wait(30)
        _, partial = memori.messages(entity_id="alice")
        assert partial.partial
        assert "one two three four".startswith(partial.content.strip())

    def test_of_a_model_leaves_its_parameters_their_names(self, memori: Memori) -> None:
        """Fails when a request of a registered model cannot be made by keyword, as one of a plain model can."""
        model = Model().model
        memori.llm.register(model)
        asked: dict[str, Any] = {
            "messages": [ModelRequest(parts=[UserPromptPart(QUESTION)])],
            "model_settings": None,
            "model_request_parameters": ModelRequestParameters(),
        }

        async def main() -> None:
            await model.request(**asked)
            async with model.request_stream(**asked, run_context=None) as stream:
                async for _ in stream:
                    pass

        with memori.scope(entity_id="alice", session_id="one"):
            asyncio.run(main())
        assert [content for role, content in stored(memori) if role == "assistant"] == ["Answer 1.", "Answer 2. "]

    @pytest.mark.parametrize("by", ["model", "capability"])
    def test_of_a_stream_that_breaks_before_it_says_anything(self, memori: Memori, by: str) -> None:
        """Fails when words that are sent again, because nothing came of them, are stored twice."""

        async def streamed(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
            attempts.append(len(messages))
            if len(attempts) == 1:
                yield ""
                raise RefusedError("no")
            yield "Teal."

        attempts: list[int] = []
        model = FunctionModel(stream_function=streamed)
        agent = Agent(model, capabilities=[MemoriCapability(memori)] if by == "capability" else [])
        if by == "model":
            memori.llm.register(model)

        async def main() -> None:
            async with agent.run_stream(QUESTION) as stream:
                await stream.get_output()

        with memori.scope(entity_id="alice", session_id="one"):
            with pytest.raises(RefusedError):
                asyncio.run(main())
            asyncio.run(main())
        assert memori.augmentation.wait(30)
        assert stored(memori) == [("user", QUESTION), ("assistant", "Teal.")]

    def test_of_everything_at_once_is_one_turn(self, memori: Memori) -> None:
        """Fails when an agent with the capability, registered, on a registered model, recalls or stores twice."""
        model = Model()
        agent = Agent(model.model, capabilities=[MemoriCapability(memori, user="alice", process="own")])
        memori.llm.register(agent)
        memori.llm.register(WrapperAgent(agent))
        memori.llm.register(model.model)
        memori.attribution(entity_id="bob")
        run(agent, QUESTION, capabilities=[MemoriCapability(memori, user="carol")])
        assert model.last.count("<memories id=") == 1
        assert len(stored(memori)) == 2
        assert {item.process_id for item in memori.messages(entity_id="alice")} == {"own"}
        assert stored(memori, "bob") == stored(memori, "carol") == []

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("by", ["capability", "agent", "model"])
    def test_of_the_sdks_client_as_well_is_one_turn(self, memori: Memori, by: str, streamed: bool) -> None:
        """Fails when a registered client is heard twice below an agent's model, or not at all in a tool."""
        pytest.importorskip("pydantic_ai.models.openai", reason="openai is too old for it", exc_type=ImportError)
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        aside = "Is it a warm color?"

        async def main(server: ProviderServer) -> None:
            async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
                model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client))
                agent = Agent(model, capabilities=[MemoriCapability(memori)] if by == "capability" else [])

                @agent.tool_plain
                async def look_up() -> str:
                    """Ask a model of its own."""
                    asked = await client.chat.completions.create(
                        model="gpt-4o-mini", messages=[{"role": "user", "content": aside}]
                    )
                    return str(asked.choices[0].message.content)

                memori.llm.register(client)
                if by != "capability":
                    memori.llm.register(agent if by == "agent" else model)
                if streamed:
                    async with agent.run_stream(QUESTION) as stream:
                        await stream.get_output()
                else:
                    await agent.run(QUESTION)

        memori.attribution(entity_id="alice")
        with ProviderServer() as server:
            server.script(Reply(tool_calls=(ToolCall("look_up"),)), Reply(text="It is not."), Reply(text="Teal."))
            asyncio.run(main(server))
        assert [request.text.count("<memories id=") for request in server.requests] == [1, 1, 1]
        assert memori.augmentation.wait(30)
        said = [message for message in memori.messages(entity_id="alice") if message.kind == "text"]
        assert sorted(message.content for message in said) == sorted([QUESTION, "Teal.", aside, "It is not."])

    def test_with_two_instances_serves_both(self, memori: Memori, tmp_path: Path) -> None:
        """Fails when a second Memori replaces the first on an agent."""
        agent = Agent(Model().model)
        with Memori(conn=tmp_path / "second.db") as second:
            second.config.storage.build()
            second.config.capture_timeout_s = 10.0
            for instance in (memori, second):
                instance.llm.register(agent)
                instance.attribution(entity_id="alice")
            run(agent, "Heard by both.")
            assert memori.llm.unregister(agent)
            run(agent, "Heard by the second.")
            assert [content for role, content in stored(memori) if role == "user"] == ["Heard by both."]
            assert [content for role, content in stored(second) if role == "user"] == [
                "Heard by both.",
                "Heard by the second.",
            ]

    def test_with_two_instances_that_is_cancelled_is_kept_by_both(self, memori: Memori, tmp_path: Path) -> None:
        """Fails when a reply that has come is lost to the second, because the task ended while the first stored it."""

        class Cancelled(PydanticTestModel):
            async def request(self, *args: Any, **kwargs: Any) -> ModelResponse:
                response = await super().request(*args, **kwargs)
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                return response

        model = Cancelled(custom_output_text="Teal.")

        async def main() -> None:
            asked: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart(QUESTION)])]
            with pytest.raises(asyncio.CancelledError):
                await model.request(asked, None, ModelRequestParameters())

        with Memori(conn=tmp_path / "second.db") as second:
            second.config.storage.build()
            for instance in (memori, second):
                instance.llm.register(model)
                instance.attribution(entity_id="alice")
            asyncio.run(main())
            for instance in (memori, second):
                assert instance.augmentation.wait(30)
                assert stored(instance) == [("user", QUESTION), ("assistant", "Teal.")]

    def test_refuses_what_runs_nothing(self, memori: Memori) -> None:
        """Fails when something else of Pydantic AI's is taken in silence."""
        with pytest.raises(ConfigurationError, match="pass an Agent or a Model"):
            memori.llm.register(UserPromptPart("hi"))

    def test_keeps_nothing_alive_once_undone(self, memori: Memori) -> None:
        """Fails when runs that ended, or agents that went, are remembered."""
        from memori_pydantic_ai import capability

        agent = Agent(Model().model)
        memori.llm.register(agent)
        memori.attribution(entity_id="alice")
        run(agent, QUESTION)
        memori.llm.unregister(agent)
        del agent
        gc.collect()
        assert capability._running == set()


class TestMessages:
    def test_system_role(self, memori: Memori) -> None:
        """Fails when injection_role="system" is not honoured, or the application's own prompt does not stay first."""
        memori.config.injection_role = "system"
        model = Model()
        agent = Agent(model.model, system_prompt="Be kind.", capabilities=[MemoriCapability(memori, user="alice")])
        run(agent, QUESTION)
        (request,) = model.requests[-1]
        assert [type(part) for part in request.parts] == [SystemPromptPart, SystemPromptPart, UserPromptPart]
        assert str(getattr(request.parts[0], "content", "")) == "Be kind."
        assert "<memories id=" in str(getattr(request.parts[1], "content", ""))

    def test_system_prompt_and_instructions_stay_as_they_are(self, memori: Memori) -> None:
        """Fails when memory changes what a provider's prompt cache begins with, or stores it."""
        model = Model()
        agent = Agent(
            model.model,
            system_prompt="Be kind.",
            instructions="Be brief.",
            capabilities=[MemoriCapability(memori, user="alice")],
        )
        run(agent, QUESTION)
        (request,) = model.requests[-1]
        assert isinstance(request, ModelRequest)
        assert request.instructions == "Be brief."
        assert [part.content for part in request.parts if isinstance(part, SystemPromptPart)] == ["Be kind."]
        assert stored(memori) == [("user", QUESTION), ("assistant", "Answer 1.")]

    def test_files_are_stored_as_references(self, memori: Memori) -> None:
        """Fails when the bytes of a file end up in the database, or a file leaves no trace."""
        model = Model(in_turn(called("draw"), said("Nice.")))
        agent = Agent(model.model, capabilities=[MemoriCapability(memori, user="alice")])

        @agent.tool_plain
        def draw() -> BinaryContent:
            """Draw something."""
            return BinaryContent(b"\x89PNG drawn", media_type="image/png")

        prompt: Sequence[UserContent] = [
            "What is this?",
            BinaryContent(b"\x89PNG shown", media_type="image/png"),
            ImageUrl("https://example.com/cat.png"),
        ]
        run(agent, prompt)
        (_, asked), _, (_, result), _ = stored(memori)
        assert asked.startswith("What is this?\n[image: image/png, sha256 ")
        assert asked.endswith("]\n[image: https://example.com/cat.png]")
        assert result.startswith("[image: image/png, sha256 ")

    def test_what_a_tool_adds_is_not_the_users_word(self, memori: Memori) -> None:
        """Fails when a page that a tool fetched becomes something that the user said, or is asked for memories."""
        model = Model(in_turn(called("fetch"), said("Done.")))
        agent = Agent(model.model, capabilities=[MemoriCapability(memori, user="alice")])

        @agent.tool_plain
        def fetch() -> ToolReturn[str]:
            """Fetch the page."""
            return ToolReturn(return_value="fetched", content="My favorite color is beige.")

        run(agent, QUESTION)
        assert [content for role, content in stored(memori) if role == "user"] == [QUESTION]
        first, second = model.requests
        assert isinstance(first[0], ModelRequest)
        assert first[0].parts == second[0].parts

    @pytest.mark.parametrize("registered", [False, True])
    @pytest.mark.parametrize("streamed", [False, True])
    def test_a_model_that_falls_back_answers_one_turn(self, memori: Memori, streamed: bool, registered: bool) -> None:
        """Fails when the model that steps in goes without memories, or the first one's failure is stored."""

        def fail(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            raise ModelHTTPError(503, "first")

        second = Model(lambda messages, info: said("Teal."))
        agent = Agent(
            FallbackModel(Model(fail).model, second.model),
            capabilities=[] if registered else [MemoriCapability(memori, user="alice")],
        )
        if registered:
            memori.llm.register(second.model)

        async def main() -> None:
            if streamed:
                async with agent.run_stream(QUESTION) as stream:
                    await stream.get_output()
            else:
                await agent.run(QUESTION)

        with memori.scope("alice"):
            asyncio.run(main())
        assert second.last.count("<memories id=") == 1
        assert [(role, content.strip()) for role, content in stored(memori)] == [
            ("user", QUESTION),
            ("assistant", "Teal."),
        ]
        assert not any(message.partial for message in memori.messages(entity_id="alice"))

    def test_retries_of_output_are_no_words_of_the_users(self, memori: Memori) -> None:
        """Fails when Pydantic AI's own demand to try again is stored as the user's, or the better answer is lost."""
        model = Model(in_turn(said("no"), said("yes")))
        agent = Agent(model.model, capabilities=[MemoriCapability(memori, user="alice")], retries=2)

        @agent.output_validator
        def check(output: str) -> str:
            from pydantic_ai import ModelRetry

            if output != "yes":
                raise ModelRetry("Say yes.")
            return output

        run(agent, QUESTION)
        roles = [role for role, _ in stored(memori)]
        assert roles == ["user", "assistant", "tool", "assistant"]
        assert stored(memori)[-1] == ("assistant", "yes")
        assert "Say yes." in stored(memori)[2][1]
        assert [ModelMessagesTypeAdapter.dump_json(request).count(b"<memories id=") for request in model.requests] == [
            1,
            1,
        ]


class TestDependency:
    def test_in_tools_and_instructions(self, memori: Memori) -> None:
        """Fails when tools and instructions cannot reach the user's memory, or reach another's."""
        model = Model(in_turn(called("note"), called("look"), said("Done.")))
        agent: Agent[Shopping, str] = Agent(model.model, deps_type=Shopping)

        @agent.instructions
        async def known(ctx: RunContext[Shopping]) -> str:
            return "; ".join(item.content for item in await ctx.deps.arecall("favorite color"))

        @agent.tool
        def note(ctx: RunContext[Shopping]) -> str:
            """Note the shop."""
            return ctx.deps.remember(f"The user shops at the {ctx.deps.shop} shop.").content

        @agent.tool
        async def look(ctx: RunContext[Shopping]) -> int:
            """Forget the color."""
            (item,) = await ctx.deps.arecall("favorite color", 1)
            return await ctx.deps.aforget(item.id)

        run(agent, "Go.", deps=Shopping(memori, "alice"))
        assert isinstance(model.requests[0][0], ModelRequest)
        assert KNOWN in str(model.requests[0][0].instructions)
        assert [fact.content for fact in memori.facts(entity_id="alice")] == ["The user shops at the paint shop."]
        assert stored(memori) == []


class TestToolset:
    def test_searches_remembers_and_forgets(self, memori: Memori) -> None:
        """Fails when a model that decides itself cannot use memory, or uses another user's."""
        memori.remember("The user's favorite color is beige.", kind="preference", entity_id="bob")
        theirs = memori.facts(entity_id="bob")[0].id
        mine = memori.facts(entity_id="alice")[0].id
        model = Model(
            in_turn(
                called("search_memory", query="favorite color"),
                called("remember", content="The user owns a boat.", kind="attribute"),
                called("forget", memory_id=theirs),
                called("forget", memory_id=mine),
                said("Done."),
            )
        )
        agent = Agent(
            model.model,
            instructions=memory_instructions(),
            toolsets=[MemoriToolset(memori, user="alice")],
            capabilities=[MemoriCapability(memori, user="alice")],
        )
        result = run(agent, "Tidy up.")
        returned: list[Any] = [
            part.content
            for message in result.all_messages()
            if isinstance(message, ModelRequest)
            for part in message.parts
            if isinstance(part, ToolReturnPart)
        ]
        assert [(item["id"], item["content"]) for item in returned[0]] == [(mine, KNOWN)]
        assert returned[2:] == ["There is no memory with this id.", "Forgotten."]
        (fact,) = memori.facts(entity_id="alice")
        assert (fact.content, fact.kind, fact.trust) == ("The user owns a boat.", "attribute", "assistant")
        assert len(memori.facts(entity_id="bob")) == 1
        # What was recalled is never learned again.
        assert not any("teal" in content for _, content in stored(memori))

    def test_that_cannot_reach_the_database_says_so(self, memori: Memori) -> None:
        """Fails when a search that fails ends the run."""
        model = Model(in_turn(called("search_memory", query="color"), said("Sorry.")))
        agent = Agent(model.model, toolsets=[MemoriToolset(memori)])
        assert run(agent, "Look it up.").output == "Sorry."
        assert "cannot be reached" in model.last
        assert "AttributionError" in str(memori.status().last_failure)

    def test_for_nobody_says_so(self, memori: Memori) -> None:
        """Fails when an application's own function, which cannot say whom a run is for, ends the run by its error."""

        def nobody(ctx: RunContext[object]) -> str:
            raise LookupError("who?")

        model = Model(in_turn(called("remember", content="The user owns a boat."), said("Sorry.")))
        memori.attribution(entity_id="bob")
        agent = Agent(model.model, toolsets=[MemoriToolset(memori, user=nobody)])
        assert run(agent, "Remember it.").output == "Sorry."
        assert "cannot be reached" in model.last
        assert "who?" in str(memori.status().last_failure)
        assert memori.facts(entity_id="bob") == []


class TestHarmless:
    def test_without_tables_or_a_resolvable_user(self, tmp_path: Path) -> None:
        """Fails when a failure of memory is raised into a run, or is not to be seen."""

        def nobody(ctx: RunContext[object]) -> str:
            raise LookupError("who?")

        with Memori(conn=tmp_path / "unbuilt.db") as memori:
            assert run(Agent(Model().model, capabilities=[MemoriCapability(memori, user="ann")]), "Hi.").output
            assert memori.status().pending == 1
            memori.config.storage.build()
            assert memori.augmentation.wait(30)
            assert len(stored(memori, "ann")) == 2
            assert run(Agent(Model().model, capabilities=[MemoriCapability(memori, user=nobody)]), "Hi.").output
            assert "who?" in str(memori.status().last_failure)
            memori.config.on_error = "raise"
            with pytest.raises(LookupError):
                run(Agent(Model().model, capabilities=[MemoriCapability(memori, user=nobody)]), "Hi.")

    def test_closed(self, memori: Memori) -> None:
        """Fails when an agent stops to work with its Memori."""
        agent = Agent(Model().model)
        memori.llm.register(agent)
        memori.attribution(entity_id="alice")
        memori.close()
        assert run(agent, QUESTION).output == "Answer 1."

    def test_cancelled_in_mid_stream(self, memori: Memori) -> None:
        """Fails when the part of a reply that came before the task was cancelled is lost, or the wrong error raised."""
        begun = asyncio.Event()

        async def slowly(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
            yield "one "
            yield "two "
            begun.set()
            await asyncio.sleep(30)
            yield "three"

        agent = Agent(FunctionModel(stream_function=slowly), capabilities=[MemoriCapability(memori, user="alice")])

        @asynccontextmanager
        async def running() -> AsyncIterator[asyncio.Task[None]]:
            async def listen() -> None:
                async with agent.run_stream("Count.") as stream:
                    async for _ in stream.stream_text(debounce_by=None):
                        pass

            task = asyncio.create_task(listen())
            yield task
            with pytest.raises(asyncio.CancelledError):
                await task

        async def main() -> None:
            async with running() as task:
                await begun.wait()
                task.cancel()

        asyncio.run(main())
        assert memori.augmentation.wait(30)
        _, partial = memori.messages(entity_id="alice")
        assert partial.partial
        assert partial.content.startswith("one")


def test_without_pydantic_ai_it_says_what_to_install() -> None:
    """Fails when a missing extra is an ImportError that names a module, not what to install."""
    code = "import sys; sys.modules['pydantic_ai'] = None; import memori_pydantic_ai"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'memori-byodb[pydantic-ai]'" in ended.stderr
