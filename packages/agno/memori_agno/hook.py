"""The hook that gives an agent's or a team's runs memory, whatever database it has or has not."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypedDict

from agno.eval.base import BaseEval
from agno.guardrails.base import BaseGuardrail
from agno.models.base import Model

from memori import Memori
from memori_agno.listening import listen
from memori_agno.request import ended
from memori_agno.runs import Mark, mark_of, put_mark

__all__ = ["AgentHooks", "MemoriHook", "memori_agent_kwargs", "models"]

Hook: TypeAlias = Callable[..., Any] | BaseGuardrail | BaseEval

_REMEMBERED = 1000  # Workflows under way at once.
_prompts: OrderedDict[str, str] = OrderedDict()  # What each workflow's run was begun with.
_prompting = threading.Lock()


class AgentHooks(TypedDict):
    """Arguments of an ``Agent`` or a ``Team``."""

    pre_hooks: list[Hook]
    post_hooks: list[Hook]


def memori_agent_kwargs(
    memori: Memori, *, pre_hooks: Sequence[Hook] = (), post_hooks: Sequence[Hook] = ()
) -> AgentHooks:
    """Return the arguments that give an ``Agent`` or ``Team`` memory: ``Agent(model, **memori_agent_kwargs(mem))``.

    What a run asks of its model gets what is known on the user's words, in that request alone: it is in no session and
    no history. What is said, called and returned is stored when the reply has come; of a stream left early, as far as
    it came. The run's ``user_id`` and ``session_id`` say whose it is. Failures of memory's never harm a run.

    Args:
        pre_hooks, post_hooks: The application's own, which go in between: what they refuse is not stored, nor is a
            reply that they were still at when its task was cancelled.
    """
    hook = MemoriHook(memori)
    return {"pre_hooks": [hook.check, *pre_hooks], "post_hooks": [*post_hooks, hook.check]}


class MemoriHook(BaseGuardrail):
    """The first of an agent's ``pre_hooks`` and the last of its ``post_hooks``.

    It is a guardrail so that Agno always runs it in place: other hooks it may put off until the run is over. It does
    nothing that takes time: recall and storing happen around the model's requests.
    """

    def __init__(self, memori: Memori) -> None:
        self.memori = memori.ready()

    def check(
        self,  # Agno passes what a hook has names for.
        run_input: Any = None,
        run_output: Any = None,
        agent: Any = None,
        team: Any = None,
        run_context: Any = None,
    ) -> None:
        """Note that the run is to be remembered, or that its reply stands."""
        try:
            if run_output is None:
                self._begin(run_input, team or agent, run_context)
            elif (mark := mark_of(run_output, self.memori)) is not None:
                _accept(mark)
                ended(self.memori, mark, run_output, wait=not _in_loop())
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self.memori.failed(error)

    # Not a coroutine: Agno picks one of the two for good, and leaves coroutines out of synchronous runs.
    async_check = check  # type: ignore[assignment]

    def __deepcopy__(self, memo: object) -> MemoriHook:
        return self

    def _begin(self, run_input: Any, owner: Any, run_context: Any) -> None:
        for model in models(owner):
            listen(model, self.memori, "hook")
        judged = any(not isinstance(getattr(hook, "__self__", None), MemoriHook) for hook in owner.post_hooks or ())
        mark = Mark(self.memori, writer=_writer(run_input, owner, run_context), judged=judged)
        put_mark(run_input, mark, run_context.run_id)


def models(owner: Any) -> list[Model]:
    """Return the models that may answer for an agent or team, as far as they are made."""
    fallbacks = owner.fallback_config
    lists = [] if fallbacks is None else [fallbacks.on_error, fallbacks.on_rate_limit, fallbacks.on_context_overflow]
    found = [owner.model, *(model for instead in lists for model in instead)]
    return [model for model in found if isinstance(model, Model)]


def _writer(run_input: Any, owner: Any, run_context: Any) -> str | None:
    """Return which model wrote the prompt: a team's for its members, an earlier step's in a workflow."""
    if (team := getattr(owner, "team_id", None) or getattr(owner, "parent_team_id", None)) is not None:
        return str(team)
    if getattr(run_context, "workflow_id", None) is None:
        return None
    # The first step has what the user said, and so has every other one with the same; else an earlier step wrote it.
    prompt: str = run_input.input_content_string()
    with _prompting:
        first = _prompts.setdefault(run_context.run_id, prompt)
        if len(_prompts) > _REMEMBERED:
            _prompts.popitem(last=False)
    return None if prompt == first else str(run_context.workflow_name or run_context.workflow_id)


def _accept(mark: Mark) -> None:
    while mark.held:
        mark.held.pop(0).accept(wait=not _in_loop())


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
