"""LangChain's callbacks: what a model has said so far, and capture for chains where nothing else fits."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from memori import Memori, Message, Turn
from memori_langchain.messages import model_name, reply, sent
from memori_langchain.turn import is_under_way

__all__ = ["Heard", "MemoriCallbackHandler", "hearing"]


class Heard(BaseCallbackHandler):
    """What the model that was asked last has said so far."""

    run_inline = True  # It only notes: to go to a thread for each token would cost more.

    def __init__(self) -> None:
        self._chunks: list[AIMessageChunk] = []
        self._texts: list[str] = []

    def message(self) -> BaseMessage | None:
        """Return it as one message; None when nothing came."""
        chunks = self._chunks or [AIMessageChunk(content=text) for text in self._texts]
        if not chunks:
            return None
        first, *rest = chunks
        return first + rest if rest else first

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self._chunks, self._texts = [], []

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        message = getattr(chunk, "message", None)
        if isinstance(message, AIMessageChunk):
            self._chunks.append(message)

    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        if event.get("event") == "content-block-delta" and event["delta"].get("type") == "text-delta":
            self._texts.append(event["delta"]["text"])


_heard: ContextVar[Heard | None] = ContextVar("memori_langchain_heard", default=None)
register_configure_hook(_heard, inheritable=True)


@contextmanager
def hearing(heard: Heard) -> Iterator[None]:
    """Let *heard* listen to the models that are asked within the ``with`` block."""
    token = _heard.set(heard)
    try:
        yield
    finally:
        _heard.reset(token)


_CALLS = 1000  # Under way at once; of one that was forgotten, nothing is recorded.
# Calls that LangChain's own middleware makes for itself.
_INTERNAL = ("lc_source", "lc_internal_call")


class MemoriCallbackHandler(BaseCallbackHandler):
    """Records what the models of a chain are asked and say: ``chain.invoke(…, {"callbacks": [handler]})``.

    It only captures, for a callback cannot change what a model is sent. Of a stream that is left early what came is
    stored; a call that fails leaves nothing. Not beside a registered model, a middleware's excepted: both would record.

    Args:
        user: Whom runs are for. A run's own ``metadata["user_id"]`` goes before. None: the current entity of
            ``mem.scope`` or ``mem.attribution``.
        process: The program's name in memory. None: the current process.
    """

    def __init__(self, memori: Memori, *, user: str | None = None, process: str | None = None) -> None:
        self._memori = memori
        self._user = user
        self._process = process
        # Python may collect a stream that was left, which ends its call here, in the midst of what holds the lock.
        self._lock = threading.RLock()
        self._turns: OrderedDict[UUID, Turn] = OrderedDict()

    def on_chat_model_start(
        self,
        serialized: Mapping[str, Any],
        messages: Sequence[Sequence[BaseMessage]],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take in what a model is asked."""
        try:
            said = sent(messages[0])
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self._memori.failed(error)
            return
        self._begin(said, run_id, metadata or {})

    def on_llm_start(
        self,
        serialized: Mapping[str, Any],
        prompts: Sequence[str],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take in what a model that completes texts is asked."""
        self._begin([Message(role="user", content=prompts[0])], run_id, metadata or {})

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Record what it said."""
        if turn := self._ended(run_id):
            said, model = self._read(response)
            turn.finish(said, model=model)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Record what it said until then, if anything."""
        if turn := self._ended(run_id):
            said, model = self._read(kwargs.get("response"))
            if said:
                turn.finish(said, model=model, partial=True, wait=False)

    def _begin(self, said: Sequence[Message], run_id: UUID, metadata: Mapping[str, Any]) -> None:
        if is_under_way(self._memori) or any(name in metadata for name in _INTERNAL):
            return
        session = metadata.get("session_id") or metadata.get("thread_id")
        user = metadata.get("user_id")
        turn = self._memori.turn(
            said,
            provider=str(metadata.get("ls_provider") or "langchain"),
            entity_id=self._user if user is None else user,
            process_id=self._process,
            session_id=None if session is None else str(session),
            recall=False,
        )
        if turn is None:
            return
        with self._lock:
            self._turns[run_id] = turn
            if len(self._turns) > _CALLS:
                self._turns.popitem(last=False)

    def _ended(self, run_id: UUID) -> Turn | None:
        with self._lock:
            return self._turns.pop(run_id, None)

    def _read(self, response: LLMResult | None) -> tuple[Sequence[Message], str | None]:
        if response is None or not response.generations or not response.generations[0]:
            return (), None
        generation = response.generations[0][0]
        message = getattr(generation, "message", None) or AIMessage(generation.text)
        try:
            return reply(message), model_name(message)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self._memori.failed(error)
            return (), None
