"""The blocks of README and docs run as they stand, and what the pages say about the project is true."""

from __future__ import annotations

import asyncio
import gc
import re
import sqlite3
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from openai import OpenAI
from sybil import Example
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from memori import Memori
from memori.settings import Settings
from memori.testing.provider import ProviderServer, answer_from_context

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", ROOT / "CHANGELOG.md"]
# What a page needs that cannot be had beside the oldest of everything else.
NEEDS = {"pydantic-ai.md": "pydantic_ai.models.openai"}


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProviderServer]:
    """A folder of its own, where ``OpenAI()`` talks to a provider on this machine."""
    with ProviderServer(answer=answer_from_context) as server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "local")
        # A busy machine must not change what the pages show.
        monkeypatch.setenv("MEMORI_RECALL_TIMEOUT_S", "10")
        monkeypatch.setenv("MEMORI_CAPTURE_TIMEOUT_S", "10")
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
def test_the_blocks_of_a_page_run(page: Path, provider: ProviderServer) -> None:
    """Fails when a Python block raises or prints something else than shown, or a query has other rows."""
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name], exc_type=ImportError)
    document = Document.parse(str(page), PythonCodeBlockParser(), CodeBlockParser("sql", run_sql))
    examples = list(document.examples())
    assert examples
    try:
        for example in examples:
            example.evaluate()
    finally:
        for value in [value for value in document.namespace.values() if isinstance(value, (Memori, OpenAI))][::-1]:
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
