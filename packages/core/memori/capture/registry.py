"""Which adapter listens to which client: looked up by the client's module, among the installed entry points."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from memori.errors import ConfigurationError

if TYPE_CHECKING:
    from memori.protocols import ClientAdapter

__all__ = ["GROUP", "client_adapter"]

GROUP = "memori.clients"


def client_adapter(client: Any) -> ClientAdapter:
    """Return the adapter for *client*: the one named as the module of its class, or of the nearest base that has one.

    An entry point's name stands for its module and all within it; of several that fit, the longest.

    Raises:
        ConfigurationError: *client* is no instance, or no installed adapter knows it.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    listed = ", ".join(sorted(known)) or "none; is memori-byodb installed?"
    if inspect.isclass(client):
        raise ConfigurationError(f"got the class {client.__qualname__}: pass an instance of it, {client.__name__}(...)")
    if inspect.ismodule(client):
        raise ConfigurationError(f"got the module {client.__name__!r}: pass a client, e.g. openai.OpenAI()")
    for base in type(client).__mro__:
        if (entry := _nearest(known, base.__module__)) is not None:
            adapter: ClientAdapter = entry.load()
            return adapter
    kind = type(client)
    raise ConfigurationError(
        f"got {kind.__module__}.{kind.__qualname__}, which no adapter knows: pass a client of one of these: {listed}"
    )


def _nearest(known: dict[str, EntryPoint], module: str) -> EntryPoint | None:
    name = module
    while name:
        if name in known:
            return known[name]
        name = name.rpartition(".")[0]
    return None
