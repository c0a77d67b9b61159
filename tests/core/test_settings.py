"""The tunables."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from memori import Memori
from memori.config import Config
from memori.errors import ConfigurationError
from memori.settings import _MOST_S, DEFAULT_DATABASE_URL, Settings, database_url
from memori.types import Message


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("on_error", "explode", "choose one of 'log', 'raise'"),
        ("injection_role", "assistant", "choose one of 'user', 'system'"),
        ("recall_facts_limit", 0, "greater than 0"),
        ("recall_facts_limit", 2.5, "a whole number"),
        ("recall_timeout_s", -0.1, "0 or more"),
        ("recall_timeout_s", "fast", "a number"),
        ("lease_s", float("nan"), "greater than 0"),
        ("lease_s", 1e12, "at most"),
        ("poll_s", float("inf"), "at most"),
        ("capture_timeout_s", 10**400, "at most"),
        ("close_timeout_s", float("inf"), "at most"),
        ("redact", 1, "True or False"),
        ("pending_limit", True, "a whole number"),
    ],
)
def test_an_unusable_value_is_refused_and_changes_nothing(name: str, value: Any, says: str) -> None:
    """Fails when a bad value is taken, or its message does not say what would be good."""
    settings = Settings()
    before = getattr(settings, name)
    with pytest.raises(ConfigurationError, match=says):
        setattr(settings, name, value)
    assert getattr(settings, name) == before


def test_the_longest_times_work(tmp_path: Path) -> None:
    """Fails when a time that is accepted is too long for a wait, a lease or a date."""
    longest: dict[str, Any] = {item.name: _MOST_S for item in fields(Settings) if item.name.endswith("_s")}
    with Memori(conn=tmp_path / "memori.db", settings=Settings(**longest)) as mem:
        mem.config.storage.build()
        turn = mem.turn([Message(role="user", content="I live in Rome.")], provider="any", entity_id="ann")
        assert turn is not None
        turn.finish([Message(role="assistant", content="A fine place.")], model=None)
        assert mem.augmentation.wait(60)
        assert [fact.object for fact in mem.facts(entity_id="ann")] == ["Rome"]
        assert mem.status().failures == 0


def test_the_environment_overrides_the_defaults() -> None:
    """Fails when a MEMORI_ variable is ignored or read as another type."""
    settings = Settings.from_environment(
        {"MEMORI_POLL_S": "3", "MEMORI_REDACT": "no", "MEMORI_ON_ERROR": "raise", "MEMORI_PENDING_LIMIT": "7"}
    )
    assert (settings.poll_s, settings.redact, settings.on_error, settings.pending_limit) == (3.0, False, "raise", 7)


@pytest.mark.parametrize(
    ("name", "text"), [("POLL_S", "soon"), ("REDACT", "maybe"), ("ON_ERROR", "x"), ("PENDING_LIMIT", "1.5")]
)
def test_an_unusable_variable_is_named(name: str, text: str) -> None:
    """Fails when a bad variable is passed over, or the message does not name it."""
    with pytest.raises(ConfigurationError, match=name.lower() if name == "ON_ERROR" else f"MEMORI_{name}"):
        Settings.from_environment({f"MEMORI_{name}": text})


def test_every_tunable_is_documented() -> None:
    """Fails when a setting is added without saying what it does."""
    assert Settings.__doc__ is not None
    for item in fields(Settings):
        assert f"        {item.name}: " in Settings.__doc__


def test_the_configuration_is_checked_like_the_settings() -> None:
    """Fails when ``mem.config`` takes what `Settings` refuses, or refuses what the older API set."""
    config = Config(Settings(recall_facts_limit=3))
    assert config.recall_facts_limit == 3
    with pytest.raises(ConfigurationError):
        config.recall_facts_limit = -1
    config.recall_embeddings_limit = 1000
    assert config.recall_embeddings_limit == 1000


def test_the_database_is_the_environments_or_a_file_here() -> None:
    """Fails when the database is looked for anywhere else."""
    assert database_url({}) == DEFAULT_DATABASE_URL == "sqlite:///memori.db"
    assert database_url({"MEMORI_DATABASE_URL": "postgresql://x"}) == "postgresql://x"
