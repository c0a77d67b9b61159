"""A conversation's messages kept in memory, for those who are still on ``RunnableWithMessageHistory``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.runnables.config import run_in_executor

from memori import Memori, StoredMessage
from memori_langchain.messages import sent

__all__ = ["MemoriChatMessageHistory"]


class MemoriChatMessageHistory(BaseChatMessageHistory):
    """The messages of one session of a user: ``RunnableWithMessageHistory(chain, lambda session_id: …)``.

    It keeps a conversation and learns from it; it recalls nothing from others. What is added is stored exactly so often
    as it is added: not for chains whose model is registered as well.

    Args:
        session_id: The conversation's name.
        user_id: Whose it is. None: the current entity of ``mem.scope`` or ``mem.attribution``.
        process_id: The program's name in memory. None: the current process.
        limit: At most so many of the latest messages are returned. None: all.
    """

    def __init__(
        self,
        memori: Memori,
        session_id: str,
        *,
        user_id: str | None = None,
        process_id: str | None = None,
        limit: int | None = None,
    ) -> None:
        self._memori = memori
        self._session_id = session_id
        self._user_id = user_id
        self._process_id = process_id
        self._limit = limit

    @property  # As LangChain's own histories have it.
    def messages(self) -> list[BaseMessage]:
        """The conversation, oldest first. Calls of tools whose results are not there, and the other way round, are not.

        Raises:
            AttributionError: No user is set.
            StorageError: The database did not answer.
        """
        stored = self._memori.messages(session_id=self._session_id, entity_id=self._user_id, limit=self._limit)
        return list(_messages(stored))

    @messages.setter
    def messages(self, messages: list[BaseMessage]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise AttributeError("messages cannot be set: add_messages(...) adds to them")

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store *messages* as said now. Where the database is down they are kept, and stored when it is back."""
        turn = self._memori.turn(
            (),
            provider="langchain",
            entity_id=self._user_id,
            process_id=self._process_id,
            session_id=self._session_id,
            recall=False,
        )
        if turn is not None:
            turn.finish(sent(messages), model=None)

    def clear(self) -> None:
        """Raise: memory forgets a user, or a fact, but no single conversation.

        Raises:
            NotImplementedError: Always; it says what to do.
        """
        raise NotImplementedError(
            "begin another conversation by another session_id; mem.forget(everything=True) erases all of a user's"
        )

    async def aclear(self) -> None:
        """Do what `clear` does."""
        await run_in_executor(None, self.clear)


def _messages(stored: Sequence[StoredMessage]) -> Iterator[BaseMessage]:
    at = 0
    while at < len(stored):
        message = stored[at]
        if message.role == "user":
            yield HumanMessage(message.content, name=message.author)
            at += 1
            continue
        # What a model said and called at once, and what came of that.
        said, called, came = "", [], []
        if message.role == "assistant" and message.kind == "text":
            said, at = message.content, at + 1
        while at < len(stored) and stored[at].kind == "tool_call":
            called.append(stored[at])
            at += 1
        while at < len(stored) and stored[at].kind == "tool_result":
            came.append(stored[at])
            at += 1
        yield from _said(said, called, came)


def _said(said: str, called: Sequence[StoredMessage], came: Sequence[StoredMessage]) -> Iterator[BaseMessage]:
    answered: list[tuple[StoredMessage, StoredMessage]] = []
    left = list(came)
    for call in called:
        result = next((item for item in left if item.author in (None, _name(call))), None)
        if result is not None:
            left.remove(result)
            answered.append((call, result))
    if said or answered:
        calls = [tool_call(name=_name(call), args=_arguments(call), id=f"memori-{call.id}") for call, _ in answered]
        yield AIMessage(said, tool_calls=calls)
    for call, result in answered:
        yield ToolMessage(result.content, name=_name(call), tool_call_id=f"memori-{call.id}")


def _name(call: StoredMessage) -> str:
    return call.content.partition("(")[0]


def _arguments(call: StoredMessage) -> dict[str, object]:
    text = call.content.partition("(")[2].removesuffix(")")
    try:
        arguments = json.loads(text)
    except ValueError:
        return {"input": text}
    return arguments if isinstance(arguments, dict) else {"input": arguments}
