"""The blocks of README and docs run as they stand, and what the pages say about the project is true."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import isclass, ismodule
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sybil import Example
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from memori.settings import Settings
from memori.testing.provider import ProviderServer, answer_from_context
from memori.testing.providers import table
from memori.testing.xai_protocol import XAIServer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", ROOT / "CHANGELOG.md"]
# What a page needs that cannot be had beside the oldest of everything else.
NEEDS = {
    "agno.md": "agno.models.openai",
    "langchain.md": "langchain_openai",
    "litellm.md": "litellm",
    "pydantic-ai.md": "pydantic_ai.models.openai",
}
KEYS = ("ANTHROPIC", "AZURE_OPENAI", "DEEPSEEK", "GEMINI", "NEBIUS", "NVIDIA", "OPENAI", "OPENROUTER", "XAI")


def redirect(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every request of a provider's SDK go to *server*, whatever its address: pages show the real ones."""

    def redirected(send: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def handle_request(transport: Any, request: Any) -> Any:
            address = urlsplit(server.url)
            request.url = request.url.copy_with(scheme=address.scheme, host=address.hostname, port=address.port)
            return send(transport, request)

        return handle_request

    for name in ("httpx", "httpx2"):  # An SDK's version decides which of the two it uses.
        with contextlib.suppress(ImportError):
            transport = importlib.import_module(name).HTTPTransport
            monkeypatch.setattr(transport, "handle_request", redirected(transport.handle_request))


@pytest.fixture
def grok(provider: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `redirect` does, for the one SDK that speaks gRPC."""
    from xai_sdk import Client

    with XAIServer(provider) as server:
        made = functools.partialmethod(Client.__init__, api_host=server.host, use_insecure_channel=True)
        monkeypatch.setattr(Client, "__init__", made)
        yield


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProviderServer]:
    """A folder of its own, where ``OpenAI()`` talks to a provider on this machine."""
    with ProviderServer(answer=answer_from_context) as server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        for name in KEYS:
            monkeypatch.setenv(f"{name}_API_KEY", "local")
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.setenv(f"AWS_{name}", "local")
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", server.url)
        # A busy machine must not change what the pages show.
        monkeypatch.setenv("MEMORI_RECALL_TIMEOUT_S", "10")
        monkeypatch.setenv("MEMORI_CAPTURE_TIMEOUT_S", "10")
        redirect(server, monkeypatch)
        yield server


def run_sql(example: Example) -> None:
    """Run a query on ``memori.db``; the comment lines that end the block are its rows."""
    lines = str(example.parsed).splitlines()
    expected = [line.removeprefix("-- ") for line in lines if line.startswith("--")]
    query = "\n".join(line for line in lines if not line.startswith("--"))
    connection = sqlite3.connect("memori.db")
    try:
        rows = [" | ".join(str(value) for value in row) for row in connection.execute(query)]
    finally:
        connection.close()
    assert rows == expected, f"{example.path}, line {example.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_blocks_of_a_page_run(page: Path, provider: ProviderServer, request: pytest.FixtureRequest) -> None:
    """Fails when a Python block raises or prints something else than shown, or a query has other rows."""
    if "xai_sdk" in page.read_text(encoding="utf-8"):
        request.getfixturevalue("grok")
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name], exc_type=ImportError)
    document = Document.parse(str(page), PythonCodeBlockParser(), CodeBlockParser("sql", run_sql))
    examples = list(document.examples())
    assert examples
    try:
        for example in examples:
            example.evaluate()
    finally:
        made = [
            value
            for value in document.namespace.values()
            if hasattr(value, "close") and not (isclass(value) or ismodule(value))
        ]
        for value in made[::-1]:
            value.close()
        # A page leaves to its program's end what an agent's synchronous runs have open: their loop and its connections.
        document.namespace.clear()
        asyncio.set_event_loop(None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda path: path.name)
def test_commands_and_links_lead_somewhere(page: Path) -> None:
    """Fails when a page names a make target, a file or an anchor that is not there."""
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b(?=`|\s*#|$)", text, re.MULTILINE)) <= targets
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        assert (page.parent / link).exists(), link


def settings_table() -> list[str]:
    """Return the table of all settings, in Markdown, as `Settings` documents them."""
    meanings = dict(
        re.findall(r"^ {8}(\w+): (.+?)(?=\n {8}\w+: |\n\s*\Z)", Settings.__doc__ or "", re.MULTILINE | re.DOTALL)
    )
    return [
        f"| `{item.name}` | `{item.default!r}` | {' '.join(meanings[item.name].split()).replace('``', '`')} |"
        for item in fields(Settings)
    ]


def test_the_settings_page_lists_every_setting() -> None:
    """Fails when a setting is undocumented, or documented otherwise than in `Settings` itself."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| `")] == settings_table()


def test_the_tables_named_on_the_data_page_are_the_tables() -> None:
    """Fails when a table or a column is not on the page, or one is that does not exist."""
    from memori.schema import tables

    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(memori_\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    documented = {table: re.findall(r"`(\w+)`", columns) for table, columns in rows}
    assert documented == {name: list(table.columns.keys()) for name, table in tables.metadata.tables.items()}


def test_the_table_of_providers_is_what_is_tried() -> None:
    """Fails when the page's table is not the one that the tests' data make: ``python -m memori.testing.providers``."""
    text = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
    assert table() in text
