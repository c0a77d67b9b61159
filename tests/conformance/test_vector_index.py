"""Vector indexes against their contract."""

from __future__ import annotations

import pytest

from memori.index.exact import ExactIndex
from memori.protocols import VectorIndex
from memori.testing.vector_index import VectorIndexSuite


class TestExactIndex(VectorIndexSuite):
    @pytest.fixture
    def index(self) -> VectorIndex:
        return ExactIndex()
