"""One request of a model under way: who takes part in it, what it is given, and what is kept of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from agno.models.base import Model
from agno.models.message import Message as AgnoMessage
from agno.models.response import ModelResponse

from memori import Memori, Turn
from memori.types import Message
from memori_agno.conversation import reply, sent, spoken_by, with_block
from memori_agno.runs import Mark, Outer, answered, attribute, call, enter, leave, mark_of, outside, returned, wrote

__all__ = ["NOTE", "Reason", "Request", "ended"]

# Tells a model where its memories are, and us, in a run's system prompt, that a `MemoriMemoryManager` asks for them.
NOTE = "What is known of the user from earlier conversations is quoted right before their last words."

# Why a model is listened to: it is registered itself, or it runs what has a hook or a memory manager of ours.
Reason: TypeAlias = str

_Closing: TypeAlias = tuple[Turn, Sequence[Message], bool]


@dataclass
class _Part:
    """One `Memori`'s part in a request.

    Attributes:
        writer: The model that wrote the prompt; None: it is the user's.
        told: Whether the reply goes to a run that this `Memori` takes part in, which stores it as a tool's result.
    """

    memori: Memori
    said: Sequence[Message]
    identity: dict[str, Any]
    by: str | None
    mark: Mark | None
    writer: str | None
    told: bool
    turn: Turn | None = None

    def closing(self, said: Sequence[Message], model: str, *, partial: bool, streamed: bool) -> Iterator[_Closing]:
        """Yield what is to be finished, and with which reply."""
        turn = self.turn
        if self.writer is not None:
            if self.told and not partial:
                return
            # Recalled for, but not the user's words.
            turn = self.memori.turn(spoken_by(self.writer, self.said), recall=False, **self.identity)
        if turn is None:
            return
        answered(self.memori, self.identity["entity_id"], self.identity["session_id"], self.by, said)
        calls = any(message.kind == "tool_call" for message in said)
        if self.mark is not None and self.mark.judged and not streamed and not calls:
            self.mark.held.append(_Held(self, said, model))
            yield turn, (), partial
        else:
            yield turn, said, partial


@dataclass(frozen=True)
class _Held:
    """A reply that waits for the application's hooks."""

    part: _Part
    said: Sequence[Message]
    model: str

    def accept(self, *, wait: bool) -> None:
        if (turn := self.part.memori.turn((), recall=False, **self.part.identity)) is not None:
            turn.finish(self.said, model=self.model, wait=wait)


class Request:
    """One request. Both colours share it; only recall and storing wait, and each has its own way to."""

    def __init__(
        self,
        model: Model,
        memories: Iterable[tuple[Memori, frozenset[Reason]]],
        messages: Sequence[AgnoMessage],
        run: Any,
        *,
        copied: bool,
    ) -> None:
        self._model = model
        self._messages = messages
        self._run = run
        self._deltas: list[ModelResponse] = []
        within = outside(run)
        self.parts: list[_Part] = []
        if run is None and (copied or within):
            return  # Agno's own work: summaries, memories, compression.
        for memori, reasons in memories:
            mark = mark_of(run, memori)
            if "model" in reasons or mark is not None or ("note" in reasons and _asks(messages)):
                self._join(memori, mark, within)
        if run is not None and self.parts:
            enter(run)

    def begin(self) -> Sequence[AgnoMessage]:
        """Return the messages to send."""
        for part in self.parts:
            part.turn = part.memori.turn(part.said, **part.identity)
        return self._enriched()

    async def abegin(self) -> Sequence[AgnoMessage]:
        """Do what `begin` does without blocking the event loop."""
        for part in self.parts:
            part.turn = await part.memori.aturn(part.said, **part.identity)
        return self._enriched()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Keep what is registered of the model's SDK out of the request meanwhile: it is the same conversation."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.memori.answering())
            yield

    def add(self, delta: ModelResponse) -> None:
        """Take in the next piece of a streamed reply."""
        self._deltas.append(delta)

    def finish(self, response: ModelResponse | None = None) -> None:
        """Record the reply: *response*, or what the stream brought."""
        errors = []
        for turn, said, partial in self._closing(response):
            try:
                turn.finish(said, model=self._model.id, partial=partial)
            except Exception as error:  # noqa: BLE001 - raised below, when every turn has had its reply
                errors.append(error)
        if errors:
            raise errors[0]

    async def afinish(self, response: ModelResponse | None = None) -> None:
        """Do what `finish` does without blocking the event loop."""
        errors = []
        closing = self._closing(response)
        for turn, said, partial in closing:
            try:
                await turn.afinish(said, model=self._model.id, partial=partial)
            except Exception as error:  # noqa: BLE001 - raised below, when every turn has had its reply
                errors.append(error)
            except BaseException:  # Cancelled: the others have no time to wait either.
                self._hand_in(closing)
                raise
        if errors:
            raise errors[0]

    def interrupted(self, error: BaseException) -> None:
        """Record a reply that broke off, failed or was left, as far as it came: *error* is on its way to the caller."""
        if isinstance(error, GeneratorExit) and self._run is not None:
            leave(self._run)
        self._hand_in(self._broken())

    def _hand_in(self, closing: Iterator[_Closing]) -> None:
        """Record without waiting for it, where an error is on its way to the caller: ours must not take its place."""
        # What fails is logged and counted where it does.
        with contextlib.suppress(Exception):
            for turn, said, partial in closing:
                with contextlib.suppress(Exception):
                    turn.finish(said, model=self._model.id, partial=partial, wait=False)

    def _join(self, memori: Memori, mark: Mark | None, within: Sequence[Outer]) -> None:
        said = _ours(memori, lambda: sent(self._messages, self._run))
        if said is not None:
            self.parts.append(_part(memori, mark, said, self._run, self._model.get_provider(), within))

    def _enriched(self) -> Sequence[AgnoMessage]:
        messages = self._messages
        # Bedrock's Converse takes no two messages of one role in a row.
        inside = any(base.__module__ == "agno.models.aws.bedrock" for base in type(self._model).__mro__)
        for part in self.parts:
            if (turn := part.turn) is not None and (block := turn.block) is not None:
                place = functools.partial(with_block, messages, block, role=turn.role, inside=inside)
                messages = _ours(part.memori, place) or messages
        return messages

    def _closing(self, response: ModelResponse | None) -> Iterator[_Closing]:
        for part in self.parts:
            said = _ours(part.memori, lambda: reply(response or self._streamed())) or []
            if self._run is not None and any(message.kind == "tool_call" for message in said):
                call(self._run, frozenset(id(part.memori) for part in self.parts))
            yield from part.closing(said, self._model.id, partial=False, streamed=response is None)

    def _broken(self) -> Iterator[_Closing]:
        for part in self.parts:
            said = _ours(part.memori, lambda: reply(self._streamed())) or []
            # Where nothing was said the user asks again. What tools returned nobody says again.
            if said or (not part.told and part.said and part.said[-1].kind == "tool_result"):
                yield from part.closing(said, self._model.id, partial=bool(said), streamed=True)

    def _streamed(self) -> ModelResponse:
        """Return the deltas as one response."""
        calls = [call for delta in self._deltas for call in delta.tool_calls or ()]
        return ModelResponse(
            content="".join(delta.content for delta in self._deltas if isinstance(delta.content, str)),
            parsed=next((delta.parsed for delta in self._deltas if delta.parsed is not None), None),
            # Each model has its own way to put the pieces of a call together.
            tool_calls=self._model.parse_tool_calls(calls) if calls else [],
        )


def ended(memori: Memori, mark: Mark, run: Any, *, wait: bool) -> None:
    """Record what tools returned that no model was told any more, for that was the answer: *run* is at its end."""
    returned(run)
    said = sent(run.messages or (), run)
    if not said or said[-1].kind != "tool_result":
        return
    part = _part(memori, mark, said, run, run.model_provider or "agno", outside(run))
    if not part.told:
        words = said if part.writer is None else spoken_by(part.writer, said)
        if (turn := memori.turn(words, recall=False, **part.identity)) is not None:
            turn.finish((), model=run.model, wait=wait)


def _part(
    memori: Memori, mark: Mark | None, said: Sequence[Message], run: Any, provider: str, within: Sequence[Outer]
) -> _Part:
    entity, session = attribute(run, "user_id"), attribute(run, "session_id")
    by = process = attribute(run, "agent_id", "team_id")
    if attribute(run, "agent_name", "team_name") is None and memori.config.process_id is not None:
        process = None  # Agno made an id up; the application has named the process.
    writer = None if mark is None else mark.writer
    # The run itself is told of its workflow only when it is over.
    step = bool((getattr(run, "session_state", None) or {}).get("workflow_id"))
    if step and said and said[-1].role == "user" and wrote(memori, entity, session, by, said[-1].content):
        writer = ""  # As it is stored already, so that it is not stored again.
    elif within:
        writer = attribute(within[-1][0], "team_name", "agent_name", "team_id", "agent_id") or "agent"
    told = any(id(memori) in ids for _, ids in within)
    identity = {"provider": provider.lower(), "entity_id": entity, "process_id": process, "session_id": session}
    return _Part(memori, said, identity, by, mark, writer, told)


def _asks(messages: Sequence[AgnoMessage]) -> bool:
    return any(message.role in ("system", "developer") and NOTE in message.get_content_string() for message in messages)


def _ours(memori: Memori, read: Callable[[], list[Any]]) -> list[Any] | None:
    """Return what *read* does; None when it fails, which harms nobody's call."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - logged and counted
        memori.failed(error)
        return None
