"""Memory for those who have a ``LearningMachine`` already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agno.models.base import Model

from memori import Memori
from memori_agno.listening import listen
from memori_agno.request import NOTE

__all__ = ["MemoriStore"]


class MemoriStore:
    """A store of a machine's: ``LearningMachine(custom_stores={"memori": MemoriStore(mem)})``.

    A machine puts what its stores recall into the system prompt, which Agno stores, and has them learn before there is
    an answer. This one puts a line there that says where to look: the request itself gets the memories that matter, and
    is stored with its reply. Agno leaves machines out where there is no database; `memori_agent_kwargs` needs none, and
    beside it nothing happens twice.
    """

    learning_type = "memori"
    schema = str
    was_updated = False

    def __init__(self, memori: Memori) -> None:
        self.config = _Config(memori.ready())

    def __deepcopy__(self, memo: object) -> MemoriStore:
        return self

    def instructions(self) -> str:
        """Return the line that stands in the system prompt."""
        return NOTE

    def recall(self, **context: Any) -> None:
        """Return nothing: recall waits for the request."""

    async def arecall(self, **context: Any) -> None:
        """Return nothing: recall waits for the request."""

    def process(self, messages: list[Any], **context: Any) -> None:
        """Do nothing: what is said is stored with its answer."""

    async def aprocess(self, messages: list[Any], **context: Any) -> None:
        """Do nothing: what is said is stored with its answer."""

    def build_context(self, data: object) -> str:
        """Return no context."""
        return ""

    def get_tools(self, **context: Any) -> list[Callable[..., Any]]:
        """Return no tools: they are `MemoriTools`."""
        return []

    async def aget_tools(self, **context: Any) -> list[Callable[..., Any]]:
        """Return no tools: they are `MemoriTools`."""
        return []


class _Config:
    """Where a machine puts its model, which is that of its agent, before each run: the one to listen to."""

    def __init__(self, memori: Memori) -> None:
        self._memori = memori

    @property
    def model(self) -> Model | None:
        return None

    @model.setter
    def model(self, model: Model) -> None:
        listen(model, self._memori, "note")
