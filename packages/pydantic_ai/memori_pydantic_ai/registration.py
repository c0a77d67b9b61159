"""``mem.llm.register`` for Pydantic AI: an agent's runs get the capability, a model's requests what it does."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings

from memori import ConfigurationError, Memori, Turn
from memori_pydantic_ai.capability import MemoriCapability, is_running
from memori_pydantic_ai.conversation import reply, sent, with_block

__all__ = ["PydanticAIAdapter", "adapter"]

_REGISTRATION = "_memori_registration"
_registering = threading.Lock()


class Owned(Protocol):
    """The hooks that ``mem.llm.register`` hands to adapters."""

    @property
    def owner(self) -> object:
        """The `Memori`."""


class PydanticAIAdapter:
    """Listens to agents and to models, each instance by itself; its class stays as it is."""

    def register(self, client: object, hooks: Owned) -> None:
        """Give every run of an agent, or every request of a model, the memory of *hooks*; twice is once.

        Raises:
            ConfigurationError: *client* is something else of Pydantic AI's.
        """
        memori = _memori(hooks)
        with _registering:
            registration = vars(client).get(_REGISTRATION) or _registration(client)
            if not any(known is memori for known in registration.memories):
                registration.memories = (*registration.memories, memori)

    def unregister(self, client: object, hooks: Owned) -> bool:
        """Undo `register`; return whether there was anything to undo."""
        memori = _memori(hooks)
        with _registering:
            registration: _Registration | None = vars(client).get(_REGISTRATION)
            if registration is None or not any(known is memori for known in registration.memories):
                return False
            registration.memories = tuple(known for known in registration.memories if known is not memori)
            if not registration.memories:
                for name in registration.names:
                    vars(client).pop(name, None)
            return True


adapter = PydanticAIAdapter()


class _Registration:
    """What one client has on it as long as anyone listens.

    Attributes:
        memories: Who listens, in the order they came.
        names: The attributes that the client has for it.
    """

    def __init__(self, *names: str) -> None:
        self.memories: tuple[Memori, ...] = ()
        self.names = (_REGISTRATION, *names)


def _registration(client: object) -> _Registration:
    if isinstance(client, AbstractAgent):
        registration = _Registration("iter")
        _set(client, "iter", _iter(registration, client.iter))
    elif isinstance(client, Model):
        registration = _Registration("request", "request_stream")
        _set(client, "request_stream", _request_stream(registration, client, client.request_stream))
        _set(client, "request", _request(registration, client, client.request))
    else:
        raise ConfigurationError(
            f"got {type(client).__module__}.{type(client).__qualname__}: pass an Agent or a Model of Pydantic AI's"
        )
    _set(client, _REGISTRATION, registration)
    return registration


def _set(client: object, name: str, value: object) -> None:
    # Past what a class may have put in the way of setting attributes.
    object.__setattr__(client, name, value)


def _memori(hooks: Owned) -> Memori:
    if not isinstance(hooks.owner, Memori):
        raise ConfigurationError(f"got {hooks!r}: register by mem.llm.register(agent)")
    return hooks.owner


def _iter(registration: _Registration, iterate: Callable[..., Any]) -> Callable[..., Any]:
    """Every way to run an agent comes down to its ``iter``."""

    @functools.wraps(iterate)
    def iter_with_memory(*args: Any, capabilities: Sequence[Any] | None = None, **options: Any) -> Any:
        added = [MemoriCapability[Any](memori) for memori in registration.memories]
        return iterate(*args, capabilities=[*(capabilities or ()), *added], **options)

    return iter_with_memory


class _Request:
    """One request of a registered model under way."""

    def __init__(self, memories: Sequence[Memori], model: Model, parameters: ModelRequestParameters) -> None:
        self._memories = memories
        self._model = model
        self._outputs = frozenset(tool.name for tool in parameters.output_tools)
        self._turns: list[tuple[Memori, Turn]] = []

    async def begin(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        """Return the messages to send."""
        last = messages[-1] if messages else None
        enriched = messages
        for memori in self._memories:
            if last is not None and is_running(memori, last.run_id):
                continue
            try:
                said = sent(messages, outputs=self._outputs)
            except Exception as error:  # noqa: BLE001 - memory never harms the call
                memori.failed(error)
                continue
            turn = await memori.aturn(
                said, provider=self._model.system, session_id=None if last is None else last.conversation_id
            )
            if turn is None:
                continue
            self._turns.append((memori, turn))
            if turn.block is not None:
                enriched = with_block(enriched, turn.block, role=turn.role)
        return enriched

    def answering(self) -> ExitStack:
        """Return what keeps those who have a turn out of what the model asks of a registered SDK's client."""
        stack = ExitStack()
        for memori, _ in self._turns:
            stack.enter_context(memori.answering())
        return stack

    async def finish(self, response: ModelResponse) -> None:
        partial = response.state != "complete"
        try:
            for memori, turn in self._turns:
                await turn.afinish(self._said(memori, response), model=response.model_name, partial=partial)
        except BaseException:
            self._leave(response, partial=partial)
            raise

    def interrupted(self, response: ModelResponse) -> None:
        self._leave(response, partial=True)

    def _leave(self, response: ModelResponse, *, partial: bool) -> None:
        """Record what no turn has yet, while an error is on its way to the caller: ours must not take its place."""
        for memori, turn in self._turns:
            with suppress(Exception):
                said = self._said(memori, response)
                if said or not partial:  # Else nothing was answered: tried again, it is the same turn.
                    turn.finish(said, model=response.model_name, partial=partial, wait=False)

    def _said(self, memori: Memori, response: ModelResponse) -> Sequence[Any]:
        try:
            return reply(response, outputs=self._outputs)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            memori.failed(error)
            return ()


def _request(registration: _Registration, model: Model, request: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(request)
    async def request_with_memory(
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        under_way = _Request(registration.memories, model, model_request_parameters)
        enriched = await under_way.begin(messages)
        with under_way.answering():
            response: ModelResponse = await request(enriched, model_settings, model_request_parameters)
        await under_way.finish(response)
        return response

    return request_with_memory


def _request_stream(
    registration: _Registration, model: Model, request_stream: Callable[..., AbstractAsyncContextManager[Any]]
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    @functools.wraps(request_stream)
    @asynccontextmanager
    async def request_stream_with_memory(
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse, None]:
        under_way = _Request(registration.memories, model, model_request_parameters)
        enriched = await under_way.begin(messages)
        async with AsyncExitStack() as stack:
            with under_way.answering():
                stream = await stack.enter_async_context(
                    request_stream(enriched, model_settings, model_request_parameters, run_context)
                )
            try:
                yield stream
            except BaseException:
                under_way.interrupted(stream.get())
                raise
            await under_way.finish(stream.get())

    return request_stream_with_memory
