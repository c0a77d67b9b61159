"""Which adapter listens to which client: looked up by the client's module, among the installed entry points."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any

from memori.errors import ConfigurationError

if TYPE_CHECKING:
    from memori.protocols import ClientAdapter

__all__ = ["GROUP", "client_adapter"]

GROUP = "memori.clients"


def client_adapter(client: Any) -> ClientAdapter:
    """Return the adapter for *client*: the one named as the module of its class, or of the nearest base that has one.

    An entry point's name stands for its module and all within it; of several that fit, the longest. A module is itself
    a client where an SDK has no other; whether one will do, its adapter says.

    Raises:
        ConfigurationError: *client* is no instance, or no installed adapter knows it.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    listed = ", ".join(sorted(known)) or "none; is memori-byodb installed?"
    if inspect.isclass(client):
        raise ConfigurationError(f"got the class {client.__qualname__}: pass an instance of it, {client.__name__}(...)")
    named = isinstance(client, ModuleType)
    for module in [client.__name__] if named else [base.__module__ for base in type(client).__mro__]:
        if (entry := _nearest(known, module)) is not None:
            adapter: ClientAdapter = entry.load()
            return adapter
    what = f"the module {client.__name__!r}" if named else f"{type(client).__module__}.{type(client).__qualname__}"
    raise ConfigurationError(f"got {what}, which no adapter knows: pass a client of one of these: {listed}")


def _nearest(known: dict[str, EntryPoint], module: str) -> EntryPoint | None:
    name = module
    while name:
        if name in known:
            return known[name]
        name = name.rpartition(".")[0]
    return None
