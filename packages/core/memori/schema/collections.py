"""The collections of a MongoDB database: named as the tables are, with what MongoDB needs beside them.

What is a row there is a document here. A fact carries its sources and its edge of the graph, a message the names of its
session and process: so that most of what belongs together is written, and read, together.
"""

from __future__ import annotations

from memori.schema.tables import attribute, entity, fact, item, job, message, process, session

__all__ = [
    "ATTRIBUTE",
    "COUNTER",
    "ENTITY",
    "ERASED",
    "FACT",
    "INDEXES",
    "ITEM",
    "JOB",
    "JOURNAL",
    "MESSAGE",
    "PROCESS",
    "SCHEMA",
    "SESSION",
    "VERSION",
]

VERSION = 1  # Of what is described here; a database with a higher one was built by a newer memori.

ENTITY = entity.name
PROCESS = process.name
SESSION = session.name
MESSAGE = message.name
FACT = fact.name
ATTRIBUTE = attribute.name
JOB = job.name
ITEM = item.name
COUNTER = "memori_counter"
"""The last id given, by collection; and what is locked by whoever changes items."""
JOURNAL = "memori_journal"
"""Parts of journals that are too large to stand in their entity's document."""
ERASED = "memori_erased"
"""The number of each entity that was erased, and nothing else of it."""
SCHEMA = "memori_schema"
"""One document: the version that the database was built for."""

# Collection → keys of each index, and whether they are unique.
INDEXES: dict[str, tuple[tuple[tuple[str, ...], bool], ...]] = {
    ENTITY: ((("external_id",), True), (("pending",), False)),
    SESSION: ((("entity_id", "uuid"), False),),
    MESSAGE: (
        (("session_id", "position"), False),
        (("session_id", "digest"), False),
        (("entity_id", "version"), False),
        (("entity_id", "said_at", "position", "_id"), False),
    ),
    FACT: (
        (("entity_id", "slot"), False),
        (("entity_id", "content_hash"), False),
        (("entity_id", "version"), False),
        (("entity_id", "valid_from", "_id"), False),
        (("superseded_by",), False),
    ),
    JOB: (
        (("exchange_id",), False),
        (("entity_id",), False),
        (("state", "exchanged_at", "_id"), False),
        (("state", "due_at"), False),
    ),
    ITEM: (
        (("path_hash", "key_hash"), False),
        (("under", "namespace_id", "_id"), False),
        (("namespace_id", "_id"), False),
        (("expires_at",), False),
        (("removed_at",), False),
    ),
    JOURNAL: ((("token", "part"), False), (("entity_id",), False)),
}
