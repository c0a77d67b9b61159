"""Models that are listened to: each of an Agno model's requests passes through one of four methods."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeAlias

from agno.models.base import Model
from agno.models.message import Message as AgnoMessage
from agno.models.response import ModelResponse

from memori import Memori
from memori_agno.request import Reason, Request

__all__ = ["ignore", "listen"]

_REGISTRATION = "_memori"
_METHODS = ("invoke", "ainvoke", "invoke_stream", "ainvoke_stream")
_OVERRIDDEN = (_REGISTRATION, "__getstate__", *_METHODS)
_listening = threading.Lock()

# Sends the request with these messages.
_Send: TypeAlias = Callable[[Sequence[AgnoMessage]], Any]


def listen(model: Model, memori: Memori, reason: Reason) -> None:
    """Let *memori* take part in the requests of this one model; twice is once. Its class stays as it is."""
    with _listening:
        registration: _Registration | None = vars(model).get(_REGISTRATION)
        if registration is None:
            registration = _Registration()
            _override(model, registration)
        _, reasons = registration.memories.get(id(memori), (memori, frozenset[Reason]()))
        if reason not in reasons:
            registration.memories = {**registration.memories, id(memori): (memori, reasons | {reason})}


def ignore(model: Model, memori: Memori, reason: Reason) -> bool:
    """Undo `listen`; return whether there was anything to undo. After the last, *model* is as it was."""
    with _listening:
        registration: _Registration | None = vars(model).get(_REGISTRATION)
        if registration is None or reason not in registration.memories.get(id(memori), (memori, ()))[1]:
            return False
        memories = dict(registration.memories)
        reasons = memories[id(memori)][1] - {reason}
        if reasons:
            memories[id(memori)] = (memori, reasons)
        else:
            del memories[id(memori)]
        registration.memories = memories
        if not memories:
            for name in _OVERRIDDEN:
                vars(model).pop(name, None)
        return True


class _Registration:
    """Who listens to a model, in the order they came, and why.

    Attributes:
        copied: Whether the model is a copy: Agno asks copies of an agent's model for work of its own.
    """

    def __init__(self, *, copied: bool = False) -> None:
        self.memories: dict[int, tuple[Memori, frozenset[Reason]]] = {}
        self.copied = copied

    def __deepcopy__(self, memo: dict[int, Any]) -> _Registration:
        copy = _Registration(copied=True)
        copy.memories = self.memories
        memo[id(self)] = copy
        return copy


def _override(model: Model, registration: _Registration) -> None:
    # First the registration: a model that is copied copies its attributes in their order, and the methods need it.
    vars(model)[_REGISTRATION] = registration
    vars(model)["__getstate__"] = _State(model)
    for name in _METHODS:
        vars(model)[name] = _Method(model, name, registration)


class _Own:
    """Something that a model has on it while it is listened to. A deep copy of the model gets its own."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Own:
        copy = object.__new__(type(self))
        vars(copy).update(vars(self))
        copy._model = memo.get(id(self._model), self._model)
        if (registration := vars(copy).get("_registration")) is not None:
            vars(copy)["_registration"] = memo.get(id(registration), registration)
        return copy


class _State(_Own):
    """What pickle and copy.copy take of a model: what they make is not listened to."""

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self._model).items() if name not in _OVERRIDDEN}


class _Method(_Own):
    """One of a model's methods, with memory."""

    def __init__(self, model: Model, name: str, registration: _Registration) -> None:
        super().__init__(model)
        self.__name__ = name
        self._registration = registration

    def __call__(self, *args: Any, **options: Any) -> Any:
        model, registration, method = self._model, self._registration, getattr(type(self._model), self.__name__)
        if args:  # Agno names them all; whoever calls it by hand may not.
            options["messages"], args = args[0], args[1:]
        given = options.pop("messages", ())
        request = Request(
            model, registration.memories.values(), given, options.get("run_response"), copied=registration.copied
        )
        if args:
            return _SHAPES[self.__name__](request, lambda messages: method(model, messages, *args, **options))
        return _SHAPES[self.__name__](request, lambda messages: method(model, messages=messages, **options))


def _invoke(request: Request, send: _Send) -> ModelResponse:
    messages = request.begin()
    try:
        with request.answering():
            response: ModelResponse = send(messages)
    except BaseException as error:
        request.interrupted(error)
        raise
    request.finish(response)
    return response


async def _ainvoke(request: Request, send: _Send) -> ModelResponse:
    messages = await request.abegin()
    try:
        with request.answering():
            response: ModelResponse = await send(messages)
    except BaseException as error:
        request.interrupted(error)
        raise
    await request.afinish(response)
    return response


def _invoke_stream(request: Request, send: _Send) -> Iterator[ModelResponse]:
    stream = iter(send(request.begin()))
    try:
        while True:
            with request.answering():
                delta = next(stream, None)
            if delta is None:
                break
            request.add(delta)
            yield delta
    except BaseException as error:
        request.interrupted(error)
        raise
    finally:
        if (close := getattr(stream, "close", None)) is not None:
            close()
    request.finish()


async def _ainvoke_stream(request: Request, send: _Send) -> AsyncIterator[ModelResponse]:
    stream = aiter(send(await request.abegin()))
    try:
        while True:
            with request.answering():
                delta = await anext(stream, None)
            if delta is None:
                break
            request.add(delta)
            yield delta
    except BaseException as error:
        request.interrupted(error)
        raise
    finally:
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()
    await request.afinish()


_SHAPES: dict[str, Callable[[Request, _Send], Any]] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "invoke_stream": _invoke_stream,
    "ainvoke_stream": _ainvoke_stream,
}
