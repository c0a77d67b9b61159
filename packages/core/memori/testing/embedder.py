"""What every `memori.protocols.Embedder` must do. Subclass `EmbedderSuite` and give it an ``embedder`` fixture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from memori.protocols import Embedder

__all__ = ["EmbedderSuite"]

TEXTS = [
    "My favorite color is blue.",
    "x",
    "The user lives in Rome, Italy, and works there as a nurse.",
    "我最喜欢的颜色是蓝色",
    "اللون المفضل لدي هو الأزرق",
    "🦊🔥 👩‍👩‍👧‍👦",
    "tabs\tand\nlines\r\n\x00 and a zero",
    "half a pair \ud83e of surrogates",
    "word " * 400,
]


class EmbedderSuite:
    """The contract of an embedder."""

    def test_one_unit_vector_a_text(self, embedder: Embedder) -> None:
        """Fails when vectors have another shape or type, or a length other than one: cosines would be wrong."""
        vectors = embedder.embed(TEXTS, purpose="document")
        assert vectors.dtype == np.float32
        assert vectors.ndim == 2
        assert len(vectors) == len(TEXTS)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)

    @pytest.mark.parametrize("blank", ["", "   ", "\n\t "])
    def test_a_blank_text_has_a_zero_row(self, embedder: Embedder, blank: str) -> None:
        """Fails when an empty text raises, is left out, or is given a direction that it resembles others by."""
        vectors = embedder.embed(["tea", blank, "coffee"], purpose="document")
        assert len(vectors) == 3
        assert not vectors[1].any()
        assert vectors[0].any()
        assert vectors[2].any()

    def test_no_texts_have_no_rows(self, embedder: Embedder) -> None:
        """Fails when an empty batch raises or calls out."""
        assert len(embedder.embed([], purpose="document")) == 0
        assert not embedder.embed([""], purpose="query").any()

    def test_a_text_has_one_vector_whatever_stands_beside_it(self, embedder: Embedder) -> None:
        """Fails when padding, batching or order leak into a vector: what was stored alone could not be found."""
        together = embedder.embed(TEXTS, purpose="document")
        alone = np.concatenate([embedder.embed([text], purpose="document") for text in TEXTS])
        backwards = embedder.embed(TEXTS[::-1], purpose="document")[::-1]
        assert np.allclose(together, alone, atol=1e-5)
        assert np.allclose(together, backwards, atol=1e-5)

    def test_queries_and_documents_share_a_space(self, embedder: Embedder) -> None:
        """Fails when the same words asked and said are not close to each other."""
        texts = TEXTS[:3]
        cosines = embedder.embed(texts, purpose="query") @ embedder.embed(texts, purpose="document").T
        assert (cosines.argmax(axis=1) == np.arange(len(texts))).all()

    def test_the_model_has_a_lasting_name(self, embedder: Embedder) -> None:
        """Fails when the name is empty or changes with use: stored vectors would be ignored."""
        before = embedder.model
        embedder.embed(TEXTS, purpose="document")
        assert before
        assert embedder.model == before

    @pytest.mark.timeout(30)
    def test_a_megabyte_is_no_trouble(self, embedder: Embedder) -> None:
        """Fails when a long text raises, or takes more than seconds."""
        vectors = embedder.embed(["word " * 200_000, "日" * 300_000], purpose="document")
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)

    def test_threads_do_not_disturb_each_other(self, embedder: Embedder) -> None:
        """Fails when shared state makes a vector wrong under load, the first use included."""
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda text: embedder.embed([text], purpose="document")[0], TEXTS * 4))
        assert np.allclose(found, np.tile(embedder.embed(TEXTS, purpose="document"), (4, 1)), atol=1e-5)
