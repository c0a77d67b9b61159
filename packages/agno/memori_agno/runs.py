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
    "enter",
    "leave",
    "mark_of",
    "outside",
    "put_mark",
    "wrote",
]

# A run under way, and the ids of the `Memori`s that take part in it.
Outer: TypeAlias = tuple[Any, frozenset[int]]
_Weak: TypeAlias = tuple["weakref.ref[Any]", frozenset[int]]

_MARKS = "_memori_marks"
_REMEMBERED = 1000  # Sessions in use, and runs paused, at once.
# Weakly, for a stream that is left early never says that it is over.
_within: ContextVar[tuple[_Weak, ...]] = ContextVar("memori_agno_within", default=())
# The teams at work in each session, which their members share: a web server may take up each piece of a synchronous
# stream in a context of its own.
_teams: OrderedDict[str, _Weak] = OrderedDict()
_replies: OrderedDict[tuple[int, str | None, str | None], tuple[str | None, str]] = OrderedDict()
_marked: OrderedDict[tuple[int, str], tuple[str | None, bool]] = OrderedDict()
_noting = threading.Lock()


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
    """Return the runs under way that *run* is inside of, outermost first: it has its prompt from the last one's model.

    None: what is asked of a model by itself, here and now.
    """
    known = _within.get()
    team = _teams.get(attribute(run, "session_id") or "")
    # Another run of the same team, in the same session, is a run of the user's like this one.
    if team is not None and attribute(team[0](), "team_id") != attribute(run, "team_id"):
        known = (team, *known)
    found: dict[int, Outer] = {}
    for reference, ids in known:
        other = reference()
        if other is not None and other is not run and other.status == RunStatus.running:
            found.setdefault(id(other), (other, ids))
    return [*found.values()]


def enter(run: Any, within: Sequence[Outer], ids: frozenset[int]) -> None:
    """Note that *run* asks its model, on behalf of the `Memori`s of those ids."""
    entry = (weakref.ref(run), ids)
    _within.set((*((weakref.ref(other), others) for other, others in within), entry))
    session = attribute(run, "session_id")
    if session is not None and attribute(run, "team_id") is not None and not within:
        with _noting:
            _remember(_teams, session, entry)


def leave(run: Any) -> None:
    """Note that the stream of *run* is left, so that nothing is inside it any more."""
    _within.set(tuple(entry for entry in _within.get() if entry[0]() is not run))
    session = attribute(run, "session_id") or ""
    with _noting:
        if session in _teams and _teams[session][0]() is run:
            del _teams[session]


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


def _remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
