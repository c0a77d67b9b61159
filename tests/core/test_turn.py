"""What adapters of frameworks build on: a turn begun by `Memori.turn`, and finished."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from memori import Memori
from memori.types import Message

QUESTION = Message(role="user", content="What is my favorite color?")
ANSWER = Message(role="assistant", content="Blue.")


@pytest.fixture
def memori(tmp_path: Path) -> Iterator[Memori]:
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        memori.remember("The user's favorite color is blue.", kind="preference", entity_id="alice")
        yield memori


def stored(memori: Memori, entity_id: str = "alice") -> list[str]:
    return [message.content for message in memori.messages(entity_id=entity_id)]


def test_a_turn_recalls_and_records_once(memori: Memori) -> None:
    """Fails when a turn has no memories, or what was said is not stored, or is stored twice."""
    turn = memori.turn([QUESTION], provider="acme", entity_id="alice", process_id="agent", session_id="chat")
    assert turn is not None
    assert "favorite color is blue" in str(turn.block)
    assert turn.role == "user"
    turn.finish([ANSWER], model="m")
    turn.finish([ANSWER], model="m")
    first, second = memori.messages(entity_id="alice")
    assert (first.content, second.content) == (QUESTION.content, ANSWER.content)
    assert (first.process_id, first.session_id, first.partial) == ("agent", "chat", False)
    assert memori.config.llm.provider == "acme"


def test_a_turn_without_an_identity_of_its_own_has_the_current_one(memori: Memori) -> None:
    """Fails when scope and attribution do not count for turns."""
    with memori.scope(entity_id="alice", process_id="agent", session_id="named"):
        turn = memori.turn([QUESTION], provider="acme", session_id="framework's")
    assert turn is not None
    turn.finish([ANSWER], model=None)
    assert {(item.process_id, item.session_id) for item in memori.messages(entity_id="alice")} == {("agent", "named")}


def test_a_named_session_is_not_another_entitys(memori: Memori) -> None:
    """Fails when the session that the application named for one user takes in another's conversation."""
    memori.attribution(entity_id="alice").set_session("alice's")
    turn = memori.turn([QUESTION], provider="acme", entity_id="bob", session_id="bob's")
    assert turn is not None
    turn.finish([ANSWER], model=None)
    assert {item.session_id for item in memori.messages(entity_id="bob")} == {"bob's"}


def test_a_turn_for_nobody_passes_untouched(memori: Memori) -> None:
    """Fails when a turn without an entity raises, or is stored under some entity."""
    assert memori.turn([QUESTION], provider="acme") is None
    assert memori.status().skipped == 1


@pytest.mark.parametrize("entity_id", ["", "  ", 7])
def test_an_entity_that_cannot_be_one_never_harms_the_call(memori: Memori, entity_id: str) -> None:
    """Fails when an adapter's wrong id is raised into the user's call, or goes unsaid."""
    assert memori.turn([QUESTION], provider="acme", entity_id=entity_id) is None
    assert "entity_id" in str(memori.status().last_failure)
    memori.config.on_error = "raise"
    with pytest.raises((TypeError, ValueError)):
        memori.turn([QUESTION], provider="acme", entity_id=entity_id)


def test_blocks_are_not_stored(memori: Memori) -> None:
    """Fails when what was recalled is learned again, because the framework keeps it or the model repeats it."""
    first = memori.turn([QUESTION], provider="acme", entity_id="alice")
    assert first is not None
    block = str(first.block)
    history = [Message(role="user", content=block), Message(role="user", content=f"{block}\n{QUESTION.content}")]
    turn = memori.turn(history, provider="acme", entity_id="alice", session_id="chat")
    assert turn is not None
    turn.finish([Message(role="assistant", content=f"{block}\nBlue.")], model=None)
    assert stored(memori) == [QUESTION.content, "Blue."]


def test_blocks_in_what_tools_are_told_are_not_stored(memori: Memori) -> None:
    """Fails when a model that repeats what was recalled to a tool, or a tool that returns it, makes it new again."""
    first = memori.turn([QUESTION], provider="acme", entity_id="alice")
    assert first is not None
    arguments = json.dumps({"text": f"{first.block}\nNote this.", "more": ["<b>"]})
    call = Message(role="assistant", kind="tool_call", content=f"note({arguments})")
    turn = memori.turn(
        [QUESTION, call, Message(role="tool", kind="tool_result", content=arguments)],
        provider="acme",
        entity_id="alice",
        session_id="chat",
    )
    assert turn is not None
    turn.finish([ANSWER], model=None)
    kept = json.dumps({"text": "Note this.", "more": ["<b>"]})
    assert stored(memori) == [QUESTION.content, f"note({kept})", kept, ANSWER.content]


def test_json_that_is_nested_too_deep_is_stored_as_it_is(memori: Memori) -> None:
    """Fails when what a tool returned, or a model said, can end the user's call."""
    deep = "[" * 20_000 + '"<memories"' + "]" * 20_000
    sent = [Message(role="user", content="Hello."), Message(role="tool", kind="tool_result", content=deep)]
    turn = memori.turn(sent, provider="p", entity_id="alice")
    assert turn is not None
    turn.finish([Message(role="assistant", content=deep)], model="m")
    assert stored(memori) == ["Hello.", deep, deep]


def test_the_requests_of_a_tool_loop_have_one_block(memori: Memori) -> None:
    """Fails when each hop of a tool loop recalls anew."""
    loop = [
        QUESTION,
        Message(role="assistant", content="look()", kind="tool_call"),
        Message(role="tool", content="nothing", kind="tool_result"),
    ]
    first = memori.turn(loop[:1], provider="acme", entity_id="alice", session_id="chat")
    assert first is not None
    first.finish(loop[1:2], model=None)
    memori.remember("The user's favorite color is red.", kind="preference", entity_id="alice")
    second = memori.turn(loop, provider="acme", entity_id="alice", session_id="chat")
    assert second is not None
    assert second.block == first.block
    second.finish([ANSWER], model=None)
    assert stored(memori) == [QUESTION.content, "look()", "nothing", "Blue."]


def test_asynchronously_without_blocking_the_loop(memori: Memori) -> None:
    """Fails when beginning or finishing a turn stalls the event loop."""

    async def main() -> None:
        await asyncio.sleep(0)
        with blockbuster_ctx("memori"):
            with memori.scope(entity_id="alice"):
                turn = await memori.aturn([QUESTION], provider="acme")
            assert turn is not None
            assert "blue" in str(turn.block)
            await turn.afinish([ANSWER], model=None, partial=True)

    asyncio.run(main())
    assert [message.partial for message in memori.messages(entity_id="alice")] == [False, True]


def test_cancelled_while_it_is_stored_it_is_stored(memori: Memori) -> None:
    """Fails when the cancellation of a task loses the reply that it had received."""

    async def main() -> None:
        turn = await memori.aturn([QUESTION], provider="acme", entity_id="alice")
        assert turn is not None
        task = asyncio.create_task(turn.afinish([ANSWER], model=None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert memori.augmentation.wait(30)
    assert stored(memori) == [QUESTION.content, "Blue."]


def test_a_model_remembers_on_its_own_word(memori: Memori) -> None:
    """Fails when what a model decides to remember counts as much as what the application says."""
    fact = memori.remember("The user owns a boat.", trust="assistant", entity_id="alice")
    assert fact.trust == "assistant"


def test_a_turn_that_only_records_recalls_nothing(memori: Memori) -> None:
    """Fails when what only records is given memories, or does not record."""
    turn = memori.turn([QUESTION], provider="acme", entity_id="alice", session_id="chat", recall=False)
    assert turn is not None
    assert turn.block is None
    turn.finish([ANSWER], model=None)
    assert stored(memori) == [QUESTION.content, ANSWER.content]
