"""Texts and the embeddings that are stored beside them, whoever the embedder is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from memori.errors import EmbeddingError
from memori.types import Embedding

if TYPE_CHECKING:
    from memori.protocols import Embedder

__all__ = ["embedded"]


def embedded(embedder: Embedder, texts: Iterable[str]) -> dict[str, Embedding]:
    """Return the embedding of each of *texts*, to be stored; of equal ones, only one is handed to *embedder*.

    Raises:
        EmbeddingError: It failed, or did not return one vector a text.
    """
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return {}
    try:
        vectors = embedder.embed(distinct, purpose="document")
        if len(vectors) != len(distinct):
            raise ValueError(f"{len(vectors)} vectors for {len(distinct)} texts")
        return {text: Embedding(embedder.model, vector) for text, vector in zip(distinct, vectors, strict=True)}
    except Exception as error:  # The embedder may be anyone's.
        raise EmbeddingError(f"{embedder.model} failed: {type(error).__name__}: {error}") from error
