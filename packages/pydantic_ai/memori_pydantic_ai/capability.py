"""The capability that gives an agent's runs memory: each request recalls, each reply is recorded."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import (
    AbstractCapability,
    CapabilityOrdering,
    WrapModelRequestHandler,
    WrapRunHandler,
)
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import AgentDepsT

from memori import Memori, Turn
from memori_pydantic_ai.conversation import reply, sent, with_block
from memori_pydantic_ai.dependencies import User, user_of
from memori_pydantic_ai.model import AnsweringModel

__all__ = ["MemoriCapability", "is_running"]

# The runs that a capability takes part in, each with its Memori's id: whatever else is registered stands aside.
_running: set[tuple[int, str | None]] = set()
_delegating: ContextVar[bool] = ContextVar("memori_delegating", default=False)


def is_running(memori: Memori, run_id: str | None) -> bool:
    """Return whether a capability of *memori* takes part in that run."""
    return (id(memori), run_id) in _running


@dataclass
class MemoriCapability(AbstractCapability[AgentDepsT]):
    """Gives an agent memory: ``Agent(model, capabilities=[MemoriCapability(mem)])``.

    Before each model request what is known on the user's last words goes into that request alone, never into the
    history; what is said, called and returned is stored when the reply has come, of a stream left early as far as it
    came. The conversation is the session, unless the application named one. Failures of memory's never harm a run.

    Args:
        user: Whom runs are for, or what returns it from a run's context. None: the dependencies' ``user_id`` if they
            have one, else the current entity of ``mem.scope`` or ``mem.attribution``. It is the current entity of the
            run's tools, and so of the agents that they call.
        process: The agent's name in memory. None: the current process; of an agent that another one calls, or where
            there is none, the agent's own name.
    """

    memori: Memori
    _: KW_ONLY
    user: User[AgentDepsT] = None
    process: str | None = None

    _turn: Turn | None = field(default=None, init=False, repr=False, compare=False)
    _history: Sequence[ModelMessage] = field(default=(), init=False, repr=False, compare=False)
    _known: int = field(default=0, init=False, repr=False, compare=False)
    _outputs: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)
    _aside: bool = field(default=True, init=False, repr=False, compare=False)
    _entity: str | None = field(default=None, init=False, repr=False, compare=False)
    _delegated: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.memori.ready()

    @classmethod
    def get_serialization_name(cls) -> str | None:
        return None  # A Memori cannot be written into a spec.

    def get_ordering(self) -> CapabilityOrdering:
        # After all that rewrites the history with what a request holds (ProcessHistory): the block must not get there.
        return CapabilityOrdering(position="innermost")

    async def for_run(self, ctx: RunContext[AgentDepsT]) -> MemoriCapability[AgentDepsT]:
        return copy.copy(self)

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        run = (id(self.memori), ctx.run_id)
        self._aside = run in _running
        if self._aside:
            return await handler()
        self._delegated = _delegating.get()
        token = _delegating.set(True)
        _running.add(run)
        try:
            with contextlib.ExitStack() as scope:
                self._begin(ctx, scope)
                return await handler()
        finally:
            _running.discard(run)
            _delegating.reset(token)
            self._interrupted()

    def _begin(self, ctx: RunContext[AgentDepsT], scope: contextlib.ExitStack) -> None:
        """Find out whom the run is for, and make that the current entity of all that it calls: tools, other agents."""
        try:
            identity = self.memori.config.identity
            user, current = user_of(self.user, ctx), identity.entity_id
            self._entity = current if user is None else user
            if self._entity is not None:
                # Also where it is the current one: the application's default may change while the run is under way.
                session = identity.session_id if self._entity == current else None
                # Pydantic AI carries it over to where the run's tools are called.
                scope.enter_context(self.memori.scope(self._entity, session_id=session))
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self._aside = True
            self.memori.failed(error)

    async def before_model_request(
        self, ctx: RunContext[AgentDepsT], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        if self._aside:
            return request_context
        self._outputs = frozenset(tool.name for tool in request_context.model_request_parameters.output_tools)
        try:
            messages = sent(request_context.messages, prompt=ctx.prompt, outputs=self._outputs)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self.memori.failed(error)
            return request_context
        self._history, self._known = ctx.messages, len(ctx.messages)
        self._turn = turn = await self.memori.aturn(
            messages,
            provider=request_context.model.system,
            entity_id=self._entity,
            process_id=self._process(ctx),
            session_id=ctx.conversation_id,
        )
        if turn is None:
            return request_context
        request_context.model = AnsweringModel(request_context.model, self.memori)
        if turn.block is not None:
            request_context.messages = with_block(
                request_context.messages, turn.block, role=turn.role, prompt=ctx.prompt
            )
        return request_context

    async def wrap_model_request(
        self, ctx: RunContext[AgentDepsT], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        response = await handler(request_context)
        if (turn := self._turn) is not None:
            self._turn = None
            await turn.afinish(self._said(response), model=response.model_name, partial=response.state != "complete")
        return response

    def _process(self, ctx: RunContext[AgentDepsT]) -> str | None:
        if self.process is not None:
            return self.process
        if self._delegated or self.memori.config.process_id is None:
            return None if ctx.agent is None else ctx.agent.name
        return None

    def _said(self, response: ModelResponse) -> Sequence[Any]:
        try:
            return reply(response, outputs=self._outputs)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self.memori.failed(error)
            return ()

    def _interrupted(self) -> None:
        """Record the reply whose stream its caller left by an error: it is in the history, and nowhere else."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        last = self._history[-1] if len(self._history) > self._known else None
        if isinstance(last, ModelResponse):
            # An error is on its way to the caller: ours must not take its place.
            with contextlib.suppress(Exception):
                if said := self._said(last):  # Else nothing was answered: tried again, it is the same turn.
                    turn.finish(said, model=last.model_name, partial=True, wait=False)
