"""Which adapter takes a client: real entry points, of an installation made for the test."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from memori.capture.openai import adapter as openai_adapter
from memori.capture.registry import client_adapter
from memori.errors import ConfigurationError
from memori.testing.listening import ListeningHooks

ADAPTERS = """
class Adapter:
    def __init__(self, name):
        self.name = name

    def register(self, client, hooks):
        pass

    def unregister(self, client, hooks):
        return False


whole = Adapter("whole")
part = Adapter("part")
"""
CLIENTS = "class Client:\n    pass\n"


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution that brings adapters for the clients of ``acme`` and ``acme.special``."""
    files = {
        "acme_memori.py": ADAPTERS,
        "acme/__init__.py": CLIENTS,
        "acme/special/__init__.py": CLIENTS,
        "acme/special/deep.py": CLIENTS,
        "acme_memori-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-memori\nVersion: 1.0\n",
        "acme_memori-1.0.dist-info/entry_points.txt": (
            "[memori.clients]\nacme = acme_memori:whole\nacme.special = acme_memori:part\n"
        ),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


def made_by(module: str) -> Any:
    return importlib.import_module(module).Client()


@pytest.mark.usefixtures("third_party")
class TestLookup:
    def test_finds_what_a_third_party_installed(self) -> None:
        """Fails when adapters that come by entry points are not found by the client's module."""
        found: Any = client_adapter(made_by("acme"))
        assert found.name == "whole"

    @pytest.mark.parametrize("module", ["acme.special", "acme.special.deep"])
    def test_prefers_the_longest_name(self, module: str) -> None:
        """Fails when the adapter of a package takes the clients of a part that has an adapter of its own."""
        found: Any = client_adapter(made_by(module))
        assert found.name == "part"

    def test_takes_whole_names_only(self) -> None:
        """Fails when a module whose name merely begins like a known one is taken for it."""
        stranger = type("Client", (), {"__module__": "acmecorp"})()
        with pytest.raises(ConfigurationError, match=r"got acmecorp\.Client"):
            client_adapter(stranger)

    def test_takes_a_module_for_a_client(self) -> None:
        """Fails when an SDK whose calls are functions of a module cannot have an adapter."""
        found: Any = client_adapter(importlib.import_module("acme.special"))
        assert found.name == "part"

    def test_follows_the_bases_of_a_client(self) -> None:
        """Fails when a subclass in the application's own module is not known by what it derives from."""
        derived = type("Derived", (type(made_by("acme.special")),), {"__module__": "application"})
        found: Any = client_adapter(derived())
        assert found.name == "part"


class TestRefusals:
    def test_name_what_was_given_and_what_is_known(self, third_party: None) -> None:
        """Fails when an unsupported client gives no hint of what would do."""
        stranger = type("Client", (), {"__module__": "mistralai.sdk"})()
        with pytest.raises(ConfigurationError, match=r"got mistralai\.sdk\.Client.*acme, acme\.special"):
            client_adapter(stranger)

    @pytest.mark.parametrize(
        ("given", "hint"),
        [
            (openai.OpenAI, r"got the class OpenAI: pass an instance of it, OpenAI\(\.\.\.\)"),
            (types, "got the module 'types', which no adapter knows"),
            (None, r"got builtins\.NoneType"),
            ("gpt-4o", r"got builtins\.str"),
        ],
    )
    def test_say_what_to_pass_instead(self, given: Any, hint: str) -> None:
        """Fails when a class, a module, None or a model's name is not told apart from a client."""
        with pytest.raises(ConfigurationError, match=hint):
            client_adapter(given)

    def test_say_when_nothing_is_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Fails when an environment without memori's own metadata gives a riddle instead of a reason."""
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        with pytest.raises(ConfigurationError, match="none; is memori-byodb installed"):
            client_adapter(object())


@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
def test_openai_is_among_our_own(kind: Any) -> None:
    """Fails when memori's own entry point for OpenAI is missing or names something else."""
    assert client_adapter(kind(api_key="key")) is openai_adapter


def test_a_module_that_is_no_client_is_refused_by_its_own_adapter() -> None:
    """Fails when the module of an SDK is taken for a client of it, or the refusal does not say what to pass."""
    with pytest.raises(ConfigurationError, match=r"pass the client itself, an openai\.OpenAI"):
        client_adapter(openai).register(openai, ListeningHooks())


def test_azure_is_among_our_own() -> None:
    """Fails when Azure's client, which lives in another module of the SDK, is not known."""
    client = openai.AzureOpenAI(api_key="key", azure_endpoint="https://a.openai.azure.com", api_version="2024-10-21")
    assert client_adapter(client) is openai_adapter
