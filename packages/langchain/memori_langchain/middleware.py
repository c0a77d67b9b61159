"""The middleware that gives an agent memory: each model call recalls, and what was said is recorded."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import BaseMessage, SystemMessage, ToolMessage
from langgraph.runtime import Runtime

from memori import Memori, Message, Turn
from memori.types import Attribution
from memori_langchain.callbacks import Heard, hearing
from memori_langchain.context import User, Whose, whose
from memori_langchain.messages import model_name, sent, takes_parts, with_block
from memori_langchain.tools import MemoriSearchTool
from memori_langchain.turn import is_under_way, under_way

__all__ = ["MemoriMiddleware"]

log = logging.getLogger("memori")

# Conversations whose first words have no whole answer yet; of one that was forgotten, they are stored once more.
_UNANSWERED = 1000


class MemoriMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Gives an agent memory: ``create_agent(model, tools, middleware=[MemoriMiddleware(mem)])``.

    What is known on the user's last words goes into each model call of a run, never into the thread; what is said,
    called and returned is stored as it happens: of a run that is interrupted, fails or is left early, as far as it
    came. The thread is the session, unless the application named one. Failures of memory's never harm a run; a run
    for nobody is an error of the application's, and raised.

    An agent that a tool calls is given memories and records nothing: what it is told are a model's words, not the
    user's, and what it answers is in the conversation of the agent that called it.

    Args:
        user: Whom runs are for, or what returns it from a run's `Runtime`. A run's context goes before a fixed one.
            None: the context's ``user_id``, else the LangGraph server's user, else the current entity of ``mem.scope``
            or ``mem.attribution``.
        process: The agent's name in memory. None: the context's ``process_id``, else the current process, else the
            agent's own name.
        search: Whether the agent also gets the tool ``search_memory``.
    """

    def __init__(self, memori: Memori, *, user: User = None, process: str | None = None, search: bool = False) -> None:
        super().__init__()
        self._memori = memori.ready()
        self._user = user
        self._process = process
        # Python may collect a run that was left, which ends its call here, in the midst of what holds the lock.
        self._lock = threading.RLock()
        self._unanswered: OrderedDict[Attribution, tuple[Message, ...]] = OrderedDict()
        self.tools = [MemoriSearchTool(memori=memori, user=user)] if search else []

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Raise where the run is for nobody, before anything is asked or retried."""
        self._whose(runtime)

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Do what `before_agent` does."""
        self._whose(runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model with memories, and record what it was asked and said."""
        call = self._call(request)
        if call is None:
            return handler(request)
        turn = self._memori.turn(call.said, **call.options)
        request = self._with_memories(request, turn)
        heard = Heard()
        try:
            with under_way(self._memori), hearing(heard):
                response = handler(request)
        except BaseException:
            self._interrupted(call, turn, heard)
            raise
        if recording := self._recording(call, turn):
            recording.finish(self._read(response.result), model=_model(response))
        self._answered(turn)
        return response

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Do what `wrap_model_call` does, without blocking the event loop."""
        call = self._call(request)
        if call is None:
            return await handler(request)
        turn = await self._memori.aturn(call.said, **call.options)
        request = self._with_memories(request, turn)
        heard = Heard()
        try:
            with under_way(self._memori), hearing(heard):
                response = await handler(request)
        except BaseException:
            self._interrupted(call, turn, heard)
            raise
        if recording := self._recording(call, turn):
            await recording.afinish(self._read(response.result), model=_model(response))
        self._answered(turn)
        return response

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Record what tools returned that no model was told any more."""
        if (call := self._ending(state, runtime)) and (turn := self._memori.turn(call.said, **call.recording)):
            turn.finish((), model=None)

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Do what `after_agent` does, without blocking the event loop."""
        if (call := self._ending(state, runtime)) and (turn := await self._memori.aturn(call.said, **call.recording)):
            await turn.afinish((), model=None)

    def _whose(self, runtime: Runtime[Any]) -> Whose:
        return whose(self._memori, self._user, self._process, runtime)

    def _call(self, request: ModelRequest[Any]) -> _Call | None:
        if is_under_way(self._memori):
            return None
        # Of the thread: what others add to, or leave out of, this one request was not said.
        messages = request.state.get("messages") or request.messages
        return _Call(self._read(messages), self._whose(request.runtime), _provider(request.model))

    def _ending(self, state: AgentState[Any], runtime: Runtime[Any]) -> _Call | None:
        messages = state["messages"]
        if not messages or not isinstance(messages[-1], ToolMessage):
            return None
        call = _Call(self._read(messages), self._whose(runtime), "langchain")
        return None if call.whose.delegated else call

    def _with_memories(self, request: ModelRequest[Any], turn: Turn | None) -> ModelRequest[Any]:
        if turn is None or turn.block is None:
            return request
        prompt = [] if request.system_message is None else [request.system_message]
        try:
            messages: list[Any] = with_block(
                [*prompt, *request.messages], turn.block, role=turn.role, in_parts=takes_parts(request.model)
            )
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self._memori.failed(error)
            return request
        first = messages[0]
        if isinstance(first, SystemMessage) and (prompt or turn.role == "system"):
            return request.override(system_message=first, messages=messages[1:])
        return request.override(messages=messages)

    def _read(self, messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
        try:
            return sent(messages)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self._memori.failed(error)
            return ()

    def _interrupted(self, call: _Call, turn: Turn | None, heard: Heard) -> None:
        """Record what there is, while an error is on its way to the caller: ours must not take its place."""
        if turn is None or call.whose.delegated:
            return
        try:
            if recording := self._recording(call, turn):
                message = heard.message()
                said = () if message is None else self._read([message])
                recording.finish(said, model=None, partial=True, wait=False)
        except Exception:
            log.exception("an interrupted turn could not be recorded")
        if not any(message.role == "assistant" for message in call.said):
            with self._lock:
                self._unanswered[turn.attribution] = call.said
                self._unanswered.move_to_end(turn.attribution)
                if len(self._unanswered) > _UNANSWERED:
                    self._unanswered.popitem(last=False)

    def _recording(self, call: _Call, turn: Turn | None) -> Turn | None:
        """Return the turn to record by, which has not the words that an attempt before it has stored."""
        if turn is None or call.whose.delegated:
            return None
        with self._lock:
            stored = self._unanswered.get(turn.attribution, ())
        # Before a first answer nothing tells words that are sent again from words that are said again.
        if stored and call.said[: len(stored)] == stored:
            return self._memori.turn(call.said[len(stored) :], **call.recording)
        return turn

    def _answered(self, turn: Turn | None) -> None:
        if turn is not None:
            with self._lock:
                self._unanswered.pop(turn.attribution, None)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of an agent's model: what it is sent, for whom, and who answers."""

    said: tuple[Message, ...]
    whose: Whose
    provider: str

    @property
    def options(self) -> dict[str, Any]:
        """What `Memori.turn` is told of it."""
        return {
            "provider": self.provider,
            "entity_id": self.whose.user_id,
            "process_id": self.whose.process_id,
            "session_id": self.whose.session_id,
        }

    @property
    def recording(self) -> dict[str, Any]:
        """The same for a turn that only records."""
        return {**self.options, "recall": False}


def _provider(model: Any) -> str:
    try:
        return str(model._get_ls_params().get("ls_provider") or model._llm_type)
    except Exception:  # noqa: BLE001 - a name for the records: memory never harms the call
        return "langchain"


def _model(response: ModelResponse[Any]) -> str | None:
    return model_name(response.result[0]) if response.result else None
