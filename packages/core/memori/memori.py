"""`Memori`: the facade, and the only file that picks defaults."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from memori.config import CacheConfig, Config, EmbeddingsConfig, LlmConfig, StorageConfig
from memori.deadline import BoundedRunner
from memori.errors import ClosedError, ConfigurationError, MemoriError, StorageError
from memori.failures import Failures
from memori.identity import Identity
from memori.settings import Settings, database_url
from memori.tally import Tally
from memori.types import (
    Attribution,
    Exchange,
    ExtractedFact,
    Fact,
    FactKind,
    FailedJob,
    Health,
    Imported,
    JobCounts,
    Message,
    Recollection,
    RecollectionKind,
    Status,
    StoredMessage,
    Trust,
)

if TYPE_CHECKING:
    from memori.augmentation.worker import Worker
    from memori.capture.recorder import Recorder
    from memori.items import Items
    from memori.protocols import Embedder, Extractor, Ranker, Storage, Turn
    from memori.recall import Recaller
    from memori.reindexing import Reindexer

__all__ = ["Augmentation", "Llm", "Memori"]

log = logging.getLogger("memori")
ResultT = TypeVar("ResultT")

# How many recollections are looked at for each that a call is given: some are in the request already.
_CANDIDATES = 4
# A message that matches much worse than the best one is but its neighbour in the dialogue; facts are read for a reason.
_MESSAGE_SHARE = 0.5
_FORK_S = 1.0  # What a fork waits for transactions to end.
_TALLY_S = 0.5  # What closing waits at least for the counts of recalls to be stored, and a stalled database at most.
_LOOK_S = 0.25  # Between two looks at the database, where another process may be doing the work that is waited for.


class Memori:
    """Memory for LLM applications, in the user's own database. Safe to use from any thread and task.

    Args:
        conn: What reaches the database: a URL, a path, a DB-API connection or a callable that returns one, a
            SQLAlchemy or SQLModel engine, connection, session or sessionmaker, a PyMongo database or client. None:
            ``MEMORI_DATABASE_URL``, or ``sqlite:///memori.db``.
        debug_truncate: Accepted for callers of the older API, and ignored.
        settings: The tunables to start from. None: the defaults and ``MEMORI_…`` variables.
        embedder: Turns text into vectors: an `Embedder`, a callable ``texts -> vectors``, or the name of an
            OpenAI-compatible model (``"openai:text-embedding-3-small"``). None: the embedded one, without network.
        extractor: Turns exchanges into facts: an `Extractor`, or a callable of an exchange's messages. None: rules,
            which need no model.
        ranker: Orders what may be recalled. None: words, meaning, neighbours, time and importance fused.
        on_error: Overrides the setting of that name.
        spool: A folder for exchanges that cannot be stored yet. None: they are held in memory only.
        worker: Whether to augment in this process. False: leave it to another.
        api_key, base_url, use_rust_core: Accepted for callers of the older API, and ignored.

    Raises:
        ConfigurationError: An argument cannot be used. An unreachable database is no such error.
    """

    def __init__(
        self,
        conn: object = None,
        debug_truncate: bool = True,
        *,
        settings: Settings | None = None,
        embedder: Embedder | Callable[[list[str]], Any] | str | None = None,
        extractor: Extractor | Callable[[Sequence[StoredMessage]], Any] | None = None,
        ranker: Ranker | None = None,
        on_error: str | None = None,
        spool: str | os.PathLike[str] | None = None,
        worker: bool = True,
        api_key: str | None = None,
        base_url: str | None = None,
        use_rust_core: bool | None = None,
    ) -> None:
        from memori.augmentation.pipeline import Pipeline
        from memori.augmentation.rules import RuleExtractor
        from memori.augmentation.worker import Worker
        from memori.capture.recorder import Recorder
        from memori.capture.spool import Spool
        from memori.capture.turn import Hooks
        from memori.embeddings.choose import embedder_from
        from memori.ranking.hybrid import HybridRanker
        from memori.recall import Recaller
        from memori.reindexing import Reindexer
        from memori.storage.choose import storage_from

        if (api_key, base_url, use_rust_core) != (None, None, None):
            log.debug("api_key, base_url and use_rust_core are ignored: nothing leaves the machine")
        settings = settings or Settings.from_environment()
        if on_error is not None:
            settings = replace(settings, on_error=on_error)  # type: ignore[arg-type]  # checked by Settings
        self.config = Config(settings)
        self._identity = self.config.identity = Identity(self.config)
        self._failures = Failures(self.config)
        self._embedder = embedder_from(embedder)
        self._storage = storage_from(database_url() if conn is None else conn)
        self._pipeline = Pipeline(extractor or RuleExtractor(), self._embedder, self.config)
        self._runner = BoundedRunner("memori-call")
        self._recaller = Recaller(
            self._storage, self._embedder, ranker or HybridRanker(), self.config, later=_later(self._runner)
        )
        self._warm = threading.Thread(target=_warm_up, args=(self._recaller,), name="memori-warm-up", daemon=True)
        self._worker = Worker(
            self._storage,
            self._pipeline.revision,
            self.config,
            self._failures,
            prepare=self._warm.join,
            revised=self._recaller.refresh,
        )
        self._tally = Tally(self._storage)
        self._recorder = Recorder(
            self._storage,
            self.config,
            self._failures,
            spool=None if spool is None else Spool(Path(spool), self._failures),
            stored=self._worker.notify,
        )
        self._hooks = Hooks(
            self,
            identity=self._identity,
            recorder=self._recorder,
            runner=self._runner,
            failures=self._failures,
            settings=self.config,
            block=self._block,
        )
        self.config.storage = StorageConfig(self._storage, self._built)
        self.config.embeddings = EmbeddingsConfig(self._embedder)
        self.config.cache = CacheConfig(self._storage, self._identity)
        self.config.llm = LlmConfig(lambda: self._hooks.provider)
        self.llm = Llm(self)
        self.augmentation = Augmentation(
            self._storage, self._worker, self._recorder, Reindexer(self._storage, self._embedder)
        )
        self._works_here = worker
        self._shutdown = weakref.finalize(
            self,
            _shut_down,
            self._recorder,
            self._worker,
            self._runner,
            self._tally,
            self._storage,
            self.config,
            self._warm,
        )
        _alive.add(self)
        self._warm.start()
        if worker:
            self._worker.start()

    # Identity

    def attribution(self, entity_id: str, process_id: str | None = None) -> Memori:
        """Set whom calls are for where no `scope` is open, and return this.

        Args:
            entity_id: Whom memories are about: a user, usually.
            process_id: The agent or program.

        Raises:
            TypeError: An id is not a string.
            ValueError: An id is empty.
        """
        self._identity.set_default(entity_id, process_id)
        self._runner.submit(lambda: self._recaller.prefetch(entity_id)).add_done_callback(_log_quietly)
        return self

    def scope(
        self, entity_id: str, process_id: str | None = None, session_id: str | None = None
    ) -> AbstractContextManager[None]:
        """Return a context manager within which calls are for this entity: per thread and task, so none mix.

        Args:
            process_id: None: the one that is current outside.
            session_id: None: the entity's running session.
        """
        return self._identity.scope(entity_id, process_id, session_id)

    def new_session(self) -> Memori:
        """Begin a new session and return this."""
        self._identity.new_session()
        return self

    def set_session(self, session_id: str) -> Memori:
        """Go on with the session of this id (any string of the application's own) and return this."""
        self._identity.set_session(session_id)
        return self

    # Memories

    def recall(
        self,
        query: str,
        limit: int | None = None,
        *,
        kinds: Sequence[RecollectionKind] | None = None,
        as_of: datetime | None = None,
        min_score: float | None = None,
        explain: bool = False,
        entity_id: str | None = None,
    ) -> list[Recollection]:
        """Return what the current entity's memory holds on *query*, best first: facts, and messages said.

        Args:
            limit: None: ``config.recall_facts_limit``.
            kinds: Only these; ``"message"`` is one.
            as_of: As things stood then. Timezone-aware.
            min_score: Only what scores at least that, in [0, 1].
            explain: Whether to fill each item's ``explanation``.
            entity_id: None: the current entity.

        Raises:
            AttributionError: No entity is set.
            StorageError: The database did not answer, and the entity is not in the cache.
        """
        self._open()
        entity = self._identity.entity(entity_id)
        items = self._recaller.recall(
            entity,
            query,
            limit=self.config.recall_facts_limit if limit is None else limit,
            kinds=kinds,
            as_of=as_of,
            min_score=min_score,
            explain=explain,
            now=datetime.now(UTC),
        )
        self._note_recalled(entity, items)
        return items

    def remember(
        self,
        content: str,
        *,
        kind: FactKind = "fact",
        subject: str | None = None,
        predicate: str | None = None,
        object: str | None = None,
        importance: float = 0.5,
        trust: Trust = "application",
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        sources: Sequence[int] = (),
        entity_id: str | None = None,
    ) -> Fact:
        """Store a fact on the application's own word and return it as stored; one known already is mentioned again.

        Args:
            subject, predicate, object: The triple. A new object of a single-valued predicate takes the old one's place.
            trust: On whose word. ``"assistant"`` for what a model decides to remember.
            sources: Ids of messages that it rests on.

        Raises:
            AttributionError: No entity is set.
            ConfigurationError: An argument cannot be used.
            StorageError: The database did not take it.
        """
        self._open()
        now = datetime.now(UTC)
        fact = ExtractedFact(
            kind=kind,
            content=content,
            subject=subject,
            predicate=predicate,
            object=object,
            importance=importance,
            trust=trust,
            valid_from=valid_from,
            valid_to=valid_to,
            sources=tuple(sources),
        )
        revision = self._pipeline.remembered([fact], at=now)
        return self._storage.revise(self._identity.entity(entity_id), revision, now=now)[0]

    def facts(
        self,
        *,
        kinds: Sequence[FactKind] | None = None,
        statuses: Sequence[Status] = ("active",),
        as_of: datetime | None = None,
        limit: int | None = None,
        entity_id: str | None = None,
    ) -> list[Fact]:
        """Return the entity's facts, newest first.

        Args:
            statuses: ``("active", "superseded")`` for the history too.
            as_of: As things stood then.

        Raises:
            AttributionError: No entity is set.
            StorageError: The database did not answer.
        """
        self._open()
        entity = self._identity.entity(entity_id)
        return self._storage.facts(entity, kinds=kinds, statuses=statuses, as_of=as_of, limit=limit)

    def messages(
        self, *, session_id: str | None = None, limit: int | None = None, entity_id: str | None = None
    ) -> list[StoredMessage]:
        """Return the entity's messages, oldest first; with *limit*, the newest that many.

        Raises:
            AttributionError: No entity is set.
            StorageError: The database did not answer.
        """
        self._open()
        return self._storage.messages(self._identity.entity(entity_id), session_id=session_id, limit=limit)

    def capture(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        session_id: str | None = None,
        at: datetime | None = None,
        entity_id: str | None = None,
    ) -> list[StoredMessage]:
        """Store a conversation that did not pass through a client, and return those messages of it that are new.

        Args:
            messages: `Message` objects, or mappings with ``role`` and ``content`` and, if known, ``author`` (or
                ``name``), ``at`` and ``metadata``.
            session_id: None: the current session.
            at: When it took place. None: now. A message's own time goes before.

        Raises:
            AttributionError: No entity is set.
            ConfigurationError: A message cannot be read.
            StorageError: The database did not take them.
        """
        from memori.capture.conversation import conversation, exchange_id

        self._open()
        entity = self._identity.entity(entity_id)
        with self._identity.scope(entity, None, session_id):
            attribution = self._identity.current()
        assert attribution is not None  # noqa: S101 - the scope above names an entity
        sent = conversation(messages, at=at)
        if not sent:
            return []
        exchange = Exchange(
            id=exchange_id(attribution, sent),
            attribution=attribution,
            sent=sent,
            reply=(),
            at=at or datetime.now(UTC),
        )
        stored = self._storage.record(exchange)
        self._worker.notify()
        return stored

    def import_from(self, conn: object, *, build: bool = False) -> list[Imported]:
        """Bring over what MemoriLabs' memori 3 stored in another database; return how much of each kind.

        Entities, processes, sessions with their messages, facts with their mentions and dates, the graph, and what is
        known of processes. That database is read only. Done again, it adds what came since and nothing else. The
        messages' embeddings are left to the worker.

        Args:
            conn: What leads to that database, e.g. its URL.
            build: Whether to make memori's tables first, once that database is seen to be such a one.

        Raises:
            ConfigurationError: It is no such database.
            StorageError: One of the databases failed; what was brought over until then stays.
        """
        from memori.importing import Importer
        from memori.storage.upstream import UpstreamDatabase

        self._open()
        source = UpstreamDatabase(conn)
        try:
            source.check()
            if build:
                self.config.storage.build()
            return Importer(self._storage, self._pipeline.carried).run(source)
        finally:
            source.close()
            self._worker.notify()

    def forget(self, fact_id: int | None = None, *, everything: bool = False, entity_id: str | None = None) -> int:
        """Erase one fact, or everything that is kept of the entity; return how many facts and messages went.

        Args:
            everything: Facts, messages, sessions, graph and unfinished work. Cannot be undone. Documents in `items`
                are of no entity, and stay: `memori.items.Items.erase`.

        Raises:
            AttributionError: No entity is set.
            ConfigurationError: Neither or both of *fact_id* and *everything* are given.
            StorageError: The database did not do it.
        """
        self._open()
        if (fact_id is None) != everything:
            raise ConfigurationError("say which: forget(fact_id) erases one fact, forget(everything=True) all there is")
        entity = self._identity.entity(entity_id)
        if fact_id is not None:
            return self._storage.forget(entity, fact_id=fact_id)
        with self._recorder.forgetting(entity):
            gone = self._storage.forget(entity)
        self._hooks.forget(entity)
        return gone

    def delete_entity_memories(self, entity_id: str | None = None) -> int:
        """Erase everything that is kept of the entity: the older name of ``forget(everything=True)``."""
        return self.forget(everything=True, entity_id=entity_id)

    @property
    def items(self) -> Items:
        """The application's own documents: kept under namespaces, found by meaning, in tables of their own."""
        from memori.items import Items

        self._open()
        return Items(self._storage.items, self._embedder)

    def embed_texts(self, texts: str | Sequence[str]) -> list[list[float]]:
        """Return a vector for each text, as the embedder gives it."""
        given = [texts] if isinstance(texts, str) else list(texts)
        return [[float(value) for value in vector] for vector in self._embedder.embed(given, purpose="document")]

    def status(self) -> Health:
        """Return how this is doing. Never raises; asks the database with a bounded wait."""
        try:
            jobs: JobCounts | None = self._runner.run(
                lambda: self._storage.jobs(now=datetime.now(UTC)),
                timeout_s=max(self.config.recall_timeout_s, 1.0),
                what="asking for the work in the database",
            )
        except MemoriError as error:
            log.debug("no job counts: %s", error)
            jobs = None
        return Health(
            recorded=self._recorder.recorded,
            pending=self._recorder.pending,
            spooled=self._recorder.spooled,
            lost=self._recorder.lost,
            skipped=self._hooks.skipped,
            failures=self._failures.count,
            last_failure=self._failures.last,
            last_failure_at=self._failures.last_at,
            augmentation=jobs,
            recall=self._recaller.status(),
        )

    def close(self) -> None:
        """Store what is pending, finish the job at hand, and give back what was opened; bounded by ``close_timeout_s``.

        Registered clients go on working, without memory. Closing twice is harmless.
        """
        self._hooks.closed = True
        self._shutdown()

    def __enter__(self) -> Memori:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The same, asynchronously: each runs in a worker thread, with the caller's scope.

    async def arecall(self, query: str, limit: int | None = None, **options: Any) -> list[Recollection]:
        """Run `recall` in a worker thread."""
        return await _in_thread(lambda: self.recall(query, limit, **options))

    async def aremember(self, content: str, **options: Any) -> Fact:
        """Run `remember` in a worker thread."""
        return await _in_thread(lambda: self.remember(content, **options))

    async def afacts(self, **options: Any) -> list[Fact]:
        """Run `facts` in a worker thread."""
        return await _in_thread(lambda: self.facts(**options))

    async def amessages(self, **options: Any) -> list[StoredMessage]:
        """Run `messages` in a worker thread."""
        return await _in_thread(lambda: self.messages(**options))

    async def acapture(self, messages: Sequence[Message | Mapping[str, Any]], **options: Any) -> list[StoredMessage]:
        """Run `capture` in a worker thread."""
        return await _in_thread(lambda: self.capture(messages, **options))

    async def aforget(self, fact_id: int | None = None, **options: Any) -> int:
        """Run `forget` in a worker thread."""
        return await _in_thread(lambda: self.forget(fact_id, **options))

    async def astatus(self) -> Health:
        """Run `status` in a worker thread."""
        return await _in_thread(self.status)

    async def aclose(self) -> None:
        """Run `close` in a worker thread."""
        await _in_thread(self.close)

    async def __aenter__(self) -> Memori:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # For adapters of frameworks, which see a conversation pass by themselves

    def turn(
        self,
        messages: Sequence[Message],
        *,
        provider: str,
        entity_id: str | None = None,
        process_id: str | None = None,
        session_id: str | None = None,
        recall: bool = True,
    ) -> Turn | None:
        """Recall for a model's next reply and return the turn, to be finished with it; None when no entity is set.

        What `llm.register` does for a client, for whoever calls the model otherwise: put the turn's ``block``, if
        there is one, before the last user message, in a message of its own with the turn's ``role``; then call the
        turn's ``finish`` (``afinish``) with what the model said. Never raises, unless ``on_error="raise"``; bounded by
        ``recall_timeout_s``.

        Args:
            messages: The whole conversation that the model is sent, oldest first, without system prompts. What it
                has of memori's own blocks is left out. After the first of a turn's requests (a tool loop), the same
                block comes back.
            provider: Who answers, as stored with the exchange.
            entity_id: None: the current entity.
            process_id: None: the current process.
            session_id: The framework's name for the conversation: the session, unless the application named one.
            recall: False where there is nobody to give memories to: the turn only records, and its block is None.
        """
        identity = self._identity
        entity = entity_id if entity_id is not None else identity.entity_id
        with ExitStack() as stack:
            if entity is not None:
                named = identity.session_id if entity == identity.entity_id else None
                try:
                    stack.enter_context(identity.scope(entity, process_id, named or session_id))
                except (TypeError, ValueError) as error:
                    self.failed(error)
                    return None
            return self._hooks.begin(messages, provider=provider, recall=recall)

    async def aturn(self, messages: Sequence[Message], **options: Any) -> Turn | None:
        """Run `turn` in a worker thread."""
        from memori.capture.wrapping import in_thread

        return await in_thread(lambda: self.turn(messages, **options))

    def answering(self) -> AbstractContextManager[None]:
        """Return a context manager within which this takes no part in calls of registered clients.

        For an adapter around a model's call: what the model asks of its SDK is the conversation that has its `turn`.
        """
        from memori.capture.wrapping import answering

        return answering([self._hooks])

    def ready(self) -> Memori:
        """Return this once recall is ready: loading the embedder takes a good 0.5 s, which no call should wait for."""
        self._warm.join()
        return self

    def failed(self, error: Exception) -> None:
        """Log and count a failure of an adapter's own, which must not harm the call; ``on_error="raise"`` raises it."""
        self._hooks.failed(error)

    # Inside

    def _block(self, attribution: Attribution, query: str, sent: Sequence[Message]) -> str | None:
        from memori.injection import block

        now = datetime.now(UTC)
        limit, messages_left = self.config.recall_facts_limit, self.config.recall_message_limit
        known = {message.content.strip() for message in sent}
        chosen: list[Recollection] = []
        best = 0.0
        for item in self._recaller.each(
            attribution.entity_id,
            query,
            limit=limit * _CANDIDATES,
            min_score=self.config.recall_relevance_threshold,
            now=now,
        ):
            best = max(best, item.score)
            if item.kind == "message":
                if messages_left == 0 or item.content.strip() in known or item.score < _MESSAGE_SHARE * best:
                    continue
                messages_left -= 1
            chosen.append(item)
            if len(chosen) == limit:
                break
        self._note_recalled(attribution.entity_id, chosen)
        return block(chosen, now=now, token_budget=self.config.injection_token_budget)

    def _note_recalled(self, entity_id: str, items: Sequence[Recollection]) -> None:
        self._tally.add(entity_id, [item.id for item in items if item.kind != "message"])

    def _built(self) -> None:
        self._recorder.retry_now()
        self._worker.notify()

    def _open(self) -> None:
        if self._hooks.closed:
            raise ClosedError("this Memori is closed: make a new one")

    def _after_fork(self) -> None:
        self._runner.reset()
        self._tally.reset()
        self._recaller.reset()
        self._recorder.reset()
        self._worker.reset()
        self._storage.reset()
        if self._works_here and not self._hooks.closed:
            self._worker.start()


class Llm:
    """``mem.llm``: the clients whose calls are remembered."""

    def __init__(self, memori: Memori) -> None:
        self._memori = memori

    def register(
        self,
        client: Any = None,
        *,
        openai_chat: Any = None,
        claude: Any = None,
        gemini: Any = None,
        xai: Any = None,
        chatbedrock: Any = None,
        chatgooglegenai: Any = None,
        chatopenai: Any = None,
        chatvertexai: Any = None,
    ) -> Memori:
        """Remember this client's calls, and give them memories; return the `Memori`. Registering twice is harmless.

        Args:
            client: A client, model or agent. The client itself is changed, and stays of its type.
            openai_chat, claude, gemini, xai, chatbedrock, chatgooglegenai, chatopenai, chatvertexai: The older API's
                names for the same.

        Raises:
            ConfigurationError: It is nothing that memori knows; the message lists what is.
        """
        from memori.capture.registry import client_adapter

        named = [openai_chat, claude, gemini, xai, chatbedrock, chatgooglegenai, chatopenai, chatvertexai]
        clients = [client, *named] if client is not None else [given for given in named if given is not None]
        if not clients:
            raise ConfigurationError("register(None): pass a client, e.g. mem.llm.register(OpenAI())")
        self._memori._open()
        for given in filter(lambda given: given is not None, clients):
            client_adapter(given).register(given, self._memori._hooks)
        return self._memori.ready()

    def unregister(self, client: Any) -> bool:
        """Leave this client's calls alone again; return whether it was registered here."""
        from memori.capture.registry import client_adapter

        return client_adapter(client).unregister(client, self._memori._hooks)


class Augmentation:
    """``mem.augmentation``: the work in the background."""

    def __init__(self, storage: Storage, worker: Worker, recorder: Recorder, reindexer: Reindexer) -> None:
        self._storage = storage
        self._worker = worker
        self._recorder = recorder
        self._reindexer = reindexer

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stored exchange is augmented; return whether that came to be.

        False while work is unfinished or failed, and when the database cannot be reached: `status` says what and why.

        Args:
            timeout: Seconds. None: until nothing is left to be done but what has failed for good.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            handled = self._worker.handled
            stored = self._recorder.flush(min(_LOOK_S, max(deadline - time.monotonic(), 0.0)))
            try:
                jobs = self._storage.jobs(now=datetime.now(UTC))
            except StorageError as error:
                log.warning("waiting for the augmentation: %s", error)
                if timeout is None:
                    return False
            else:
                if stored and not jobs.pending and not jobs.running:
                    return not jobs.failed
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._worker.wait(after=handled, timeout_s=min(_LOOK_S, left))

    async def await_(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - it mirrors `wait`
        """Run `wait` in a worker thread."""
        return await _in_thread(lambda: self.wait(timeout))

    def run(self) -> int:
        """Do what is due now, in this thread; return how many exchanges were augmented.

        Raises:
            StorageError: The database cannot be reached.
        """
        self._recorder.flush(0)
        return self._worker.run()

    def start(self) -> None:
        """Augment in this process from now on, also when it was opened with ``worker=False``."""
        self._worker.start()

    def failed(self, *, limit: int = 20) -> list[FailedJob]:
        """Return the exchanges that were given up, the latest first, with the error of each.

        Raises:
            StorageError: The database cannot be reached.
        """
        return self._storage.failed(limit=limit)

    def retry(self) -> int:
        """Put work that failed for good back to be done; return how many exchanges.

        Raises:
            StorageError: The database cannot be reached.
        """
        count = self._storage.retry()
        self._worker.notify()
        return count

    def reindex(self, entity_id: str | None = None) -> int:
        """Embed anew what has no embedding of the present embedder; return how many facts and messages.

        To be done once after the embedder was changed, or has failed for a while: until then those are found by their
        words alone. Others may store and recall meanwhile. Interrupted, it goes on where it was when it is run again.

        Args:
            entity_id: Whose; None: everybody's.

        Raises:
            StorageError: The database failed. What was embedded until then stays.
            EmbeddingError: The embedder did; likewise.
        """
        return self._reindexer.run(entity_id)

    def status(self) -> JobCounts:
        """Return how much is waiting, running, failed and done, with the last errors.

        Raises:
            StorageError: The database cannot be reached.
        """
        return self._storage.jobs(now=datetime.now(UTC))


async def _in_thread(function: Callable[[], ResultT]) -> ResultT:
    from anyio import to_thread

    return await to_thread.run_sync(function)


def _later(runner: BoundedRunner) -> Callable[[Callable[[], object]], None]:
    # Not a method: what has it must not keep its Memori alive.
    def submit(work: Callable[[], object]) -> None:
        with suppress(ClosedError, RuntimeError):  # No thread can be started: it will be done another time.
            runner.submit(work).add_done_callback(_log_quietly)

    return submit


def _log_quietly(future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.debug("in the background: %s", error)


def _warm_up(recaller: Recaller) -> None:
    try:
        recaller.warm_up()
    except Exception as error:  # noqa: BLE001 - it will fail again, and be noted, where it is needed
        log.debug("warming up: %s", error)


def _shut_down(
    recorder: Recorder,
    worker: Worker,
    runner: BoundedRunner,
    tally: Tally,
    storage: Storage,
    settings: Settings,
    warm: threading.Thread,
) -> None:
    # Not a method: a finalizer that knew its Memori would keep it alive.
    end = time.monotonic() + settings.close_timeout_s
    recorder.close(settings.close_timeout_s)
    worker.stop(max(end - time.monotonic(), 0.0))
    runner.close(max(end - time.monotonic(), 0.0))
    warm.join(max(end - time.monotonic(), 0.0))
    tally.close(max(end - time.monotonic(), _TALLY_S))
    storage.close()


_alive: weakref.WeakSet[Memori] = weakref.WeakSet()


def _before_fork() -> None:
    for memori in list(_alive):
        memori._storage.pause(_FORK_S)


def _after_fork_in_parent() -> None:
    for memori in list(_alive):
        memori._storage.resume()


def _after_fork() -> None:
    for memori in list(_alive):
        memori._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
