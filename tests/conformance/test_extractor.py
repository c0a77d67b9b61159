"""The contract of extractors, held against ours."""

from __future__ import annotations

import pytest

from memori.augmentation.pipeline import CallableExtractor
from memori.augmentation.rules import RuleExtractor
from memori.protocols import Extractor
from memori.testing.extractor import ExtractorSuite


class TestRules(ExtractorSuite):
    """The offline extractor."""

    @pytest.fixture
    def extractor(self) -> Extractor:
        """Return the extractor under test."""
        return RuleExtractor()


class TestCallable(ExtractorSuite):
    """A function of the user's own."""

    @pytest.fixture
    def extractor(self) -> Extractor:
        """Return the extractor under test."""
        return CallableExtractor(lambda messages: RuleExtractor().extract(messages).facts)
