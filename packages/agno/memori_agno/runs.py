"""What is known of runs: which are to be remembered, which is inside which, and so whose words a prompt is."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from agno.run.base import RunStatus

from memori import Memori
from memori.types import Message

__all__ = [
    "Held",
    "Mark",
    "Outer",
    "answered",
    "attribute",
    "call",
    "enter",
    "leave",
    "mark_of",
    "outside",
    "put_mark",
    "returned",
    "wrote",
]

# A run under way, and the ids of the `Memori`s that take part in it.
Outer: TypeAlias = tuple[Any, frozenset[int]]
_Weak: TypeAlias = tuple["weakref.ref[Any]", frozenset[int]]

_MARKS = "_memori_marks"
_REMEMBERED = 1000  # Sessions in use, and runs paused, at once.
# The runs that are under way here. Weakly, for a stream that is left early never says that it is over.
_within: ContextVar[tuple[weakref.ref[Any], ...]] = ContextVar("memori_agno_within", default=())
# The runs whose tools are at work, by their ids: others can be inside a run only meanwhile.
_calling: OrderedDict[str, _Weak] = OrderedDict()
# The outermost of them in each user's session, which is what those inside share: a web server may take up each piece
# of a synchronous stream in a context of its own.
_outermost: OrderedDict[tuple[str | None, str], str] = OrderedDict()
_replies: OrderedDict[tuple[int, str | None, str | None], tuple[str | None, str]] = OrderedDict()
_marked: OrderedDict[tuple[int, str], tuple[str | None, bool]] = OrderedDict()
# Whoever holds it may come by again: the garbage collector closes a stream that nobody reads on wherever it runs.
_noting = threading.RLock()


class Held(Protocol):
    """A reply that waits for the application's hooks."""

    def accept(self, *, wait: bool) -> None:
        """Record it."""


@dataclass(eq=False)
class Mark:
    """What `MemoriHook` notes on a run's input: the run is to be remembered.

    Attributes:
        writer: Who wrote the run's prompt: a team's leader, a workflow's earlier step. None: the user did.
        judged: Whether hooks of the application's may yet refuse the reply.
    """

    memori: Memori
    writer: str | None = None
    judged: bool = False
    held: list[Held] = field(default_factory=list)

    def __deepcopy__(self, memo: object) -> Mark:
        return self  # Agno copies a run's input for hooks in the background.


def put_mark(run_input: Any, mark: Mark, run_id: str) -> None:
    """Note *mark* on a run's input, in place of an earlier one of the same `Memori`."""
    others = [known for known in getattr(run_input, _MARKS, ()) if known.memori is not mark.memori]
    setattr(run_input, _MARKS, [*others, mark])
    with _noting:
        _remember(_marked, (id(mark.memori), run_id), (mark.writer, mark.judged))


def mark_of(run: Any, memori: Memori) -> Mark | None:
    """Return what is noted for *memori* on a run's input; None when nothing is."""
    run_input = getattr(run, "input", None)
    marks: Iterable[Mark] = getattr(run_input, _MARKS, ())
    found = next((mark for mark in marks if mark.memori is memori), None)
    run_id = attribute(run, "run_id")
    if found is None and run_id is not None and (noted := _marked.get((id(memori), run_id))) is not None:
        # Paused, and continued as it came out of Agno's database: no hook is asked again.
        found = Mark(memori, *noted)
        put_mark(run_input, found, run_id)
    return found


def outside(run: Any) -> list[Outer]:
    """Return the runs whose tools are at work and that *run* is inside of, outermost first.

    It has its prompt from the last one's model. None: what is asked of a model by itself, here and now; it is inside of
    all that are under way, for it may be work of their own.
    """
    known = [reference() for reference in _within.get()]
    outermost = _outermost.get((attribute(run, "user_id"), attribute(run, "session_id") or ""), "")
    if (noted := _calling.get(outermost)) is not None:
        other = noted[0]()
        # Another run of the same agent or team, in the same session, is a run of the user's like this one.
        if attribute(other, "agent_id", "team_id") != attribute(run, "agent_id", "team_id"):
            known.insert(0, other)
    found: dict[int, Outer] = {}
    for other in known:
        if other is None or other is run or other.status != RunStatus.running or _others(other, run):
            continue
        noted = _calling.get(attribute(other, "run_id") or "")
        if noted is not None and noted[0]() is other:
            found.setdefault(id(other), (other, noted[1]))
        elif run is None:
            found.setdefault(id(other), (other, frozenset()))
    return [*found.values()]


def enter(run: Any) -> None:
    """Note that *run* asks its model: what it called before has returned."""
    leave(run)
    under_way = [
        known for known in _within.get() if (other := known()) is not None and other.status == RunStatus.running
    ]
    _within.set((*under_way, weakref.ref(run)))


def call(run: Any, ids: frozenset[int]) -> None:
    """Note that tools are at work for *run*, on behalf of the `Memori`s of those ids."""
    run_id = attribute(run, "run_id")
    if run_id is None:
        return
    if all(known() is not run for known in _within.get()):
        _within.set((*_within.get(), weakref.ref(run)))
    session = attribute(run, "session_id")
    alone = not outside(run)
    with _noting:
        _remember(_calling, run_id, (weakref.ref(run), ids))
        if session is not None and alone:
            _remember(_outermost, (attribute(run, "user_id"), session), run_id)


def returned(run: Any) -> None:
    """Note that the tools of *run* are no longer at work: nothing is inside it any more."""
    run_id, whose = attribute(run, "run_id") or "", (attribute(run, "user_id"), attribute(run, "session_id") or "")
    with _noting:
        if (noted := _calling.get(run_id)) is not None and noted[0]() is run:
            _calling.pop(run_id, None)
            if _outermost.get(whose) == run_id:
                _outermost.pop(whose, None)


def leave(run: Any) -> None:
    """Note that the stream of *run* is left: it is not under way any more."""
    _within.set(tuple(known for known in _within.get() if known() is not run))
    returned(run)


def answered(memori: Memori, entity: str | None, session: str | None, by: str | None, said: Sequence[Message]) -> None:
    """Note what was answered last in a session, and by which agent or team."""
    if said and said[-1].role == "assistant" and said[-1].kind == "text":
        with _noting:
            _remember(_replies, (id(memori), entity, session), (by, said[-1].content.strip()))


def wrote(memori: Memori, entity: str | None, session: str | None, by: str | None, prompt: str) -> bool:
    """Return whether the prompt for *by* is what another one answered last: a workflow hands it from step to step."""
    last = _replies.get((id(memori), entity, session))
    return last is not None and last[0] != by and last[1] == prompt.strip()


def attribute(run: Any, *names: str) -> str | None:
    """Return the first of these of a run's attributes that it has."""
    return next((value for name in names if (value := getattr(run, name, None))), None)


def _others(outer: Any, run: Any) -> bool:
    """Return whether the two are known to be of different users: one's words are never written by the other's model."""
    users = attribute(outer, "user_id"), attribute(run, "user_id")
    return None not in users and users[0] != users[1]


def _remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    known.pop(key, None)
    known[key] = value
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
