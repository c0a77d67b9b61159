"""The memory object of LangChain's classic chains, with ``langchain-classic`` installed or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.load.serializable import Serializable
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field

from memori import ConfigurationError, Memori, Message
from memori_langchain.messages import reply, sent

if TYPE_CHECKING:

    class BaseMemory(Serializable):
        """What a classic chain takes for a memory."""

else:
    try:
        from langchain_classic.base_memory import BaseMemory
    except ImportError:
        BaseMemory = Serializable  # Whoever calls the methods himself does without the chains.

__all__ = ["MemoriMemory"]


class MemoriMemory(BaseMemory):
    """A classic chain's ``memory=``: gives its prompt what is known, and stores what was said.

    Attributes:
        user_id: Whom memories are about. None: the current entity of ``mem.scope`` or ``mem.attribution``.
        process_id: The program's name in memory. None: the current process.
        session_id: The conversation's name. None: the user's running session.
        memory_key: The prompt's variable for what is known: a text, empty where nothing is.
        input_key: Which of the chain's inputs is the user's. None: the only one that there is beside the memory.
        output_key: Which of its outputs is the answer. None: the only one.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    memori: Memori = Field(exclude=True, repr=False)
    user_id: str | None = None
    process_id: str | None = None
    session_id: str | None = None
    memory_key: str = "history"
    input_key: str | None = None
    output_key: str | None = None

    @property
    def memory_variables(self) -> list[str]:
        """The names of what `load_memory_variables` returns."""
        return [self.memory_key]

    def load_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return what is known on the chain's input, under the memory's key. Never raises for want of memory.

        Raises:
            ConfigurationError: It is not clear which input is the user's.
        """
        said = self._said(inputs)
        turn = self._memori_turn(said, recall=True) if said else None
        return {self.memory_key: "" if turn is None or turn.block is None else turn.block}

    async def aload_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run `load_memory_variables` in a worker thread."""
        return await run_in_executor(None, self.load_memory_variables, inputs)

    def save_context(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Store the chain's input and output.

        Raises:
            ConfigurationError: It is not clear which input is the user's, or which output is the answer.
        """
        said, answered = self._said(inputs), _read(_value(outputs, self.output_key, "output", ()), "assistant")
        turn = self._memori_turn(said, recall=False)
        if turn is not None:
            turn.finish(answered, model=None)

    async def asave_context(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Run `save_context` in a worker thread."""
        await run_in_executor(None, self.save_context, inputs, outputs)

    def clear(self) -> None:
        """Do nothing: what is known of a user is erased by ``mem.forget``, not by a chain."""

    async def aclear(self) -> None:
        """Do nothing, as `clear` does."""

    def _said(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        return _read(_value(inputs, self.input_key, "input", (self.memory_key, "stop")), "user")

    def _memori_turn(self, said: tuple[Message, ...], *, recall: bool) -> Any:
        return self.memori.turn(
            said,
            provider="langchain",
            entity_id=self.user_id,
            process_id=self.process_id,
            session_id=self.session_id,
            recall=recall,
        )


def _value(values: Mapping[str, Any], key: str | None, what: str, others: tuple[str, ...]) -> Any:
    if key is None:
        keys = [name for name in values if name not in others]
        if len(keys) != 1:
            raise ConfigurationError(f"{what}s are {keys}: say which one is meant, by {what}_key=...")
        key = keys[0]
    if key not in values:
        raise ConfigurationError(f"{what}_key={key!r}: there are only {sorted(values)}")
    return values[key]


def _read(value: Any, role: Any) -> tuple[Message, ...]:
    if isinstance(value, BaseMessage):
        return reply(value) if role == "assistant" else sent([value])
    if isinstance(value, list) and all(isinstance(item, BaseMessage) for item in value):
        return sent(value)
    return (Message(role=role, content=str(value)),) if value else ()
