"""What goes into an embedder that is not ours, and what comes out of it, made fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from memori.errors import ConfigurationError

if TYPE_CHECKING:
    from memori.types import Vector

__all__ = ["encodable", "unit_rows"]


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
