"""Agno's agents and teams with memory: whose it is, whose words they are, what is refused, and doing no harm."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agno.agent", exc_type=ImportError)
pytest.importorskip("agno.models.openai", reason="openai is too old for it", exc_type=ImportError)

from agno.agent import Agent
from agno.agent._hooks import execute_post_hooks, execute_pre_hooks
from agno.db.base import SessionType
from agno.db.in_memory import InMemoryDb
from agno.exceptions import InputCheckError, OutputCheckError
from agno.learn import LearningMachine
from agno.learn.stores.protocol import LearningStore
from agno.media import Image
from agno.memory import MemoryManager
from agno.models.message import Message as AgnoMessage
from agno.models.openai import OpenAIChat
from agno.run import RunContext
from agno.run.agent import RunInput, RunOutput
from agno.session import AgentSession
from agno.team import Team
from agno.tools import tool
from agno.tools.function import ToolResult
from agno.workflow import Step, Workflow

from memori import ConfigurationError, Memori
from memori.testing.provider import ProviderRequest, ProviderServer, Reply, ToolCall
from memori_agno import MemoriMemoryManager, MemoriStore, memori_agent_kwargs, runs

ASKED = "Which dish suits my favorite food?"


def echo(request: ProviderRequest) -> str:
    """Answer with whose food the request knows."""
    told = "\n".join(turn.text for turn in request.turns)
    return "Known: " + ", ".join(sorted(set(re.findall(r"food is (\w+)", told))))


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(answer=echo) as server:
        yield server


@pytest.fixture
def memori(tmp_path: Path) -> Iterator[Memori]:
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori


@pytest.fixture
def model(server: ProviderServer) -> Iterator[OpenAIChat]:
    model = OpenAIChat(id="gpt-4o-mini", api_key="local", base_url=f"{server.url}/v1", retries=0)
    from openai import OpenAI

    with OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
        model.client = client
        yield model


def database() -> InMemoryDb:
    return InMemoryDb()  # type: ignore[no-untyped-call]


def stored(memori: Memori, user: str = "ann") -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in memori.messages(entity_id=user)]


def sent(server: ProviderServer, at: int = -1) -> str:
    return "\n".join(turn.text for turn in server.requests[at].turns)


def likes(memori: Memori, **foods: str) -> None:
    for user, food in foods.items():
        memori.remember(f"The user's favorite food is {food}.", entity_id=user)


FOODS = {"ann": "ramen", "bob": "pizza"}


def menu() -> str:
    """Return what there is to eat."""
    return "Soup."


class TestIdentity:
    def test_of_interleaved_runs_on_one_agent(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when one user's memories or words reach the other's run on the same agent and the same database."""
        likes(memori, **FOODS)
        agent = Agent(
            name="waiter",
            model=model,
            telemetry=False,
            db=database(),
            add_history_to_context=True,
            **memori_agent_kwargs(memori),
        )
        for turn in range(3):
            for user, food in FOODS.items():
                said = agent.run(f"{turn}: {ASKED}", user_id=user, session_id=f"{user}'s").content
                assert said == f"Known: {food}"
        for user, food in FOODS.items():
            words = [content for role, content in stored(memori, user) if role == "user"]
            assert words == [f"{turn}: {ASKED}" for turn in range(3)]
            answers = {content for role, content in stored(memori, user) if role == "assistant"}
            assert answers == {f"Known: {food}"}

    def test_of_threads_on_one_agent(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when runs in threads on one agent mix up their users."""
        likes(memori, **FOODS)
        agent = Agent(name="waiter", model=model, telemetry=False, **memori_agent_kwargs(memori))
        start = threading.Barrier(4)

        def ask(number: int) -> None:
            user = ("ann", "bob")[number % 2]
            start.wait(timeout=30)
            for _ in range(3):
                events: Any = agent.run(ASKED, user_id=user, session_id=f"{user}{number}", stream=True)
                said = "".join(event.content for event in events if event.event == "RunContent")
                assert said == f"Known: {FOODS[user]}"

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))
        for user, food in FOODS.items():
            assert set(stored(memori, user)) == {("user", ASKED), ("assistant", f"Known: {food}")}
            assert len(stored(memori, user)) == 12

    def test_of_tasks_on_one_agent(self, memori: Memori, server: ProviderServer) -> None:
        """Fails when runs in parallel tasks on one agent mix up their users."""
        likes(memori, **FOODS)

        async def main() -> None:
            from openai import AsyncOpenAI

            async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
                model = OpenAIChat(id="gpt-4o-mini", async_client=client)
                agent = Agent(name="waiter", model=model, telemetry=False, **memori_agent_kwargs(memori))

                async def ask(user: str, number: int) -> None:
                    if number % 2:
                        said = (await agent.arun(ASKED, user_id=user, session_id=f"{user}{number}")).content
                    else:
                        said = ""
                        events: Any = agent.arun(ASKED, user_id=user, session_id=f"{user}{number}", stream=True)
                        async for event in events:
                            said += event.content if event.event == "RunContent" else ""
                    assert said == f"Known: {FOODS[user]}"

                await asyncio.gather(*(ask(user, number) for number in range(4) for user in FOODS))

        asyncio.run(main())
        for user, food in FOODS.items():
            assert set(stored(memori, user)) == {("user", ASKED), ("assistant", f"Known: {food}")}
            assert len(stored(memori, user)) == 8

    @pytest.mark.parametrize("kind", ["agent", "team"])
    def test_of_runs_while_a_stream_is_open(self, memori: Memori, model: OpenAIChat, kind: str) -> None:
        """Fails when a run, of another user or session or agent, is lost as if it were inside a stream nobody reads."""
        hooks = memori_agent_kwargs(memori)
        waiter = Agent(name="waiter", model=model, telemetry=False, **hooks)
        team = Team(name="kitchen", members=[Agent(name="cook", model=model)], model=model, telemetry=False, **hooks)
        streaming: Any = {"agent": waiter, "team": team}[kind]
        other = Agent(name="barkeeper", model=model, telemetry=False, **hooks)
        events: Any = streaming.run("I am Zed.", user_id="zed", session_id="monday", stream=True)
        assert next(event for event in events if "Content" in event.event)
        other.run("I like tea.", user_id="zed", session_id="monday")
        waiter.run("I like rye.", user_id="zed", session_id="tuesday")
        other.run("I am Bob.", user_id="bob", session_id="monday")
        thread = threading.Thread(
            target=other.run, args=("I like ale.",), kwargs={"user_id": "bob", "session_id": "monday"}
        )
        thread.start()
        thread.join(30)
        list(events)
        assert {content for role, content in stored(memori, "zed") if role == "user"} == {
            "I am Zed.",
            "I like tea.",
            "I like rye.",
        }
        assert [content for role, content in stored(memori, "bob") if role == "user"] == ["I am Bob.", "I like ale."]

    def test_of_a_task_begun_while_a_stream_is_read(self, memori: Memori, server: ProviderServer) -> None:
        """Fails when what a task asks is lost because it was begun while tools of another user's run were at work."""

        async def main() -> None:
            from openai import AsyncOpenAI

            async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
                model = OpenAIChat(id="gpt-4o-mini", async_client=client)
                waiter = Agent(name="waiter", model=model, telemetry=False, tools=[menu], **memori_agent_kwargs(memori))
                other = Agent(name="barkeeper", model=model, telemetry=False, **memori_agent_kwargs(memori))
                server.script(Reply(tool_calls=(ToolCall("menu", {}),)))
                events: Any = waiter.arun("I am Ann.", user_id="ann", session_id="s", stream=True, stream_events=True)
                async for event in events:
                    if event.event == "ToolCallStarted":
                        await asyncio.create_task(other.arun("I am Bob.", user_id="bob", session_id="b"))

        asyncio.run(main())
        assert [content for role, content in stored(memori, "bob") if role == "user"] == ["I am Bob."]
        assert [content for role, content in stored(memori) if role == "user"] == ["I am Ann."]

    def test_of_a_session_that_agno_shares(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when history that Agno replays from another user is stored as this user's."""
        agent = Agent(
            name="waiter",
            model=model,
            telemetry=False,
            db=database(),
            add_history_to_context=True,
            **memori_agent_kwargs(memori),
        )
        # Without a session of its own each run goes on with the agent's last one.
        agent.run("My name is Ann.", user_id="ann")
        agent.run("My name is Bob.", user_id="bob")
        assert [content for role, content in stored(memori, "bob") if role == "user"] == ["My name is Bob."]
        assert [content for role, content in stored(memori, "ann") if role == "user"] == ["My name is Ann."]

    def test_of_scope_and_attribution(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when a run without a user is not for the current entity, or the application's process is overruled."""
        likes(memori, **FOODS)
        memori.attribution("ann", "support")
        memori.llm.register(model)
        agent = Agent(model=model, telemetry=False)
        assert agent.run(ASKED).content == "Known: ramen"
        with memori.scope("bob", session_id="named"):
            assert agent.run(ASKED).content == "Known: pizza"
        assert {message.process_id for message in memori.messages(entity_id="ann")} == {"support"}
        assert {message.session_id for message in memori.messages(entity_id="bob")} == {"named"}

    def test_of_nobody_passes_untouched(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when a run for nobody is given memories, or fails."""
        likes(memori, **FOODS)
        agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
        assert agent.run(ASKED).content == "Known: "
        assert "<memories" not in sent(server)
        assert memori.status().skipped == 1


TASK = "Cook something. My favorite color is red."
DELEGATED = Reply(tool_calls=(ToolCall("delegate_task_to_member", {"member_id": "cook", "task": TASK}),))


class TestDelegation:
    def test_to_a_member_with_memory_of_its_own(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when a leader's task is stored as the user's word, or the member is not recalled for."""
        likes(memori, ann="ramen")
        cook = Agent(name="cook", role="Cooks", model=model, telemetry=False, **memori_agent_kwargs(memori))
        team = Team(name="kitchen", members=[cook], model=model, telemetry=False)
        server.script(DELEGATED, Reply(text="Soup."), Reply(text="Here is soup."))
        team.run("What do I eat?", user_id="ann", session_id="s")
        assert "favorite food is ramen" in sent(server, 1)
        assert sent(server, 0).count("<memories id=") == sent(server, 2).count("<memories id=") == 0
        messages = memori.messages(entity_id="ann")
        assert [(message.role, message.author, message.content) for message in messages] == [
            ("assistant", "kitchen", TASK),
            ("assistant", None, "Soup."),
        ]
        assert {message.process_id for message in messages} == {"cook"}
        assert memori.augmentation.wait(30)
        assert [fact.content for fact in memori.facts(entity_id="ann", kinds=["preference"])] == []

    def test_within_a_team_that_remembers_is_stored_once(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when what a member answers is stored both as the leader's tool's result and by itself."""
        cook = Agent(name="cook", role="Cooks", model=model, telemetry=False, **memori_agent_kwargs(memori))
        team = Team(name="kitchen", members=[cook], model=model, telemetry=False, **memori_agent_kwargs(memori))
        server.script(DELEGATED, Reply(text="Soup."), Reply(text="Here is soup."))
        events: Any = team.run("What do I eat?", user_id="ann", session_id="s", stream=True)
        list(events)
        assert stored(memori) == [
            ("user", "What do I eat?"),
            ("assistant", f"delegate_task_to_member({json.dumps({'member_id': 'cook', 'task': TASK})})"),
            ("tool", "Soup."),
            ("assistant", "Here is soup."),
        ]

    @pytest.mark.parametrize("stream", [False, True])
    def test_to_a_member_that_answers_the_user(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer, stream: bool
    ) -> None:
        """Fails when a member's answer that the leader hands on unread is not stored, or is stored twice."""
        hooks = memori_agent_kwargs(memori)
        cook = Agent(name="cook", role="Cooks", model=model, telemetry=False, **hooks)
        team: Any = Team(name="kitchen", members=[cook], model=model, telemetry=False, respond_directly=True, **hooks)
        server.script(DELEGATED, Reply(text="Soup."))
        run = team.run("What do I eat?", user_id="ann", session_id="s", stream=stream)
        if stream:
            list(run)
        assert stored(memori) == [
            ("user", "What do I eat?"),
            ("assistant", f"delegate_task_to_member({json.dumps({'member_id': 'cook', 'task': TASK})})"),
            ("tool", "Soup."),
        ]

    @pytest.mark.parametrize("entry", ["run", "stream", "arun"])
    def test_to_a_member_is_kept_when_the_leader_then_fails(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer, entry: str
    ) -> None:
        """Fails when a member's answer is lost because the leader's next request was refused, or is stored twice."""
        hooks = memori_agent_kwargs(memori)
        cook = Agent(name="cook", role="Cooks", model=model, telemetry=False, **hooks)
        team: Any = Team(name="kitchen", members=[cook], model=model, telemetry=False, **hooks)
        model.retries, model.delay_between_retries = 1, 0
        server.script(DELEGATED, Reply(text="Soup."), *[Reply(status=503, error_message="no")] * 2)
        options: Any = {"user_id": "ann", "session_id": "s"}
        if entry == "arun":

            async def main() -> None:
                from openai import AsyncOpenAI

                async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
                    model.async_client = client
                    await team.arun("What do I eat?", **options)

            asyncio.run(main())
        else:
            run = team.run("What do I eat?", stream=entry == "stream", **options)
            if entry == "stream":
                list(run)
        assert memori.augmentation.wait(30)
        assert len(server.requests) == 4
        assert stored(memori) == [
            ("user", "What do I eat?"),
            ("assistant", f"delegate_task_to_member({json.dumps({'member_id': 'cook', 'task': TASK})})"),
            ("tool", "Soup."),
        ]

    def test_in_a_stream_that_a_web_server_takes_up_in_many_contexts(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when a member's task is taken for the user's word because each piece of the stream has a context."""
        memori.llm.register(model)
        cook = Agent(name="cook", role="Cooks", model=model, telemetry=False)
        team = Team(name="kitchen", members=[cook], model=model, telemetry=False)
        server.script(DELEGATED, Reply(text="Soup."), Reply(text="Here is soup."))
        events: Any = team.run("What do I eat?", user_id="ann", session_id="s", stream=True)
        while contextvars.copy_context().run(next, events, None) is not None:
            pass
        assert [content for role, content in stored(memori) if role == "user"] == ["What do I eat?"]
        assert [content for _, content in stored(memori)].count("Soup.") == 1

    def test_is_not_what_a_user_repeats(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when a user who says what the agent has just said is taken for a step of a workflow."""
        agent = Agent(name="waiter", model=model, telemetry=False, **memori_agent_kwargs(memori))
        server.script(Reply(text="Hello!"), Reply(text="Hello again!"))
        agent.run("Good morning!", user_id="ann", session_id="s")
        agent.run("Hello!", user_id="ann", session_id="s")
        assert [content for role, content in stored(memori) if role == "user"] == ["Good morning!", "Hello!"]

    def test_is_not_what_a_user_repeats_to_another_agent(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when one agent's answer, said to another by the user, is taken for a step of a workflow."""
        first, second = (
            Agent(name=name, model=model, telemetry=False, db=database(), **memori_agent_kwargs(memori))
            for name in ("one", "two")
        )
        server.script(Reply(text="Begin."), Reply(text="My favorite color is blue."))
        # Also in a session that a workflow was in.
        steps: Any = [Step(name="one", agent=first)]
        Workflow(name="flow", steps=steps, telemetry=False, db=database()).run("Hi.", user_id="ann", session_id="s")
        first.run("Name a color.", user_id="ann", session_id="s")
        second.run("My favorite color is blue.", user_id="ann", session_id="s")
        assert [content for role, content in stored(memori) if role == "user"] == [
            "Hi.",
            "Name a color.",
            "My favorite color is blue.",
        ]

    def test_by_a_tool_that_runs_another_agent(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when a prompt that a model wrote in a tool call is stored as the user's word."""
        memori.llm.register(model)
        expert = Agent(name="expert", model=model, telemetry=False)

        def consult(question: str) -> str:
            """Ask the expert."""
            return str(expert.run(question, user_id="ann", session_id="expert").content)

        agent = Agent(name="waiter", model=model, telemetry=False, tools=[consult])
        server.script(
            Reply(tool_calls=(ToolCall("consult", {"question": TASK}),)), Reply(text="Soup."), Reply(text="It is soup.")
        )
        agent.run("What do I eat?", user_id="ann", session_id="s")
        assert [content for role, content in stored(memori) if role == "user"] == ["What do I eat?"]
        assert [content for _, content in stored(memori)].count("Soup.") == 1
        # The next run is the user's again.
        agent.run("And now?", user_id="ann", session_id="s")
        assert [content for role, content in stored(memori) if role == "user"] == ["What do I eat?", "And now?"]

    def test_by_a_tool_in_a_stream_that_a_web_server_takes_up_in_many_contexts(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when the task of an agent that a tool runs is the user's word because each piece has a context."""
        hooks = memori_agent_kwargs(memori)
        expert = Agent(name="expert", model=model, telemetry=False, **hooks)

        def consult(question: str) -> str:
            """Ask the expert."""
            return str(expert.run(question, user_id="ann", session_id="s").content)

        agent = Agent(name="waiter", model=model, telemetry=False, tools=[consult], **hooks)
        server.script(
            Reply(tool_calls=(ToolCall("consult", {"question": TASK}),)), Reply(text="Soup."), Reply(text="It is soup.")
        )
        events: Any = agent.run("What do I eat?", user_id="ann", session_id="s", stream=True, stream_events=True)
        while contextvars.copy_context().run(next, events, None) is not None:
            pass
        assert [content for role, content in stored(memori) if role == "user"] == ["What do I eat?"]
        assert [content for _, content in stored(memori)].count("Soup.") == 1
        # The next run, of whichever agent, is the user's again.
        expert.run("And now?", user_id="ann", session_id="s")
        assert [content for role, content in stored(memori) if role == "user"] == ["What do I eat?", "And now?"]

    @pytest.mark.parametrize("registered", [True, False])
    def test_from_step_to_step_of_a_workflow(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer, registered: bool
    ) -> None:
        """Fails when what one step answers is stored as the user's word when the next is asked."""
        if registered:
            memori.llm.register(model)
        options: Any = {} if registered else memori_agent_kwargs(memori)
        steps: Any = [
            Step(name=name, agent=Agent(name=name, model=model, telemetry=False, **options)) for name in ("one", "two")
        ]
        server.script(Reply(text="My favorite color is red."), Reply(text="Done."))
        Workflow(name="flow", steps=steps, telemetry=False).run("Begin.", user_id="ann", session_id="s")
        assert stored(memori) == [
            ("user", "Begin."),
            ("assistant", "My favorite color is red."),
            ("assistant", "Done."),
        ]
        assert {message.process_id for message in memori.messages(entity_id="ann")} == {"one", "two"}


def refuse_input(run_input: RunInput) -> None:
    raise InputCheckError("not this")


def refuse_output(run_output: RunOutput) -> None:
    if "secret" in str(run_output.content):
        raise OutputCheckError("not this")


class TestHooks:
    def test_of_the_application_refuse_what_is_said(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when refused input is sent or stored."""
        agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori, pre_hooks=[refuse_input]))
        agent.run("Tell me a secret.", user_id="ann", session_id="s")
        assert server.requests == []
        assert stored(memori) == []

    def test_of_the_application_refuse_what_is_answered(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when a refused reply is stored, the user's words are lost with it, or an accepted one is lost."""
        agent = Agent(
            name="waiter", model=model, telemetry=False, **memori_agent_kwargs(memori, post_hooks=[refuse_output])
        )
        server.script(Reply(text="The secret is 42."), Reply(text="Good evening."), Reply(text="Good evening."))
        agent.run("Tell me a secret.", user_id="ann", session_id="s")
        assert stored(memori) == [("user", "Tell me a secret.")]
        agent.run("Good evening!", user_id="ann", session_id="s")
        agent.run("Once more.", user_id="ann", session_id="s")
        assert stored(memori)[1:] == [
            ("user", "Good evening!"),
            ("assistant", "Good evening."),
            ("user", "Once more."),
            ("assistant", "Good evening."),
        ]

    def test_in_the_background_do_not_put_memory_off(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when an AgentOS that runs hooks in the background leaves a run without memory, or copies it."""

        class Tasks:
            def __init__(self) -> None:
                self.added: list[Any] = []

            def add_task(self, task: Any, **arguments: Any) -> None:
                self.added.append(task)

        likes(memori, ann="ramen")
        tasks = Tasks()
        hooks: Any = memori_agent_kwargs(memori, pre_hooks=[lambda run_input: None], post_hooks=[refuse_output])
        agent = Agent(name="waiter", model=model, telemetry=False, **hooks)
        agent._run_hooks_in_background = True
        run_input, context = RunInput(ASKED), RunContext(run_id="r", session_id="s", user_id="ann")
        run = RunOutput(
            run_id="r", user_id="ann", session_id="s", agent_name="waiter", agent_id="waiter", input=run_input
        )
        session = AgentSession(session_id="s")
        options: Any = {"session": session, "run_context": context, "user_id": "ann", "background_tasks": tasks}
        list(execute_pre_hooks(agent, agent.pre_hooks, run_response=run, run_input=run_input, **options))  # type: ignore[arg-type]
        said = model.response([AgnoMessage(role="user", content=ASKED)], run_response=run)
        list(execute_post_hooks(agent, agent.post_hooks, run_output=run, **options))  # type: ignore[arg-type]
        assert said.content == "Known: ramen"
        assert len(tasks.added) == 2
        assert stored(memori) == [("user", ASKED), ("assistant", "Known: ramen")]

    @pytest.mark.parametrize("first", ["run", "arun"])
    def test_hold_for_run_and_arun_on_one_agent(self, memori: Memori, server: ProviderServer, first: str) -> None:
        """Fails when the colour of an agent's first run decides for all that follow."""
        likes(memori, ann="ramen")
        kwargs = memori_agent_kwargs(memori)
        model = OpenAIChat(id="gpt-4o-mini", api_key="local", base_url=f"{server.url}/v1", retries=0)
        agent = Agent(name="waiter", model=model, telemetry=False, **kwargs)

        async def arun() -> str:
            from openai import AsyncOpenAI

            async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
                model.async_client = client
                return str((await agent.arun(ASKED, user_id="ann", session_id="s")).content)

        def run() -> str:
            from openai import OpenAI

            with OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
                model.client = client
                return str(agent.run(ASKED, user_id="ann", session_id="s").content)

        said = [run(), asyncio.run(arun())] if first == "run" else [asyncio.run(arun()), run()]
        assert said == ["Known: ramen"] * 2
        assert len(stored(memori)) == 4

    def test_say_nothing_where_there_is_no_database(
        self, memori: Memori, model: OpenAIChat, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fails when an agent without a database warns, or goes without memory."""
        likes(memori, ann="ramen")
        monkeypatch.setattr(logging.getLogger("agno"), "propagate", True)
        with caplog.at_level(logging.WARNING):
            agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
            assert agent.run(ASKED, user_id="ann", session_id="s").content == "Known: ramen"
        assert caplog.records == []


class TestSession:
    @pytest.mark.parametrize("by", ["run_response", "run_id"])
    def test_that_was_paused_goes_on_with_memory(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer, by: str
    ) -> None:
        """Fails when a run that waits for a confirmation is continued without memory, or is stored twice."""
        likes(memori, ann="ramen")

        @tool(requires_confirmation=True)
        def order(dish: str) -> str:
            """Order a dish."""
            return f"Ordered {dish}."

        hooks = memori_agent_kwargs(memori, post_hooks=[refuse_output])
        agent = Agent(name="waiter", model=model, telemetry=False, tools=[order], db=database(), **hooks)
        server.script(Reply(tool_calls=(ToolCall("order", {"dish": "ramen"}),)), Reply(text="Done."))
        paused = agent.run(ASKED, user_id="ann", session_id="s")
        assert paused.is_paused
        for requirement in paused.requirements or ():
            requirement.confirm()  # type: ignore[no-untyped-call]
        if by == "run_response":
            agent.continue_run(run_response=paused)
        else:
            agent.continue_run(run_id=paused.run_id, session_id="s", requirements=paused.requirements)
        assert [sent(server, at).count("<memories id=") for at in (0, 1)] == [1, 1]
        assert stored(memori) == [
            ("user", ASKED),
            ("assistant", 'order({"dish": "ramen"})'),
            ("tool", "Ordered ramen."),
            ("assistant", "Done."),
        ]

    @pytest.mark.parametrize("way", ["hooks", "learning store", "memory manager", "model"])
    @pytest.mark.parametrize("ends", ["well", "with an error", "early"])
    def test_holds_no_memories(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer, way: str, ends: str
    ) -> None:
        """Fails when what was recalled is in the session that Agno stores, however the run ends."""
        likes(memori, ann="ramen")
        db = database()
        options: dict[str, Any] = {}
        if way == "hooks":
            options = {**memori_agent_kwargs(memori)}
        elif way == "learning store":
            store = MemoriStore(memori)
            assert isinstance(store, LearningStore)
            options = {"learning": LearningMachine(custom_stores={"memori": store})}
        elif way == "memory manager":
            options = {"memory_manager": MemoriMemoryManager(memori), "update_memory_on_run": True}
        else:
            memori.llm.register(model)
        agent = Agent(id="waiter", model=model, telemetry=False, db=db, **options)
        if ends == "with an error":
            server.script(Reply(status=400, error_message="no"))
        elif ends == "early":
            server.script(Reply(text="One two three four five six seven.", chunk_delay_s=0.01))
        if ends == "early":
            events: Any = agent.run(ASKED, user_id="ann", session_id="s", stream=True)
            next(event for event in events if getattr(event, "content", None))
            events.close()
        else:
            agent.run(ASKED, user_id="ann", session_id="s")
        assert sent(server, 0).count("<memories id=") == 1
        deadline = time.monotonic() + 30
        while len(stored(memori)) < 2 and ends != "with an error":
            assert time.monotonic() < deadline
            time.sleep(0.005)
        sessions: Any = db.get_sessions(session_type=SessionType.AGENT)
        kept = json.dumps([session.to_dict() for session in sessions], default=str)
        assert "<memories id=" not in kept
        assert "ramen" not in kept or ends == "well"

    def test_replayed_is_not_stored_again(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when history that Agno sends along is stored a second time."""
        agent = Agent(
            name="waiter",
            model=model,
            telemetry=False,
            db=database(),
            add_history_to_context=True,
            **memori_agent_kwargs(memori),
        )
        for number in range(4):
            agent.run(f"This is message {number}.", user_id="ann", session_id="s")
        assert [content for role, content in stored(memori) if role == "user"] == [
            f"This is message {number}." for number in range(4)
        ]


class TestWords:
    def test_that_agno_adds_are_not_the_users(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when dependencies or references that Agno puts into the user's message are stored as their words."""
        agent = Agent(
            model=model, telemetry=False, dependencies={"weather": "rain"}, add_dependencies_to_context=True,
            additional_input=[AgnoMessage(role="user", content="I am an example.")],
            **memori_agent_kwargs(memori),
        )  # fmt: skip
        agent.run("I live in Rome.", user_id="ann", session_id="s")
        assert "rain" in sent(server)
        assert "I am an example." in sent(server)
        assert [content for role, content in stored(memori) if role == "user"] == ["I live in Rome."]

    def test_with_tools_files_and_lists_of_messages(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when a file's bytes are stored, or what Agno says for a tool is taken for the user."""

        def draw() -> ToolResult:
            """Draw a picture."""
            return ToolResult(content="Drawn.", images=[Image(url="https://example.com/drawn.png")])

        agent = Agent(model=model, telemetry=False, tools=[draw], **memori_agent_kwargs(memori))
        server.script(Reply(tool_calls=(ToolCall("draw", {}),)), Reply(text="There."))
        picture = Image(content=b"\x89PNG0123", mime_type="image/png")
        given = [
            AgnoMessage(role="user", content="I have a cat."),
            AgnoMessage(role="assistant", content="Nice."),
            AgnoMessage(role="user", content="Draw it.", images=[picture]),
        ]
        agent.run(given, user_id="ann", session_id="s")
        words = [content for role, content in stored(memori) if role == "user"]
        assert words[0] == "I have a cat."
        assert words[1].startswith("Draw it.\n[image: image/png, sha256 ")
        assert len(words) == 2
        assert ("tool", "Drawn.") in stored(memori)

    def test_in_the_system_role(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when `injection_role="system"` does not put the block into the system prompt, in that request alone."""
        likes(memori, ann="ramen")
        memori.config.injection_role = "system"
        agent = Agent(model=model, telemetry=False, instructions="Be brief.", **memori_agent_kwargs(memori))
        run = agent.run(ASKED, user_id="ann", session_id="s")
        first = server.requests[-1].turns[0]
        assert first.role in ("system", "developer")
        assert first.text.startswith("Be brief.")
        assert "favorite food is ramen" in first.text
        assert "<memories" not in json.dumps(run.to_dict(), default=str)


class TestRegistration:
    def test_of_an_agent_is_the_hook_and_can_be_undone(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when registering twice counts twice, changes the application's lists, or leaves something behind."""
        likes(memori, ann="ramen")
        own = [refuse_output]
        hooks: Any = own
        agent = Agent(model=model, telemetry=False, post_hooks=hooks)
        before = set(vars(model))
        memori.llm.register(agent)
        memori.llm.register(agent)
        assert own == [refuse_output]
        assert agent.run(ASKED, user_id="ann", session_id="s").content == "Known: ramen"
        assert len(stored(memori)) == 2
        assert memori.llm.unregister(agent)
        assert not memori.llm.unregister(agent)
        assert agent.run(ASKED, user_id="ann", session_id="s").content == "Known: "
        assert len(stored(memori)) == 2
        memori.llm.register(openai_chat=model)
        assert memori.llm.unregister(model)
        assert vars(model).keys() == before
        assert agent.pre_hooks is None

    def test_of_an_agent_that_ran_already(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when an agent whose hooks Agno has read already is registered in vain."""
        likes(memori, ann="ramen")
        agent = Agent(model=model, telemetry=False)
        agent.run(ASKED, user_id="ann", session_id="s")
        memori.llm.register(agent)
        assert agent.run(ASKED, user_id="ann", session_id="s").content == "Known: ramen"

    def test_goes_with_copies_that_agno_makes(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when a copy of an agent has no memory, or a copy of a model asks the original."""
        likes(memori, ann="ramen")
        agent = Agent(name="waiter", model=model, telemetry=False, **memori_agent_kwargs(memori))
        twin = agent.deep_copy()
        assert twin.run(ASKED, user_id="ann", session_id="s").content == "Known: ramen"
        memori.llm.register(model)
        other = copy.deepcopy(model)
        other.id = "another"
        other.client = model.client
        assert Agent(model=other, telemetry=False).run(ASKED, user_id="ann", session_id="s").content == "Known: ramen"
        assert server.requests[-1].body["model"] == "another"
        assert [content for role, content in stored(memori) if role == "user"] == [ASKED] * 2
        plain = copy.copy(model)
        assert type(plain).invoke.__get__(plain) == plain.invoke

    @pytest.mark.parametrize("hooked", [False, True])
    def test_leaves_agnos_own_work_alone(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer, hooked: bool
    ) -> None:
        """Fails when a summary that Agno asks the same model for is taken for a conversation."""
        memori.attribution("ann")
        memori.llm.register(model)
        agent = Agent(model=model, telemetry=False, db=database(), enable_session_summaries=True)
        if hooked:
            memori.llm.register(agent)
        server.script(Reply(text="Hello."), Reply(text='{"summary": "Nothing.", "topics": []}'))
        agent.run("Hi there.", user_id="ann", session_id="s")
        assert len(server.requests) == 2
        assert stored(memori) == [("user", "Hi there."), ("assistant", "Hello.")]

    def test_leaves_agnos_own_memory_manager_alone(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when what Agno's own manager asks a copy of the model for is taken for a conversation."""
        memori.attribution("ann")
        memori.llm.register(model)
        manager = MemoryManager()
        agent = Agent(model=model, telemetry=False, db=database(), memory_manager=manager, update_memory_on_run=True)
        agent.run("Hi there.", user_id="ann", session_id="s")
        assert len(server.requests) == 2
        assert sorted(sent(server, at).count("<memories id=") for at in (0, 1)) == [0, 0]
        assert [content for role, content in stored(memori) if role == "user"] == ["Hi there."]
        assert len(stored(memori)) == 2

    def test_of_a_model_holds_without_an_agent(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when a registered model that is asked by itself goes without memory."""
        likes(memori, ann="ramen")
        memori.attribution("ann")
        memori.llm.register(model)
        assert model.response([AgnoMessage(role="user", content=ASKED)]).content == "Known: ramen"
        assert stored(memori) == [("user", ASKED), ("assistant", "Known: ramen")]

    def test_with_two_instances_serves_both(self, memori: Memori, model: OpenAIChat, tmp_path: Path) -> None:
        """Fails when one `Memori` on an agent keeps the other from its part."""
        with Memori(conn=tmp_path / "other.db") as other:
            other.config.storage.build()
            agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
            other.llm.register(agent)
            agent.run("Hi.", user_id="ann", session_id="s")
            assert stored(memori) == stored(other) == [("user", "Hi."), ("assistant", "Known: ")]

    def run(self, server: ProviderServer, *memoris: Memori) -> Any:
        from openai import OpenAI

        with OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
            model = OpenAIChat(id="gpt-4o-mini", client=client, retries=0)
            for memori in memoris:
                memori.llm.register(model)
            return Agent(model=model, telemetry=False).run("Hi.", user_id="ann", session_id="s")

    def arun(
        self, server: ProviderServer, *memoris: Memori, meanwhile: Callable[[asyncio.Task[Any]], None] | None = None
    ) -> Any:
        async def main() -> Any:
            from openai import AsyncOpenAI

            async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
                model = OpenAIChat(id="gpt-4o-mini", async_client=client, retries=0)
                for memori in memoris:
                    memori.llm.register(model)
                agent = Agent(model=model, telemetry=False)
                task = asyncio.ensure_future(agent.arun("Hi.", user_id="ann", session_id="s"))
                if meanwhile is not None:
                    meanwhile(task)
                await asyncio.wait([task])
                return None if task.cancelled() else task.result()

        return asyncio.run(main())

    @pytest.mark.parametrize("entry", ["run", "arun"])
    def test_with_two_instances_one_of_which_fails(self, memori: Memori, tmp_path: Path, entry: str) -> None:
        """Fails when the error that one instance is to raise costs the other the exchange."""

        def answer(request: ProviderRequest) -> str:
            with sqlite3.connect(tmp_path / "failing.db") as connection:
                connection.execute("ALTER TABLE memori_entity RENAME TO hidden")
            connection.close()
            return "Hello."

        with Memori(conn=tmp_path / "failing.db", on_error="raise") as failing, ProviderServer(answer=answer) as server:
            failing.config.storage.build()
            run = (self.run if entry == "run" else self.arun)(server, failing, memori)
            assert run.status.value == "ERROR"
            assert stored(memori) == [("user", "Hi."), ("assistant", "Hello.")]
            with sqlite3.connect(tmp_path / "failing.db") as connection:
                connection.execute("ALTER TABLE hidden RENAME TO memori_entity")
            connection.close()

    def test_with_two_instances_when_cancelled_while_the_first_stores(self, memori: Memori, tmp_path: Path) -> None:
        """Fails when a task that is cancelled while one instance stores its reply costs the other the exchange."""
        locks: list[sqlite3.Connection] = []

        def answer(request: ProviderRequest) -> str:
            locks.append(sqlite3.connect(tmp_path / "slow.db", isolation_level=None, check_same_thread=False))
            locks[0].execute("BEGIN EXCLUSIVE")
            return "Hello."

        def cancel(task: asyncio.Task[Any]) -> None:
            if slow.status().pending:
                task.cancel()
            else:
                asyncio.get_running_loop().call_later(0.005, cancel, task)

        with Memori(conn=tmp_path / "slow.db") as slow, ProviderServer(answer=answer) as server:
            slow.config.storage.build()
            slow.config.recall_timeout_s = slow.config.capture_timeout_s = 60.0
            try:
                self.arun(server, slow, memori, meanwhile=cancel)
            finally:
                locks[0].close()
            for instance in (memori, slow):
                assert instance.augmentation.wait(30)
                assert stored(instance) == [("user", "Hi."), ("assistant", "Hello.")]

    def test_refuses_what_runs_nothing(self, memori: Memori) -> None:
        """Fails when something of Agno's without a model is accepted, or the message does not say what to pass."""
        with pytest.raises(ConfigurationError, match="pass a Model, an Agent or a Team"):
            memori.llm.register(Workflow(name="flow"))


class TestHarmless:
    def test_without_tables(
        self, tmp_path: Path, model: OpenAIChat, server: ProviderServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Fails when a database that cannot be used fails the run, or is not in the log and the status."""
        with Memori(conn=tmp_path / "unbuilt.db") as memori:
            agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
            run = agent.run(ASKED, user_id="ann", session_id="s")
            assert run.content == "Known: "
            assert run.status.value == "COMPLETED"
            assert memori.status().failures > 0
            assert any(record.name == "memori" for record in caplog.records)

    def test_closed(self, memori: Memori, model: OpenAIChat) -> None:
        """Fails when an agent cannot be run any more once its memory is closed."""
        agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
        memori.close()
        assert agent.run(ASKED, user_id="ann", session_id="s").content == "Known: "

    def test_when_the_model_refuses_and_then_answers(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when a request that was not answered is stored, or the next one is not."""
        agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
        server.script(Reply(status=400, error_message="no"))
        assert agent.run("Hi.", user_id="ann", session_id="s").status.value == "ERROR"
        assert stored(memori) == []
        agent.run("Hi.", user_id="ann", session_id="s")
        assert stored(memori) == [("user", "Hi."), ("assistant", "Known: ")]

    def test_when_the_garbage_collector_closes_a_stream(
        self, memori: Memori, model: OpenAIChat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fails when a run never returns because an abandoned stream is closed while one is noted."""
        agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
        abandoned: list[Any] = [agent.run("One.", user_id="ann", session_id="s", stream=True)]
        assert next(event for event in abandoned[0] if event.event == "RunContent")
        remember = runs._remember

        def interrupted(*arguments: Any) -> None:
            abandoned.clear()  # As the collector may, whenever something is made.
            remember(*arguments)

        monkeypatch.setattr(runs, "_remember", interrupted)
        run = threading.Thread(
            target=agent.run, args=("Two.",), kwargs={"user_id": "bob", "session_id": "s"}, daemon=True
        )
        run.start()
        run.join(30)
        assert not run.is_alive()
        assert stored(memori, "bob")[0] == ("user", "Two.")

    def test_when_a_stream_breaks_off(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when what came of a broken stream is lost."""
        agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
        server.script(Reply(text="One two three four five six seven.", cut_after=4))
        events: Any = agent.run("Count.", user_id="ann", session_id="s", stream=True)
        list(events)
        end = time.monotonic() + 30
        while len(stored(memori)) < 2 and time.monotonic() < end:
            time.sleep(0.005)
        assert stored(memori)[0] == ("user", "Count.")
        assert stored(memori)[1][1].startswith("One")
        assert memori.messages(entity_id="ann")[1].partial

    def test_when_a_stream_breaks_off_before_anything_was_said(
        self, memori: Memori, model: OpenAIChat, server: ProviderServer
    ) -> None:
        """Fails when what the user has to ask again is stored twice."""
        agent = Agent(model=model, telemetry=False, **memori_agent_kwargs(memori))
        server.script(Reply(text="One two three.", cut_after=1), Reply(text="One."))
        for _ in range(2):
            events: Any = agent.run("Count.", user_id="ann", session_id="s", stream=True)
            list(events)
        assert memori.augmentation.wait(30)
        assert stored(memori) == [("user", "Count."), ("assistant", "One.")]

    def test_by_a_fallback_model(self, memori: Memori, model: OpenAIChat, server: ProviderServer) -> None:
        """Fails when the model that answers in another one's place is not listened to."""
        likes(memori, ann="ramen")
        other = copy.copy(model)
        agent = Agent(model=model, telemetry=False, fallback_models=[other], **memori_agent_kwargs(memori))
        agent.fallback_config.on_error[0].client = model.client  # type: ignore[union-attr]
        server.script(Reply(status=500, error_message="no"))
        assert agent.run(ASKED, user_id="ann", session_id="s").content == "Known: ramen"
        assert stored(memori) == [("user", ASKED), ("assistant", "Known: ramen")]
