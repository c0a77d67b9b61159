"""Every provider's SDK whose clients memori listens to: how to make a client, and which calls it has.

What must hold for all of them is tried for all of them, and the table in the documentation says what was tried.
An SDK is imported when a client of it is made, and not before.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeAlias

from memori.testing.anthropic_calls import ANTHROPIC_CALLS
from memori.testing.calls import SHAPES, NotOffered, ProviderCall
from memori.testing.google_calls import GOOGLE_CALLS
from memori.testing.litellm_calls import LITELLM_CALLS, LITELLM_MODEL, LITELLM_NOT_OFFERED
from memori.testing.openai_calls import OPENAI_CALLS
from memori.testing.provider import ProviderServer
from memori.testing.xai_calls import XAI_CALLS, XAI_NOT_OFFERED
from memori.testing.xai_protocol import XAIServer

__all__ = [
    "PROVIDERS",
    "ProviderSDK",
    "async_litellm",
    "close_litellm_clients",
    "import_litellm",
    "litellm_router",
    "retire",
    "table",
]

_Clients: TypeAlias = Callable[[str], AbstractContextManager[Any]]
_AsyncClients: TypeAlias = Callable[[str], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSDK:
    """One SDK.

    Attributes:
        name: As in the table.
        distribution: What is installed.
        calls: Every way to ask.
        not_offered: The columns without any.
        client: Returns a synchronous client of what listens at an address.
        async_client: Returns an asynchronous one.
        blocks: Whether the SDK itself blocks the event loop.
        noise: Filters for the warnings that the SDK itself gives.
        serve: Returns a started server as the SDK's protocol needs one, and at which address.
    """

    name: str
    distribution: str
    calls: Sequence[ProviderCall]
    not_offered: Sequence[NotOffered] = ()
    client: _Clients
    async_client: _AsyncClients
    blocks: bool = False
    noise: Sequence[str] = ()
    serve: Callable[[ProviderServer], AbstractContextManager[str]] = lambda server: nullcontext(server.url)

    @property
    def version(self) -> tuple[int, int]:
        """The first two numbers of the installed version.

        Raises:
            importlib.metadata.PackageNotFoundError: It is not installed.
        """
        major, minor = version(self.distribution).split(".")[:2]
        return int(major), int(minor)


@contextmanager
def _openai(address: str) -> Iterator[Any]:
    from openai import OpenAI

    with OpenAI(api_key="key", base_url=f"{address}/v1", max_retries=0) as client:
        yield client


@asynccontextmanager
async def _async_openai(address: str) -> AsyncIterator[Any]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key="key", base_url=f"{address}/v1", max_retries=0) as client:
        yield client


@contextmanager
def _anthropic(address: str) -> Iterator[Any]:
    from anthropic import Anthropic, DefaultHttpxClient

    # Without verify=False each client reads the certificates of all authorities first: 100 ms.
    http = DefaultHttpxClient(verify=False)
    with Anthropic(api_key="key", base_url=address, max_retries=0, http_client=http) as client:
        yield client


@asynccontextmanager
async def _async_anthropic(address: str) -> AsyncIterator[Any]:
    from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

    http = DefaultAsyncHttpxClient(verify=False)
    async with AsyncAnthropic(api_key="key", base_url=address, max_retries=0, http_client=http) as client:
        yield client


@contextmanager
def _google(address: str) -> Iterator[Any]:
    from google import genai

    # As above. The address is not https.
    unverified: Any = {"client_args": {"verify": False}, "async_client_args": {"verify": False, "ssl": False}}
    options = genai.types.HttpOptions(base_url=address, **unverified)
    with genai.Client(api_key="key", http_options=options) as client:
        yield client


@asynccontextmanager
async def _async_google(address: str) -> AsyncIterator[Any]:
    with _google(address) as client:
        try:
            yield client.aio
        finally:
            await client.aio.aclose()


@contextmanager
def _xai(address: str) -> Iterator[Any]:
    import xai_sdk

    client = xai_sdk.Client(api_key="key", api_host=address, use_insecure_channel=True)
    try:
        yield client
    finally:
        client.close()


@asynccontextmanager
async def _async_xai(address: str) -> AsyncIterator[Any]:
    import xai_sdk

    client = xai_sdk.AsyncClient(api_key="key", api_host=address, use_insecure_channel=True)
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def _serve_xai(server: ProviderServer) -> Iterator[str]:
    with XAIServer(server) as running:
        yield running.host


def import_litellm() -> Any:
    """Return LiteLLM's module, imported without a word and without a look at the network."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm: Any = importlib.import_module("litellm")
    litellm.telemetry, litellm.suppress_debug_info = False, True
    litellm.disable_aiohttp_transport = True  # Its sessions are closed by nobody.
    return litellm


@contextmanager
def litellm_router(address: str) -> Iterator[Any]:
    """A router with one deployment, at *address*."""
    litellm = import_litellm()
    where = {"model": LITELLM_MODEL, "api_base": f"{address}/v1", "api_key": "key"}
    router = litellm.Router(model_list=[{"model_name": LITELLM_MODEL, "litellm_params": where}], num_retries=0)
    try:
        yield router
    finally:
        retire(router)
        close_litellm_clients()


def retire(router: Any) -> None:
    """Let go of a LiteLLM router, by the name that its version has for that."""
    (router.retire if hasattr(router, "retire") else router.discard)()


@asynccontextmanager
async def async_litellm(client: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    """The module or a router, for one event loop."""
    with client as made:
        try:
            yield made
        finally:
            for kept in _kept_by_litellm():
                if inspect.iscoroutinefunction(kept.close):
                    await kept.close()


def close_litellm_clients() -> None:
    """Close the clients that LiteLLM keeps for its next call, and closes at no time."""
    for kept in _kept_by_litellm():
        if not inspect.iscoroutinefunction(kept.close):
            kept.close()
    sys.modules["litellm"].in_memory_llm_clients_cache.flush_cache()


def _kept_by_litellm() -> list[Any]:
    kept = sys.modules["litellm"].in_memory_llm_clients_cache.cache_dict.values()
    return [client for client in kept if hasattr(client, "close")]


PROVIDERS = (
    ProviderSDK(name="OpenAI", distribution="openai", calls=OPENAI_CALLS, client=_openai, async_client=_async_openai),
    ProviderSDK(
        name="Anthropic",
        distribution="anthropic",
        calls=ANTHROPIC_CALLS,
        client=_anthropic,
        async_client=_async_anthropic,
    ),
    ProviderSDK(
        name="Google Gemini",
        distribution="google-genai",
        calls=GOOGLE_CALLS,
        client=_google,
        async_client=_async_google,
        noise=("ignore:Inheritance class AiohttpClientSession:DeprecationWarning",),
    ),
    ProviderSDK(
        name="xAI",
        distribution="xai-sdk",
        calls=XAI_CALLS,
        not_offered=XAI_NOT_OFFERED,
        client=_xai,
        async_client=_async_xai,
        serve=_serve_xai,
        noise=("ignore::PendingDeprecationWarning",),
    ),
    ProviderSDK(
        name="LiteLLM",
        distribution="litellm",
        calls=LITELLM_CALLS,
        not_offered=LITELLM_NOT_OFFERED,
        client=litellm_router,
        async_client=lambda address: async_litellm(litellm_router(address)),
        blocks=True,
        noise=(
            "ignore:Items? .* on TypedDict class .* (is|are) using the `ReadOnly` qualifier:UserWarning",
            "ignore:Pydantic serializer warnings:UserWarning",
            "ignore:Accessing the 'model_\\w+' attribute on the instance is deprecated:DeprecationWarning",
            "ignore:The `dict` method is deprecated:DeprecationWarning",
            # An event loop that a synchronous call makes for its logging, with the two sockets by which it is woken.
            "ignore:unclosed event loop:ResourceWarning",
            "ignore:unclosed <socket.socket fd=\\d+, family=1,:ResourceWarning",
        ),
    ),
)

_PROPERTIES = ("captured", "augmented", "injected", "tools", "early break", "error mid-stream")


def table(providers: Sequence[ProviderSDK] = PROVIDERS) -> str:
    """Return what is tried of each SDK, in Markdown: a row for each shape of a call, a cell for each thing that holds.

    Each row of data is tried synchronously and asynchronously, so a cell stands for both.
    """
    lines = [
        f"| SDK | call | {' | '.join(_PROPERTIES)} | ways tried, sync and async |",
        f"|---|---|{'---|' * len(_PROPERTIES)}---|",
    ]
    for provider in providers:
        missing = {found.shape: found.why for found in provider.not_offered}
        for shape in SHAPES:
            calls = [call for call in provider.calls if call.shape == shape]
            if not calls:
                cells = ["-"] * len(_PROPERTIES)
                note = f"not offered by this SDK: {missing[shape]}"
            else:
                streamed = "✓" if any(call.streams for call in calls) else "comes whole"
                cells = ["✓"] * 4 + [streamed] * 2
                note = str(len(calls))
            lines.append(f"| {provider.name} | {shape} | {' | '.join(cells)} | {note} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
