"""Capture of LiteLLM: the real package, over real HTTP, against a provider on this machine.

LiteLLM holds other packages back, so it has an environment of its own: ``make test-litellm``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from memori.capture.litellm import adapter
from memori.capture.openai import adapter as openai_adapter
from memori.capture.registry import client_adapter
from memori.errors import ConfigurationError
from memori.testing.capture import QUESTION, CaptureSuite
from memori.testing.listening import BLOCK, ListeningHooks
from memori.testing.litellm_calls import LITELLM_CALLS, LITELLM_MODEL
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.testing.providers import (
    PROVIDERS,
    async_litellm,
    close_litellm_clients,
    import_litellm,
    litellm_router,
    retire,
)
from memori.types import Message

try:
    litellm = import_litellm()
except ImportError:
    pytest.skip("litellm is not installed", allow_module_level=True)

pytestmark = [pytest.mark.filterwarnings(noise) for sdk in PROVIDERS if sdk.name == "LiteLLM" for noise in sdk.noise]

MESSAGES = [{"role": "user", "content": QUESTION}]


@contextmanager
def pointed_at(address: str) -> Iterator[Any]:
    """The module, talking to *address* alone."""
    litellm.api_base, litellm.api_key = f"{address}/v1", "key"
    try:
        yield litellm
    finally:
        litellm.api_base = litellm.api_key = None
        close_litellm_clients()


class Every(CaptureSuite):
    adapter = adapter
    calls = LITELLM_CALLS
    sdk = tuple(int(part) for part in version("litellm").split(".")[:2])  # type: ignore[assignment]

    def touched(self, client: Any) -> list[Any]:
        return [client]


class TestEveryCallOfTheModule(Every):
    provider = "127.0.0.1"

    def client(self, address: str) -> AbstractContextManager[Any]:
        return pointed_at(address)

    def async_client(self, address: str) -> AbstractAsyncContextManager[Any]:
        return async_litellm(pointed_at(address))

    @pytest.fixture(autouse=True)
    def nobody_listens_afterwards(self, hooks: ListeningHooks) -> Iterator[None]:
        names = ("completion", "acompletion", "responses", "aresponses", "_memori")
        before = [getattr(litellm, name, None) for name in names]
        yield
        if (registration := vars(litellm).get("_memori")) is not None:
            for listening in registration.hooks:
                adapter.unregister(litellm, listening)
        assert [getattr(litellm, name, None) for name in names] == before

    def test_other_clients_are_left_alone(self, server: ProviderServer, address: str, hooks: ListeningHooks) -> None:
        """Fails when listening to the module reaches a client that others of its users pass along."""
        with self.client(address) as module, OpenAI(api_key="key", base_url=f"{address}/v1") as stranger:
            adapter.register(module, hooks)
            stranger.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}])
        assert hooks.turns == []
        assert BLOCK not in server.requests[0].text


class TestEveryCallOfARouter(Every):
    provider = "litellm"

    def client(self, address: str) -> AbstractContextManager[Any]:
        return litellm_router(address)

    def async_client(self, address: str) -> AbstractAsyncContextManager[Any]:
        return async_litellm(litellm_router(address))


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def hooks() -> Iterator[ListeningHooks]:
    listening = ListeningHooks()
    yield listening
    adapter.unregister(litellm, listening)


class TestRegistration:
    def test_takes_the_module_and_its_routers_and_nothing_else(self, server: ProviderServer) -> None:
        """Fails when the entry point is missing, or something that makes no calls is taken for a client."""
        with litellm_router(server.url) as made:
            assert client_adapter(litellm) is client_adapter(made) is adapter
        for other in (litellm.utils, litellm.ModelResponse()):
            with pytest.raises(ConfigurationError, match="pass the module litellm itself"):
                adapter.register(other, ListeningHooks())

    def test_of_module_router_and_client_is_one_exchange(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a router that asks the module, which asks a client of OpenAI's, injects and records each time."""
        with litellm_router(server.url) as made, OpenAI(api_key="key", base_url=f"{server.url}/v1") as client:
            adapter.register(made, hooks)
            adapter.register(litellm, hooks)
            openai_adapter.register(client, hooks)
            made.completion(model=LITELLM_MODEL, messages=MESSAGES)
            litellm.completion(model=LITELLM_MODEL, messages=MESSAGES, client=client)
            for chunk in litellm.completion(model=LITELLM_MODEL, messages=MESSAGES, client=client, stream=True):
                assert chunk.choices
        assert [turn.said for turn in hooks.turns] == ["Understood."] * 3
        assert [request.text.count(BLOCK) for request in server.requests] == [1, 1, 1]

    def test_of_others_below_is_their_own(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when who listens to the module keeps someone else from the client that it asks."""
        other = ListeningHooks("Recalled by another.")
        with pointed_at(server.url), OpenAI(api_key="key", base_url=f"{server.url}/v1") as client:
            adapter.register(litellm, hooks)
            openai_adapter.register(client, other)
            litellm.completion(model=LITELLM_MODEL, messages=MESSAGES, client=client)
        assert hooks.turn.said == other.turn.said == "Understood."
        assert {BLOCK, "Recalled by another."} < {turn.text for turn in server.requests[0].turns}

    def test_ends_for_functions_that_were_imported_meanwhile(
        self, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a function taken from the module while someone listened goes on for them afterwards."""
        adapter.register(litellm, hooks)
        imported = litellm.completion
        adapter.unregister(litellm, hooks)
        with pointed_at(server.url):
            imported(model=LITELLM_MODEL, messages=MESSAGES)
        assert hooks.turns == []
        assert BLOCK not in server.requests[0].text

    def test_leaves_complaints_to_the_function(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when arguments that do not fit are dropped or reordered on the way."""
        adapter.register(litellm, hooks)
        with pointed_at(server.url), pytest.raises(TypeError):
            litellm.completion(LITELLM_MODEL, MESSAGES, model=LITELLM_MODEL)
        assert hooks.turns == []


class TestStreams:
    def test_are_of_their_type_with_all_attributes(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a stream is no longer what LiteLLM returned, or does not share what LiteLLM notes on it."""
        server.script(Reply(text="Blue, as ever."))
        adapter.register(litellm, hooks)
        with pointed_at(server.url):
            stream = litellm.completion(model=LITELLM_MODEL, messages=MESSAGES, stream=True)
            assert isinstance(stream, litellm.CustomStreamWrapper)
            assert type(stream).__name__ == "CustomStreamWrapper"
            assert not any(name.startswith("_memori") for name in vars(stream))
            chunks = list(stream)
            assert stream.chunks
            assert stream.sent_last_chunk
        whole = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
        assert whole.choices[0].message.content == hooks.turn.said == "Blue, as ever."

    def test_pass_untouched_when_nobody_takes_part(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a stream of a call that memori passes by cannot be read."""

        class Absent(ListeningHooks):
            def begin(self, *args: Any, **kwargs: Any) -> None:
                return None

        absent = Absent()
        adapter.register(litellm, absent)
        try:
            with pointed_at(server.url):
                stream = litellm.completion(model=LITELLM_MODEL, messages=MESSAGES, stream=True)
                text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        finally:
            adapter.unregister(litellm, absent)
        assert text == "Understood."


class TestConversations:
    def test_with_tools_are_read_whole(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when LiteLLM's own message objects, tool calls or tool results are not understood, or are changed."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}, id="call_1"),)), Reply(text="Rain."))
        adapter.register(litellm, hooks)
        messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}]
        with pointed_at(server.url):
            asked = litellm.completion(model=LITELLM_MODEL, messages=messages).choices[0].message
            messages += [asked, {"role": "tool", "tool_call_id": "call_1", "content": "Rain, 12 degrees."}]
            before = list(messages)
            litellm.completion(model=LITELLM_MODEL, messages=messages)
        called = Message(role="assistant", kind="tool_call", content='weather({"city": "Oslo"})')
        result = Message(role="tool", kind="tool_result", content="Rain, 12 degrees.", author="weather")
        first, second = hooks.turns
        assert first.reply == (called,)
        assert second.sent == (Message(role="user", content="Weather?"), called, result)
        assert second.said == "Rain."
        assert [id(message) for message in messages] == [id(message) for message in before]

    def test_of_several_tasks_stay_apart(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when one task's call under way keeps another's from taking part."""
        adapter.register(litellm, hooks)

        async def main() -> None:
            async with async_litellm(pointed_at(server.url)):
                calls = (litellm.acompletion(model=LITELLM_MODEL, messages=MESSAGES) for _ in range(8))
                await asyncio.gather(*calls)

        asyncio.run(main())
        assert [turn.finishes for turn in hooks.turns] == [1] * 8
        assert [request.text.count(BLOCK) for request in server.requests] == [1] * 8


@pytest.mark.parametrize(
    ("arguments", "provider"),
    [
        ({"model": "gpt-4o-mini"}, "openai"),
        ({"model": "ollama/llama3"}, "ollama"),
        ({"model": "nebius/meta-llama/Llama-3.3-70B-Instruct"}, "nebius"),
        ({"model": "openai/own", "api_base": "http://127.0.0.1:1/v1"}, "127.0.0.1"),
        ({"model": "own", "custom_llm_provider": "azure"}, "azure"),
        ({"model": "own"}, "litellm"),
    ],
)
def test_the_provider_is_the_one_behind_litellm(arguments: Any, provider: str, hooks: ListeningHooks) -> None:
    """Fails when exchanges are stored under another provider than answered them."""
    adapter.register(litellm, hooks)
    arguments = {"mock_response": "Understood.", **arguments}
    with contextlib.suppress(litellm.exceptions.BadRequestError):  # A model that LiteLLM does not know, either.
        litellm.completion(messages=MESSAGES, **arguments)
    assert [turn.provider for turn in hooks.turns] == [provider]


def test_the_page_runs_as_it_stands(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooks: ListeningHooks
) -> None:
    """Fails when what ``docs/litellm.md`` shows does not work, or stores an exchange twice or not at all."""
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "litellm.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    with pointed_at(server.url):
        for block in blocks:
            exec(block, namespace)  # noqa: S102 - it is the page's own
    with namespace["mem"] as mem:
        assert mem.augmentation.wait(30)
        said = [message.content for message in mem.messages()]
        mem.llm.unregister(litellm)
        retire(namespace["router"])
    assert len(blocks) == 2
    assert said == ["I live in Rome.", "Understood.", "I work as a nurse.", "Understood."]
