"""What a user may pass as ``embedder=``, as an Embedder."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from memori.errors import ConfigurationError

if TYPE_CHECKING:
    from memori.embeddings.callable import EmbedFunction
    from memori.protocols import Embedder

__all__ = ["EmbedderLike", "embedder_from"]

EmbedderLike: TypeAlias = "Embedder | EmbedFunction | str | None"


def embedder_from(value: EmbedderLike) -> Embedder:
    """Return the embedder that *value* means.

    Args:
        value: None or ``"static"``: the embedded default. ``"openai:text-embedding-3-small"``: that model at OpenAI, or
            at the endpoint that ``OPENAI_BASE_URL`` names. A function from a list of texts to vectors. An Embedder.

    Raises:
        ConfigurationError: It is none of these.
        MissingExtraError: It needs a package that is not installed.
    """
    if value is None or value == "static":
        from memori.embeddings.static import StaticEmbedder

        return StaticEmbedder()
    if isinstance(value, str):
        provider, _, model = value.partition(":")
        if provider != "openai":
            raise ConfigurationError(f"embedder={value!r}: name 'static' or 'openai:<model>', or pass a function")
        from memori.embeddings.openai import DEFAULT_MODEL, OpenAIEmbedder

        return OpenAIEmbedder(model=model or DEFAULT_MODEL)
    # A class would be taken for a function of its arguments, and fail at the first text.
    if not isinstance(value, type):
        if hasattr(value, "embed") and hasattr(value, "model"):
            return value
        if callable(value):
            from memori.embeddings.callable import CallableEmbedder

            return CallableEmbedder(value)
    raise ConfigurationError(
        f"embedder={value!r}: pass 'static', 'openai:<model>', a function from texts to vectors, or an Embedder"
    )
