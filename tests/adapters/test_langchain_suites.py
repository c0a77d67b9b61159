"""LangChain's own standard tests, for each of ours that there are such tests for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests.integration_tests", exc_type=ImportError)

from blockbuster import blockbuster_ctx
from langchain_tests.integration_tests import RetrieversIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from memori import Memori
from memori_langchain import MemoriRetriever, MemoriSearchTool

SUITES = (RetrieversIntegrationTests, ToolsIntegrationTests, ToolsUnitTests)

for _suite in SUITES:
    for _, _test in inspect.getmembers(_suite, inspect.iscoroutinefunction):
        pytest.mark.asyncio(_test)  # LangChain's own configuration has it understood.


@pytest.fixture(scope="module")
def memori(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memori]:
    folder: Path = tmp_path_factory.mktemp("memory")
    with Memori(conn=folder / "memori.db") as memori:
        memori.config.storage.build()
        for food in ("ramen", "soba", "udon", "tempura"):
            memori.remember(f"The user likes {food} for lunch.", kind="preference", entity_id="ann")
        yield memori.attribution(entity_id="ann")


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(memori: Memori) -> Iterator[None]:
    with blockbuster_ctx():
        yield


class TestMemoriRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def on_memory(self, memori: Memori) -> None:
        self.memori = memori

    @property
    def retriever_constructor(self) -> type[MemoriRetriever]:
        return MemoriRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"memori": self.memori}

    @property
    def retriever_query_example(self) -> str:
        return "What does the user like for lunch?"


class SearchTool:
    @pytest.fixture(autouse=True)
    def on_memory(self, memori: Memori) -> None:
        self.memori = memori

    @property
    def tool_constructor(self) -> type[MemoriSearchTool]:
        return MemoriSearchTool

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"memori": self.memori}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "lunch", "limit": 2}


class TestMemoriSearchTool(SearchTool, ToolsUnitTests):
    pass


class TestMemoriSearchToolIntegration(SearchTool, ToolsIntegrationTests):
    pass
