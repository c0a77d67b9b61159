"""Memory for those who have an agent's ``memory_manager`` already."""

from __future__ import annotations

from typing import Any

from agno.db.schemas import UserMemory
from agno.memory import MemoryManager
from agno.models.base import Model

from memori import Memori, MemoriError
from memori_agno.listening import listen
from memori_agno.request import NOTE

__all__ = ["MemoriMemoryManager"]


class MemoriMemoryManager(MemoryManager):
    """``Agent(memory_manager=MemoriMemoryManager(mem), update_memory_on_run=True)``, and likewise for a ``Team``.

    Agno asks a manager for all memories of a user, without what is asked, and puts them into the system prompt, which
    it stores. This one answers with a line that says where to find them; the request itself gets those that matter, and
    is stored with its reply. No model is asked to extract anything, and Agno's database holds no memory.
    """

    def __init__(self, memori: Memori) -> None:
        self._memori = memori.ready()
        super().__init__()

    # Agno hands a manager without a model the agent's, before each run: the one to listen to.
    @property
    def model(self) -> Model | None:
        """None: this manager asks no model."""
        return None

    @model.setter
    def model(self, model: Model | None) -> None:
        if model is not None:
            listen(model, self._memori, "note")

    def __deepcopy__(self, memo: object) -> MemoriMemoryManager:
        return self

    def get_user_memories(self, user_id: str | None = None) -> list[UserMemory]:
        """Return the line that stands for the user's memories in a prompt; they themselves are ``mem.facts(…)``."""
        return [UserMemory(memory=NOTE, memory_id="memori", user_id=user_id)]

    async def aget_user_memories(self, user_id: str | None = None) -> list[UserMemory]:
        """Do what `get_user_memories` does."""
        return self.get_user_memories(user_id)

    def create_user_memories(self, *args: Any, **options: Any) -> str:
        """Return at once: what is said is stored with the request that carries it."""
        return ""

    async def acreate_user_memories(self, *args: Any, **options: Any) -> str:
        """Do what `create_user_memories` does."""
        return ""

    def update_memory_task(self, task: str, user_id: str | None = None) -> str:
        """Keep what a model with ``enable_agentic_memory`` wants to, as its word; return what to tell it."""
        try:
            fact = self._memori.remember(task, trust="assistant", entity_id=_entity(user_id))
        except MemoriError as error:
            return self._failed(error)
        return f"Remembered, with the id {fact.id}."

    async def aupdate_memory_task(self, task: str, user_id: str | None = None) -> str:
        """Do what `update_memory_task` does, in a worker thread."""
        try:
            fact = await self._memori.aremember(task, trust="assistant", entity_id=_entity(user_id))
        except MemoriError as error:
            return self._failed(error)
        return f"Remembered, with the id {fact.id}."

    def search_user_memories(
        self,
        query: str | None = None,
        limit: int | None = None,
        retrieval_method: Any = None,
        user_id: str | None = None,
    ) -> list[UserMemory]:
        """Return what the user's memory holds on *query*, best first."""
        items = self._memori.recall(query or "", limit, entity_id=_entity(user_id))
        return [UserMemory(memory=item.content, memory_id=str(item.id), user_id=user_id) for item in items]

    def _failed(self, error: MemoriError) -> str:
        self._memori.failed(error)
        return "The memory cannot be reached now."


def _entity(user_id: str | None) -> str | None:
    # "default" is Agno's name for nobody in particular.
    return None if not user_id or user_id == "default" else user_id
