"""What is particular to each embedder, and how one is chosen. The contract they share is in the conformance suite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from memori.embeddings.callable import CallableEmbedder
from memori.embeddings.choose import embedder_from
from memori.embeddings.openai import OpenAIEmbedder
from memori.embeddings.static import StaticEmbedder, _read
from memori.errors import ConfigurationError, DimensionError, MissingExtraError
from memori.testing.provider import ProviderServer


class TestStatic:
    def test_near_in_meaning_is_near_in_space(self) -> None:
        """Fails when the vectors carry no meaning: wrong weights, wrong tokens, wrong dimensions."""
        asked, said, other = StaticEmbedder().embed(
            ["What is my favorite color?", "The user's favorite color is blue.", "The train leaves at nine."],
            purpose="document",
        )
        assert asked @ said > 0.6
        assert asked @ other < 0.2

    def test_scripts_have_directions_of_their_own(self) -> None:
        """Fails when other scripts fall together into one unknown token."""
        texts = ["我最喜欢的颜色是蓝色", "今天天气很好", "اللون المفضل لدي", "Мой любимый цвет", "🦊🔥"]
        vectors = StaticEmbedder().embed(texts, purpose="document")
        assert (vectors @ vectors.T - np.eye(len(texts))).max() < 0.9

    def test_it_leaves_the_process_as_it_was(self) -> None:
        """Fails when loading it configures the root logger, brings an HTTP client, starts threads or prints."""
        code = (
            "import logging, sys, threading\n"
            "from memori.embeddings.static import StaticEmbedder\n"
            "StaticEmbedder().embed(['tea', 'coffee'], purpose='document')\n"
            "assert not logging.getLogger().handlers\n"
            "assert not {'wordllama', 'requests', 'huggingface_hub', 'httpx'} & set(sys.modules)\n"
            "assert threading.active_count() == 1\n"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_missing_files_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fails when a broken installation shows as some other error far from its cause."""
        _read.cache_clear()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigurationError, match="wordllama"):
            StaticEmbedder().embed(["tea"], purpose="query")


class TestCallable:
    def test_any_length_is_normalised(self) -> None:
        """Fails when a function's vectors are taken as unit vectors when they are not."""
        embedder = CallableEmbedder(lambda texts: [[3.0, 4.0] for _ in texts])
        assert embedder.embed(["tea"], purpose="query").tolist() == [pytest.approx([0.6, 0.8])]

    def test_it_is_shown_no_blank_texts_and_no_half_characters(self) -> None:
        """Fails when the user's function is given what most endpoints refuse."""
        shown: list[str] = []

        def function(texts: list[str]) -> list[list[float]]:
            shown.extend(texts)
            return [[1.0] for _ in texts]

        CallableEmbedder(function).embed(["", "tea", " \n", "a \ud83e"], purpose="document")
        assert shown == ["tea", "a ?"]

    @pytest.mark.parametrize(
        "returned",
        [
            None,
            [],
            [[1.0, 2.0]],
            [1.0, 2.0],
            [[1.0], [1.0, 2.0]],
            [["a"], ["b"]],
            [[], []],
            [[float("nan")], [1.0]],
            [[float("inf")], [1.0]],
        ],
    )
    def test_what_is_no_vector_a_text_is_refused(self, returned: Any) -> None:
        """Fails when vectors that cannot be compared are stored."""
        with pytest.raises(ConfigurationError, match="mine"):
            CallableEmbedder(lambda texts: returned, model="mine").embed(["a", "b"], purpose="document")

    def test_its_vectors_may_not_change_their_length(self) -> None:
        """Fails when one name stands for two spaces."""
        lengths = iter([2, 3])
        embedder = CallableEmbedder(lambda texts: [[1.0] * next(lengths)])
        embedder.embed(["a"], purpose="document")
        with pytest.raises(DimensionError):
            embedder.embed(["b"], purpose="document")

    def test_it_is_named_after_its_function(self) -> None:
        """Fails when two functions share a name, and so their vectors are compared."""

        class Model:
            def __call__(self, texts: list[str]) -> list[list[float]]:
                return [[1.0] for _ in texts]

        functions: list[Any] = [json.dumps, json.loads, Model()]
        assert len({CallableEmbedder(function).model for function in functions}) == 3
        assert CallableEmbedder(json.dumps).model == "json.dumps"
        assert CallableEmbedder(json.dumps, model="mine").model == "mine"

    @pytest.mark.parametrize("start", [["shop.py"], ["-m", "shop"], ["-c", "import shop"]], ids=" ".join)
    def test_a_script_calls_it_as_who_imports_it_does(self, start: list[str], tmp_path: Path) -> None:
        """Fails when a worker's vectors, or those of `memori reindex`, go by another name than the program's."""
        (tmp_path / "shop.py").write_text(
            "from memori.embeddings.callable import CallableEmbedder\n"
            "def embed(texts): return [[1.0] for _ in texts]\n"
            "print(CallableEmbedder(embed).model)\n"
        )
        printed = subprocess.run(
            [sys.executable, *start], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout
        assert printed == "shop.embed\n"

    def test_only_a_function_is_taken(self) -> None:
        """Fails when a mistake shows only at the first use, in the background."""
        with pytest.raises(ConfigurationError):
            CallableEmbedder(5)  # type: ignore[arg-type]


class TestOpenAI:
    def test_many_texts_go_in_few_requests_and_keep_their_order(self) -> None:
        """Fails when batches are one text each, too large, or put together in the wrong order."""
        texts = [f"text number {number}" for number in range(300)]
        with ProviderServer() as server, OpenAI(api_key="none", base_url=f"{server.url}/v1") as client:
            embedder = OpenAIEmbedder(client, model="small")
            vectors = embedder.embed(texts, purpose="document")
            assert len(server.requests) == 2
            assert np.allclose(vectors[299], embedder.embed([texts[299]], purpose="query")[0], atol=1e-6)
        assert embedder.model == "small"

    def test_without_a_client_one_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fails when a base URL, or the environment's, is not asked."""
        with ProviderServer() as server:
            monkeypatch.setenv("OPENAI_API_KEY", "none")
            OpenAIEmbedder(base_url=f"{server.url}/v1").embed(["tea"], purpose="query")
            monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
            embedder_from("openai:large").embed(["tea"], purpose="query")
            assert [request.body["model"] for request in server.requests] == ["text-embedding-3-small", "large"]

    def test_shortened_vectors_are_a_space_of_their_own(self) -> None:
        """Fails when vectors of different lengths bear one name."""
        with OpenAI(api_key="none", base_url="http://127.0.0.1:9") as client:
            assert OpenAIEmbedder(client, model="small", dimensions=64).model == "small-64"

    def test_a_missing_sdk_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fails when the user is not told what to install."""
        monkeypatch.setitem(sys.modules, "openai", None)
        with pytest.raises(MissingExtraError, match=r"memori-byodb\[openai\]"):
            OpenAIEmbedder()


class TestChoice:
    def test_each_kind_is_recognised(self) -> None:
        """Fails when something that the documentation names is not taken, or taken for another."""
        static = StaticEmbedder()
        assert isinstance(embedder_from(None), StaticEmbedder)
        assert isinstance(embedder_from("static"), StaticEmbedder)
        assert embedder_from(static) is static
        assert isinstance(embedder_from(lambda texts: [[1.0] for _ in texts]), CallableEmbedder)

    @pytest.mark.parametrize("value", ["word2vec", "cohere:embed", 5, StaticEmbedder, object()])
    def test_anything_else_is_refused(self, value: Any) -> None:
        """Fails when a mistake is taken for an embedder."""
        with pytest.raises(ConfigurationError):
            embedder_from(value)
