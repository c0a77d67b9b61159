"""Whom an agent's run is for: its context, a fixed user, the server's user, or the current entity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from langgraph.config import get_config
from langgraph.runtime import Runtime, get_runtime

from memori import AttributionError, ConfigurationError, Memori

__all__ = ["MemoriContext", "User", "Whose", "runtime_here", "user_of", "whose"]

User: TypeAlias = str | Callable[[Runtime[Any]], str] | None


@dataclass
class MemoriContext:
    """What a run is told: ``agent.invoke(…, context=MemoriContext(user_id="ann"))``. Subclass it to tell it more.

    Any other context with fields, or keys, of these names will do as well.

    Attributes:
        user_id: Whom memories are about.
        process_id: The agent's name in memory, where it is not the agent's own.
        session_id: The conversation's name, where it is not the thread's.
    """

    user_id: str
    process_id: str | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Whose:
    """Whom one run is for.

    Attributes:
        delegated: Whether a tool of another agent runs this one, which is then told what a model says.
    """

    user_id: str
    process_id: str | None
    session_id: str | None
    delegated: bool


def whose(memori: Memori, user: User, process: str | None, runtime: Runtime[Any]) -> Whose:
    """Return whom the run of *runtime* is for.

    Raises:
        AttributionError: Nobody says.
        ConfigurationError: Who it is said to be cannot be a user.
    """
    info = runtime.execution_info
    # A namespace names the nodes that a run is inside of, outermost first, each with the id of its task.
    parents = [] if info is None else [part.partition(":")[0] for part in info.checkpoint_ns.split("|")[:-1]]
    delegated = "tools" in parents
    process_id = process or _text(runtime.context, "process_id")
    if process_id is None and (delegated or memori.config.process_id is None):
        process_id = _agent_name()
    thread = None if info is None else info.thread_id
    return Whose(
        user_id=user_of(memori, user, runtime),
        process_id=process_id,
        session_id=_text(runtime.context, "session_id") or (None if thread is None else str(thread)),
        delegated=delegated,
    )


def user_of(memori: Memori, user: User, runtime: Runtime[Any] | None) -> str:
    """Return whom memories are about, here and now.

    Raises:
        AttributionError: Nobody says.
        ConfigurationError: Who it is said to be cannot be a user.
    """
    found: object = None
    if runtime is not None:
        found = user(runtime) if callable(user) else _field(runtime.context, "user_id")
    if found is None and not callable(user):
        found = user
    if found is None and runtime is not None and runtime.server_info is not None and not callable(user):
        found = getattr(runtime.server_info.user, "identity", None)
    if found is None:
        found = memori.config.entity_id
    if found is None:
        raise AttributionError(
            "no user: pass context=MemoriContext(user_id=...) to the run (and context_schema=MemoriContext to "
            "create_agent), name one by user=..., or work within `with mem.scope(entity_id=...):`"
        )
    if not isinstance(found, str) or not found.strip():
        raise ConfigurationError(f"user_id={found!r}: must be a string that is not empty")
    return found


def runtime_here() -> Runtime[Any] | None:
    """Return the runtime of the graph that this is called in; None outside of graphs."""
    try:
        return get_runtime()
    except (KeyError, RuntimeError):
        return None


def _field(context: object, name: str) -> object:
    return context.get(name) if isinstance(context, dict) else getattr(context, name, None)


def _text(context: object, name: str) -> str | None:
    value = _field(context, name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name}={value!r}: must be a string that is not empty")
    return value


def _agent_name() -> str | None:
    try:
        name = get_config().get("metadata", {}).get("lc_agent_name")
    except RuntimeError:
        return None
    return name if isinstance(name, str) and name.strip() else None
