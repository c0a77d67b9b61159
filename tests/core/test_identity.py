"""Whom a call is for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from memori.errors import AttributionError
from memori.identity import Identity
from memori.settings import Settings


@pytest.fixture
def identity() -> Identity:
    return Identity(Settings())


def entity_of(identity: Identity) -> str:
    current = identity.current()
    assert current is not None
    return current.entity_id


def session_of(identity: Identity) -> str:
    current = identity.current()
    assert current is not None
    return current.session_id


def test_nobody_is_current_at_first(identity: Identity) -> None:
    """Fails when a call made for no entity is taken to be for some entity."""
    assert identity.current() is None
    with pytest.raises(AttributionError, match=r"mem\.attribution"):
        identity.entity()


def test_a_scope_overrides_the_default_and_ends(identity: Identity) -> None:
    """Fails when a scope leaks out of its block, or does not win within it."""
    identity.set_default("alice", "support")
    with identity.scope("bob", None, None):
        assert entity_of(identity) == "bob"
        with identity.scope("carol", "billing", "s1"):
            current = identity.current()
            assert current is not None
            assert (current.entity_id, current.process_id, current.session_id) == ("carol", "billing", "s1")
        assert entity_of(identity) == "bob"
    assert entity_of(identity) == "alice"


def test_a_scope_inherits_the_process_but_never_the_session(identity: Identity) -> None:
    """Fails when another entity's named session is carried into a scope."""
    identity.set_default("alice", "support")
    identity.set_session("alice-1")
    with identity.scope("bob", None, None):
        current = identity.current()
        assert current is not None
        assert current.process_id == "support"
        assert current.session_id != "alice-1"


def test_two_instances_do_not_share_scopes() -> None:
    """Fails when one instance's scope decides for another's calls."""
    one, other = Identity(Settings()), Identity(Settings())
    with one.scope("alice", None, None):
        assert other.current() is None


def test_threads_do_not_see_each_others_scopes(identity: Identity) -> None:
    """Fails when a scope is kept anywhere but in its own thread's context."""
    identity.set_default("default", None)
    seen: list[str] = []
    with identity.scope("alice", None, None):
        thread = threading.Thread(target=lambda: seen.append(entity_of(identity)))
        thread.start()
        thread.join()
    assert seen == ["default"]


def test_tasks_keep_their_own_scopes(identity: Identity) -> None:
    """Fails when a task's scope is seen by another that runs in between."""

    async def work(name: str) -> list[str]:
        seen = []
        with identity.scope(name, None, None):
            for _ in range(5):
                await asyncio.sleep(0)
                seen.append(entity_of(identity))
        return seen

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(work("alice"), work("bob")))

    assert asyncio.run(both()) == [["alice"] * 5, ["bob"] * 5]


def test_a_running_session_belongs_to_one_entity_and_process(identity: Identity) -> None:
    """Fails when two entities, or one entity's two agents, share an unnamed session."""
    sessions = set()
    for entity, process in [("alice", None), ("bob", None), ("alice", "billing")]:
        with identity.scope(entity, process, None):
            sessions.add(session_of(identity))
            assert session_of(identity) == session_of(identity)
    assert len(sessions) == 3


def test_a_named_session_ends_with_its_entity(identity: Identity) -> None:
    """Fails when the session named for one entity goes on under the next."""
    identity.set_session("s1")
    identity.set_default("alice", None)
    assert session_of(identity) == "s1"
    identity.set_default("alice", "support")
    assert session_of(identity) == "s1"
    identity.set_default("bob", None)
    assert session_of(identity) != "s1"


def test_a_new_session_replaces_the_running_and_the_named_one(identity: Identity) -> None:
    """Fails when `new_session` goes on with the old one."""
    identity.set_default("alice", None)
    running = session_of(identity)
    new = identity.new_session()
    assert session_of(identity) == new != running
    identity.set_session("named")
    assert identity.new_session() == session_of(identity) != "named"


def test_a_pause_begins_a_new_session() -> None:
    """Fails when a session outlives its timeout."""
    identity = Identity(Settings(session_timeout_minutes=1e-9))
    identity.set_default("alice", None)
    assert session_of(identity) != session_of(identity)


@pytest.mark.parametrize(("value", "error"), [(7, TypeError), (None, TypeError), ("", ValueError), (" ", ValueError)])
def test_an_unusable_entity_id_is_refused(identity: Identity, value: object, error: type[Exception]) -> None:
    """Fails when an id that names nobody is accepted."""
    with pytest.raises(error, match="entity_id"):
        identity.set_default(value, None)  # type: ignore[arg-type]
    assert identity.current() is None


def test_a_scope_ends_in_a_generator_that_goes_on_elsewhere(identity: Identity) -> None:
    """Fails when a server that runs each step of a generator in a context of its own gets our error at its end."""

    def steps() -> Iterator[str | None]:
        with identity.scope("alice", None, None):
            yield identity.entity_id

    answer = steps()
    assert copy_context().run(next, answer) == "alice"
    assert copy_context().run(next, answer, None) is None
    assert identity.entity_id is None
