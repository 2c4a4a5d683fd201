"""Plain HTTP for tests: requests as bytes, answers as bytes, nothing decoded or followed."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
from yarl import URL

from tests.polling import PATIENCE_S

CHAT = "/v1/chat/completions"
JSON_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer taken in whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, if the answer is exactly OpenAI's envelope with a request id."""
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        assert list(self.json) == ["error"]
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        return error


def chat(text: str = "hello there", model: str = "demo", **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@asynccontextmanager
async def opened(
    url: str, body: Any, headers: Mapping[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A POST whose answer has begun; leaving closes the connection."""
    data = BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(url, data=data, headers={**JSON_HEADERS, **(headers or {})}) as response,
    ):
        yield response


async def post(url: str, body: Any, headers: Mapping[str, str] | None = None) -> Answered:
    """A POST and its whole answer."""
    async with opened(url, body, headers) as response:
        return await _taken(response)


async def request(
    method: str, url: str, headers: Mapping[str, str] | None = None, data: bytes | None = None
) -> Answered:
    """Any request and its whole answer."""
    async with (
        aiohttp.ClientSession(auto_decompress=False, skip_auto_headers={"content-type"}) as session,
        session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=BytesIO(data) if data else None,
            allow_redirects=False,
        ) as response,
    ):
        return await _taken(response)


async def _taken(response: aiohttp.ClientResponse) -> Answered:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answered(response.status, headers, await response.read())


async def exchanged(url: str, data: bytes) -> Answered:
    """Bytes sent over a socket as they are, and the one answer to them."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Answered(int(head[0].split()[1]), headers, body)
    finally:
        writer.close()


def events_of(body: bytes) -> list[Any]:
    """The data of a stream's events: JSON, and the text of what is not JSON."""
    frames = [frame.removeprefix(b"data: ") for frame in body.split(b"\n\n") if frame.strip()]
    return [frame.decode() if frame == b"[DONE]" else json.loads(frame) for frame in frames]
