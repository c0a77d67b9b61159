"""``mem.llm.register`` for Agno: a model's requests, or the runs of an agent or team."""

from __future__ import annotations

from typing import Any, Protocol

from agno.agent import Agent
from agno.models.base import Model
from agno.team import Team

from memori import ConfigurationError, Memori
from memori_agno.hook import MemoriHook, models
from memori_agno.listening import ignore, listen

__all__ = ["AgnoAdapter", "adapter"]


class Owned(Protocol):
    """The hooks that ``mem.llm.register`` hands to adapters."""

    @property
    def owner(self) -> object:
        """The `Memori`."""


class AgnoAdapter:
    """Listens to models, agents and teams, each instance by itself; its class stays as it is."""

    def register(self, client: object, hooks: Owned) -> None:
        """Give a model's requests, or an agent's or team's runs, the memory of *hooks*; twice is once.

        Raises:
            ConfigurationError: *client* is something else of Agno's.
        """
        memori = _memori(hooks)
        if isinstance(client, Model):
            listen(client, memori, "model")
        elif isinstance(client, (Agent, Team)):
            if not any(_is_ours(hook, memori) for hook in client.pre_hooks or ()):
                hook = MemoriHook(memori)
                # New lists: the application may have others' agents share its own.
                client.pre_hooks = [hook.check, *(client.pre_hooks or ())]
                client.post_hooks = [*(client.post_hooks or ()), hook.check]
        else:
            raise ConfigurationError(
                f"got {type(client).__module__}.{type(client).__qualname__}: pass a Model, an Agent or a Team of "
                "Agno's; of a Workflow, the agents and teams of its steps"
            )

    def unregister(self, client: object, hooks: Owned) -> bool:
        """Undo `register`; return whether there was anything to undo."""
        memori = _memori(hooks)
        if isinstance(client, Model):
            return ignore(client, memori, "model")
        if not isinstance(client, (Agent, Team)) or not any(_is_ours(hook, memori) for hook in client.pre_hooks or ()):
            return False
        client.pre_hooks = [hook for hook in client.pre_hooks or () if not _is_ours(hook, memori)] or None
        client.post_hooks = [hook for hook in client.post_hooks or () if not _is_ours(hook, memori)] or None
        for model in models(client):  # Another agent's hook listens again before its next run.
            ignore(model, memori, "hook")
        return True


adapter = AgnoAdapter()


def _is_ours(hook: Any, memori: Memori) -> bool:
    owner = hook if isinstance(hook, MemoriHook) else getattr(hook, "__self__", None)
    return isinstance(owner, MemoriHook) and owner.memori is memori


def _memori(hooks: Owned) -> Memori:
    if not isinstance(hooks.owner, Memori):
        raise ConfigurationError(f"got {hooks!r}: register by mem.llm.register(agent)")
    return hooks.owner
