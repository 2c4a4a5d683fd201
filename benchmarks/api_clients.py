"""Four ways to read an upstream's answer as bytes; the last is the product's."""

from typing import Protocol

import aiohttp
import httpx2
import openai

from deployments.api import READ_BUFFER_BYTES, ApiBackend
from deployments.config import ApiConfig, ApiModel
from deployments.exchange import Exchange

PATH = "/chat/completions"
JSON_HEADERS = {"content-type": "application/json"}
# Asks openai's client for the response as it is, unread: what with_streaming_response sets.
UNREAD = {**JSON_HEADERS, "X-Stainless-Raw-Response": "stream"}
LIMIT = 1024


class ApiClient(Protocol):
    """Connections to one upstream. Any failure is raised."""

    async def start(self, base_url: str) -> None: ...

    async def read(self, body: bytes) -> int:
        """Asks, reads the answer piece by piece as it comes, and returns its size in bytes."""

    async def stop(self) -> None: ...


class Aiohttp:
    """aiohttp alone, set up as in deployments/api.py."""

    async def start(self, base_url: str) -> None:
        self._url = base_url + PATH
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=LIMIT),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            read_bufsize=READ_BUFFER_BYTES,
            headers={"accept-encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def read(self, body: bytes) -> int:
        num_bytes = 0
        async with self._session.post(self._url, data=body, headers=JSON_HEADERS) as response:
            response.raise_for_status()
            while piece := await response.content.readany():
                num_bytes += len(piece)
        return num_bytes

    async def stop(self) -> None:
        await self._session.close()


class OpenAI:
    """openai's client on its own transport, at its cheapest: bytes in, raw bytes out."""

    async def start(self, base_url: str) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key="none", max_retries=0, http_client=self.transport()
        )

    def transport(self) -> httpx2.AsyncClient:
        return openai.DefaultAsyncHttpxClient(limits=self.limits())

    def limits(self) -> httpx2.Limits:
        return httpx2.Limits(max_connections=LIMIT, max_keepalive_connections=LIMIT)

    async def read(self, body: bytes) -> int:
        response = await self._client.post(
            PATH, content=body, cast_to=httpx2.Response, options={"headers": UNREAD}
        )
        try:
            return sum([len(piece) async for piece in response.aiter_raw()])
        finally:
            await response.aclose()

    async def stop(self) -> None:
        await self._client.close()


class OpenAIOverAiohttp(OpenAI):
    """openai's client with aiohttp below it, as its documentation advises for concurrency."""

    def transport(self) -> httpx2.AsyncClient:
        return openai.DefaultAioHttpClient(limits=self.limits())


class Product:
    """The whole API backend: aiohttp, the model's name rewritten, the answer's end checked."""

    async def start(self, base_url: str) -> None:
        model = ApiModel(upstream_model="upstream", base_url=base_url, api_key_env=None)
        self._backend = ApiBackend("api", ApiConfig(models={"demo": model}))
        await self._backend.start()

    async def read(self, body: bytes) -> int:
        exchange = Exchange("/v1" + PATH, body, "benchmark", "demo")
        items = self._backend.exchange(exchange)
        return sum([len(item) async for item in items if isinstance(item, bytes)])

    async def stop(self) -> None:
        await self._backend.stop()


CLIENTS: dict[str, type[ApiClient]] = {
    "aiohttp": Aiohttp,
    "openai": OpenAI,
    "openai over aiohttp": OpenAIOverAiohttp,
    "deployments/api.py": Product,
}
