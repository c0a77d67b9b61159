"""The embedded default: static token embeddings from wordllama's wheel. No model download, no network, no key."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from memori.embeddings.checked import encodable
from memori.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from memori.types import Vector

__all__ = ["CHARACTER_LIMIT", "StaticEmbedder"]

# A mean over more tokens than this says nothing in particular, and tokenising a megabyte takes half a second.
CHARACTER_LIMIT = 16_384

_CONFIGURATION = "l2_supercat"
_STORED_DIMENSIONS = 256
# The model was trained so that the first dimensions say most (Matryoshka). Half of them find as much on LoCoMo
# (recall@10 .811 against .810), and halve what embeddings take in the database and what comparing them takes.
_DIMENSIONS = 128


class StaticEmbedder:
    """The mean of a text's token vectors (wordllama, 128 dimensions), about 0.05 ms a sentence.

    Loaded at the first use. wordllama's files are read and its code is never imported: importing it configures the root
    logger and brings an HTTP client that downloads what it does not find. Only the first `CHARACTER_LIMIT` characters
    of a text count.
    """

    @property
    def model(self) -> str:
        """The name of the space."""
        return f"wordllama-{_CONFIGURATION}-{_DIMENSIONS}"

    def embed(self, texts: Sequence[str], *, purpose: Literal["query", "document"]) -> Vector:
        """Return one unit vector a text, shape (len(texts), 128); a zero row for an empty or blank text.

        Args:
            purpose: Makes no difference here: the space is symmetric.

        Raises:
            ConfigurationError: wordllama's files are not where its wheel puts them.
        """
        tokenizer, weights = _read()
        vectors = np.zeros((len(texts), _DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            head = text[:CHARACTER_LIMIT].strip()
            if not head:
                continue
            # One by one: the tokenizer's batch call starts threads, which warn on stderr when the process forks.
            tokens = tokenizer.encode(encodable(head), add_special_tokens=False).ids
            total = weights[tokens].sum(axis=0, dtype=np.float32)
            length = float(np.sqrt(total @ total))
            if length > 0.0:
                np.divide(total, length, out=vectors[row])
        return vectors


# Kept for all embedders of the process. Without a lock: two threads that come first both read, which is harmless, and
# the child of a fork does not wait for a thread that it does not have.
@cache
def _read() -> tuple[Tokenizer, Vector]:
    from safetensors import safe_open
    from tokenizers import Tokenizer

    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        raise ConfigurationError("wordllama is not installed: pip install wordllama, or pass embedder=")
    folder = Path(found.origin).parent
    tokenizer_file = folder / "tokenizers" / f"{_CONFIGURATION}_tokenizer_config.json"
    weights_file = folder / "weights" / f"{_CONFIGURATION}_{_STORED_DIMENSIONS}.safetensors"
    for file in (tokenizer_file, weights_file):
        if not file.is_file():
            raise ConfigurationError(f"{file} is missing: reinstall wordllama, or pass embedder=")
    with safe_open(weights_file, framework="np") as tensors:
        weights = tensors.get_tensor("embedding.weight")[:, :_DIMENSIONS].astype(np.float32)
    return Tokenizer.from_file(str(tokenizer_file)), weights
