"""What goes into an embedder that is not ours, and what comes out of it, made fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from memori.errors import ConfigurationError, EmbeddingError
from memori.types import Embedding

if TYPE_CHECKING:
    from memori.protocols import Embedder
    from memori.types import Vector

__all__ = ["embedded", "encodable", "unit_rows"]


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


def encodable(text: str) -> str:
    """Return *text* with a question mark for each lone half of a surrogate pair: UTF-8 has no bytes for a cut emoji."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def unit_rows(values: Any, *, expected: int, source: str) -> Vector:
    """Return *values* as *expected* float32 rows of length one; a zero row stays zero.

    Raises:
        ConfigurationError: They are no such rows: ragged, not finite, another number of them.
    """
    try:
        rows = np.array(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{source}: expected {expected} rows of numbers of the same length: {error}"
        ) from error
    if rows.ndim != 2 or len(rows) != expected or rows.shape[1] == 0:
        raise ConfigurationError(f"{source}: expected shape ({expected}, dimensions), got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ConfigurationError(f"{source}: the vectors contain NaN or infinity")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Vector = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return units
