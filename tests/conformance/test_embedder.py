"""Embedders against their contract: each over the real thing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from openai import OpenAI

from memori.embeddings.callable import CallableEmbedder
from memori.embeddings.openai import OpenAIEmbedder
from memori.embeddings.static import StaticEmbedder
from memori.protocols import Embedder
from memori.testing.embedder import EmbedderSuite
from memori.testing.provider import ProviderServer


class TestStaticEmbedder(EmbedderSuite):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return StaticEmbedder()


def by_checksum(texts: list[str]) -> list[list[float]]:
    """Return a vector a text that only the text decides, of no particular length."""
    seeds = (zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts)
    return [np.random.default_rng(seed).normal(size=32).tolist() for seed in seeds]


class TestCallableEmbedder(EmbedderSuite):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return CallableEmbedder(by_checksum)


class TestOpenAIEmbedder(EmbedderSuite):
    @pytest.fixture
    def embedder(self) -> Iterator[Embedder]:
        with ProviderServer() as server, OpenAI(api_key="none", base_url=f"{server.url}/v1") as client:
            yield OpenAIEmbedder(client)
