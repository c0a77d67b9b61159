"""What happens around one call: whom it is for, what it is given, and what is kept of it."""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from memori.capture.reading import own_json
from memori.capture.recorder import Recorder
from memori.capture.wrapping import in_thread
from memori.deadline import BoundedRunner
from memori.failures import Failures
from memori.identity import Identity
from memori.injection import strip
from memori.settings import Settings
from memori.types import Attribution, Exchange, Message

__all__ = ["Hooks", "Turn"]

log = logging.getLogger("memori")

REMEMBERED_BLOCKS = 1000  # Turns under way at once; of one that was forgotten, the next tool hop recalls anew.


class Hooks:
    """`memori.protocols.CallHooks` for one `Memori`.

    Args:
        owner: Kept alive as long as a client is registered, for what it owns does the work.
        block: Returns what to inject for a query: ``block(attribution, query, sent)``. Runs with a bounded wait.
    """

    def __init__(
        self,
        owner: object,
        *,
        identity: Identity,
        recorder: Recorder,
        runner: BoundedRunner,
        failures: Failures,
        settings: Settings,
        block: Callable[[Attribution, str, Sequence[Message]], str | None],
    ) -> None:
        self.owner = owner
        self._identity = identity
        self._recorder = recorder
        self._runner = runner
        self._failures = failures
        self._settings = settings
        self._block = block
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, str, str], str | None] = OrderedDict()
        self._warned = False
        self.skipped = 0
        self.closed = False
        self.provider: str | None = None

    def begin(self, sent: Sequence[Message], *, provider: str, recall: bool = True) -> Turn | None:
        """Return the call's turn, without a block unless *recall*; None when it is to pass untouched."""
        if self.closed:
            return None
        self.provider = provider
        attribution = self._identity.current()
        if attribution is None:
            self._skip()
            return None
        try:
            sent = _own(sent)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self._failures.note_or_raise("reading a call", error)
            return None
        turn = Turn(self._recorder, self._failures, self._settings.injection_role, attribution, sent, provider)
        if not recall:
            return turn
        try:
            turn.block = self._recalled(attribution, sent)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            self._failures.note_or_raise("recalling for a call", error)
        return turn

    def failed(self, error: Exception) -> None:
        """Log and count a failure of ours; raise it under ``on_error="raise"``."""
        self._failures.note_or_raise("capturing a call", error)

    def _recalled(self, attribution: Attribution, sent: Sequence[Message]) -> str | None:
        asked = next((at for at in reversed(range(len(sent))) if sent[at].role == "user"), None)
        if asked is None:
            return None
        query = sent[asked].content
        digest = hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()
        turn = (attribution.entity_id, attribution.session_id, digest)
        if asked < len(sent) - 1:
            # A hop of a tool loop: the same turn, so the same block, which also keeps the provider's prompt cache warm.
            with self._lock:
                if turn in self._blocks:
                    return self._blocks[turn]
        block = self._runner.run(
            lambda: self._block(attribution, query, sent),
            timeout_s=self._settings.recall_timeout_s,
            what="recalling for a call",
        )
        with self._lock:
            self._blocks[turn] = block
            self._blocks.move_to_end(turn)
            if len(self._blocks) > REMEMBERED_BLOCKS:
                self._blocks.popitem(last=False)
        return block

    def forget(self, entity_id: str) -> None:
        """Drop what is held of an entity that is being forgotten."""
        with self._lock:
            for turn in [turn for turn in self._blocks if turn[0] == entity_id]:
                del self._blocks[turn]

    def _skip(self) -> None:
        self.skipped += 1
        if not self._warned:
            self._warned = True
            log.warning(
                "a call was made for no entity, so it is neither remembered nor given memories: call "
                "mem.attribution(entity_id=...) first, or make it within `with mem.scope(entity_id=...):`"
            )


class Turn:
    """`memori.protocols.CallTurn`: one call under way.

    Attributes:
        block: What to inject; None: nothing.
        role: The role to inject it under.
        attribution: Whose the exchange is, and the session that it is stored in.
    """

    def __init__(
        self,
        recorder: Recorder,
        failures: Failures,
        role: Literal["user", "system"],
        attribution: Attribution,
        sent: tuple[Message, ...],
        provider: str,
    ) -> None:
        self.block: str | None = None
        self.role = role
        self._recorder = recorder
        self._failures = failures
        self.attribution = attribution
        self._sent = sent
        self._provider = provider
        self._at = datetime.now(UTC)
        self._lock = threading.Lock()
        self._finished = False

    def finish(self, reply: Sequence[Message], *, model: str | None, partial: bool = False, wait: bool = True) -> None:
        """Record the exchange; only the first call has an effect."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
        try:
            error = self._record(_own(reply), model=model, partial=partial, wait=wait)
        except Exception as failure:  # noqa: BLE001 - memory never harms the call
            error = failure
        if error is not None:
            self._failures.note_or_raise("recording a call", error)

    def _record(self, reply: tuple[Message, ...], *, model: str | None, partial: bool, wait: bool) -> Exception | None:
        if not self._sent and not reply:
            return None
        exchange = Exchange(
            id=uuid4().hex,
            attribution=self.attribution,
            sent=self._sent,
            reply=reply,
            at=self._at,
            provider=self._provider,
            model=model,
            partial=partial,
        )
        return self._recorder.record(exchange, wait=wait)

    async def afinish(self, reply: Sequence[Message], *, model: str | None, partial: bool = False) -> None:
        """Do what `finish` does without blocking the event loop; cancelled, without waiting for it to be stored."""
        try:
            await in_thread(functools.partial(self.finish, reply, model=model, partial=partial))
        except BaseException:
            self.finish(reply, model=model, partial=partial, wait=False)
            raise


def _own(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return *messages* without memori's own blocks, and without those that then say nothing."""
    stripped = ((message, _stripped(message)) for message in messages)
    return tuple(
        message if content == message.content else replace(message, content=content)
        for message, content in stripped
        if content.strip()
    )


def _stripped(message: Message) -> str:
    # What a tool is called with, or returns, may be JSON, whose escapes hide a block.
    name, _, arguments = message.content.partition("(")
    if message.kind == "tool_call" and arguments.endswith(")"):
        return strip(f"{name}({own_json(arguments[:-1])})")
    return strip(own_json(message.content) if message.kind == "tool_result" else message.content)
