"""One request of a model under way: who takes part in it, what it is given, and what is kept of it."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agno.models.base import Model
from agno.models.message import Message as AgnoMessage
from agno.models.response import ModelResponse
from agno.run.base import RunStatus

from memori import Memori, Turn
from memori.types import Message
from memori_agno.conversation import reply, sent, spoken_by, with_block

__all__ = ["NOTE", "Mark", "Part", "Reason", "Request", "mark_of", "put_mark"]

# Tells a model where its memories are, and us, in a run's system prompt, that a `MemoriMemoryManager` asks for them.
NOTE = "What is known of the user from earlier conversations is quoted right before their last words."

# Why a model is listened to: it is registered itself, or it runs what has a hook or a memory manager of ours.
Reason: TypeAlias = str

_MARKS = "_memori_marks"
_REMEMBERED = 1000  # Sessions whose last reply is known.
_replies: OrderedDict[tuple[int, str | None, str | None], str] = OrderedDict()
_replying = threading.Lock()
_Running: TypeAlias = tuple["weakref.ref[Any]", frozenset[int]]
# The runs under way in this context, each with whose memory takes part: a run inside another has its prompt from a
# model. Weakly, for a stream that is left early never says that it is over.
_running: ContextVar[tuple[_Running, ...]] = ContextVar("memori_agno_running", default=())


@dataclass(eq=False)
class Mark:
    """What `MemoriHook` notes on a run's input: the run is to be remembered.

    Attributes:
        writer: The model that wrote the run's prompt: a team's leader, a workflow's earlier step. None: the user did.
        judged: Whether hooks of the application's may yet refuse the reply.
        held: Replies that wait for those hooks, each with the model's name.
    """

    memori: Memori
    writer: str | None = None
    judged: bool = False
    held: list[tuple[Part, Sequence[Message], str | None]] = field(default_factory=list)

    def __deepcopy__(self, memo: object) -> Mark:
        return self  # Agno copies a run's input for hooks in the background.


def put_mark(run_input: Any, mark: Mark) -> None:
    """Note *mark* on a run's input, in place of an earlier one of the same `Memori`."""
    others = [known for known in getattr(run_input, _MARKS, ()) if known.memori is not mark.memori]
    setattr(run_input, _MARKS, [*others, mark])


def mark_of(run_input: Any, memori: Memori) -> Mark | None:
    """Return what is noted on a run's input for *memori*; None when nothing is."""
    marks: Iterable[Mark] = getattr(run_input, _MARKS, ())
    return next((mark for mark in marks if mark.memori is memori), None)


@dataclass(eq=False)
class Part:
    """One `Memori`'s part in a request.

    Attributes:
        told: Whether the reply goes to a run that this `Memori` takes part in, which stores it as a tool's result.
    """

    memori: Memori
    said: Sequence[Message]
    identity: dict[str, Any]
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
        _answered(self.memori, self.identity, said)
        calls = any(message.kind == "tool_call" for message in said)
        if self.mark is not None and self.mark.judged and not streamed and not calls:
            self.mark.held.append((self, said, model))
            yield turn, (), partial
        else:
            yield turn, said, partial

    def accept(self, said: Sequence[Message], model: str | None, *, wait: bool) -> None:
        """Record a reply that was held until nobody refused it."""
        if (turn := self.memori.turn((), recall=False, **self.identity)) is not None:
            turn.finish(said, model=model, wait=wait)


_Closing: TypeAlias = tuple[Turn, Sequence[Message], bool]


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
        outer = [(found, ids) for found, ids in _under_way() if found is not run]
        self.parts: list[Part] = []
        if run is None and (copied or outer):
            return  # Agno's own work: summaries, memories, compression.
        for memori, reasons in memories:
            mark = mark_of(getattr(run, "input", None), memori)
            if "model" in reasons or mark is not None or ("note" in reasons and _asks(messages)):
                self._join(memori, mark, outer)
        if run is not None and self.parts:
            _running.set(
                (
                    *((weakref.ref(found), ids) for found, ids in outer),
                    (weakref.ref(run), frozenset(id(part.memori) for part in self.parts)),
                )
            )

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
        for turn, said, partial in self._closing(response):
            turn.finish(said, model=self._model.id, partial=partial)

    async def afinish(self, response: ModelResponse | None = None) -> None:
        """Do what `finish` does without blocking the event loop."""
        for turn, said, partial in self._closing(response):
            await turn.afinish(said, model=self._model.id, partial=partial)

    def interrupted(self, error: BaseException) -> None:
        """Record a stream that broke off or was left, as far as it came: *error* is on its way to the caller."""
        if isinstance(error, GeneratorExit) and self._run is not None:
            _running.set(tuple((weakref.ref(found), ids) for found, ids in _under_way() if found is not self._run))
        if self._deltas:  # Of a stream that never began nothing was answered.
            # An error of ours must not take the place of the caller's.
            with contextlib.suppress(Exception):
                for turn, said, _ in self._closing(None, partial=True):
                    turn.finish(said, model=self._model.id, partial=True, wait=False)

    def _join(self, memori: Memori, mark: Mark | None, outer: Sequence[tuple[Any, frozenset[int]]]) -> None:
        run = self._run
        said = _ours(memori, lambda: sent(self._messages, run))
        if said is None:
            return
        process = _of(run, "agent_id", "team_id")
        if _of(run, "agent_name", "team_name") is None and memori.config.process_id is not None:
            process = None  # Agno made an id up; the application has named the process.
        identity = {
            "provider": self._model.get_provider().lower(),
            "entity_id": _of(run, "user_id"),
            "process_id": process,
            "session_id": _of(run, "session_id"),
        }
        writer = None if mark is None else mark.writer
        if said and said[-1].role == "user" and _was_answered(memori, identity, said[-1].content):
            writer = ""  # As it is stored already, so not stored again.
        elif outer:
            writer = _of(outer[-1][0], "team_name", "agent_name", "team_id", "agent_id") or "agent"
        told = any(id(memori) in ids for _, ids in outer)
        self.parts.append(Part(memori, said, identity, mark, writer, told))

    def _enriched(self) -> Sequence[AgnoMessage]:
        messages = self._messages
        # Bedrock's Converse takes no two messages of one role in a row.
        inside = any(base.__module__ == "agno.models.aws.bedrock" for base in type(self._model).__mro__)
        for part in self.parts:
            if (turn := part.turn) is not None and (block := turn.block) is not None:
                place = functools.partial(with_block, messages, block, role=turn.role, inside=inside)
                messages = _ours(part.memori, place) or messages
        return messages

    def _closing(self, response: ModelResponse | None, *, partial: bool = False) -> Iterator[_Closing]:
        for part in self.parts:
            said = _ours(part.memori, lambda: reply(response or self._streamed())) or []
            yield from part.closing(said, self._model.id, partial=partial, streamed=response is None)

    def _streamed(self) -> ModelResponse:
        """Return the deltas as one response."""
        calls = [call for delta in self._deltas for call in delta.tool_calls or ()]
        return ModelResponse(
            content="".join(delta.content for delta in self._deltas if isinstance(delta.content, str)),
            parsed=next((delta.parsed for delta in self._deltas if delta.parsed is not None), None),
            # Each model has its own way to put the pieces of a call together.
            tool_calls=self._model.parse_tool_calls(calls) if calls else [],
        )


def _answered(memori: Memori, identity: dict[str, Any], said: Sequence[Message]) -> None:
    key = (id(memori), identity["entity_id"], identity["session_id"])
    if said and said[-1].role == "assistant" and said[-1].kind == "text":
        with _replying:
            _replies[key] = said[-1].content.strip()
            _replies.move_to_end(key)
            if len(_replies) > _REMEMBERED:
                _replies.popitem(last=False)


def _was_answered(memori: Memori, identity: dict[str, Any], prompt: str) -> bool:
    """Return whether *prompt* is the last reply of its session: a workflow's step hands it to the next one."""
    return _replies.get((id(memori), identity["entity_id"], identity["session_id"])) == prompt.strip()


def _under_way() -> list[tuple[Any, frozenset[int]]]:
    found = ((reference(), ids) for reference, ids in _running.get())
    return [(run, ids) for run, ids in found if run is not None and run.status == RunStatus.running]


def _asks(messages: Sequence[AgnoMessage]) -> bool:
    return any(message.role in ("system", "developer") and NOTE in message.get_content_string() for message in messages)


def _of(run: Any, *names: str) -> str | None:
    """Return the first of a run's attributes that it has."""
    return next((value for name in names if (value := getattr(run, name, None))), None)


def _ours(memori: Memori, read: Callable[[], list[Any]]) -> list[Any] | None:
    """Return what *read* does; None when it fails, which harms nobody's call."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - logged and counted
        memori.failed(error)
        return None
