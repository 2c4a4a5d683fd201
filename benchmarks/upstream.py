"""A fast upstream for clients and gateways to read: `python -m benchmarks.upstream [PORT]`.

Without a port it takes a free one, prints it, and serves until its standard input ends; with one it
serves until it is ended.
Its answers are scripted, whole or one event at a time. It has as little of a server as HTTP allows,
so that what is measured before it is not the upstream.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import cast

import httptools
import msgspec
import uvloop

NUM_CHUNKS = 64
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "upstream",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * NUM_CHUNKS},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": NUM_CHUNKS, "total_tokens": 73},
    }
).encode()


def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """One chunk of a streamed chat answer."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
    body = {**head, "model": "upstream", "choices": [choice]}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"upstream",'
    b'"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)
FIRST, LAST = event({"role": "assistant", "content": ""}), event({}, "stop")
EVENTS = (
    FIRST,
    *(event({"content": "word "}) for _ in range(NUM_CHUNKS)),
    LAST,
    USAGE % (NUM_CHUNKS, NUM_CHUNKS + 9),
    b"data: [DONE]\n\n",
)

JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
MODELS = b'{"object":"list","data":[{"id":"upstream","object":"model","created":1,"owned_by":"x"}]}'
PIECES = (
    STREAM_HEAD,
    *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in EVENTS),
    b"0\r\n\r\n",
)


class Asked(msgspec.Struct):
    """What decides on an answer; all else is skipped."""

    stream: bool = False


class Upstream(asyncio.Protocol):
    """One connection, kept alive; one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        if self._parser.get_method() == b"GET":
            self._whole(MODELS)
            return
        if msgspec.json.decode(body, type=Asked).stream:
            self._stream(iter(PIECES))
        else:
            self._whole(WHOLE)

    def _whole(self, body: bytes) -> None:
        self._transport.write(JSON_HEAD % len(body) + body)

    def _stream(self, pieces: Iterator[bytes]) -> None:
        """One event at a time, other connections served in between."""
        piece = next(pieces, None)
        if piece is not None and not self._transport.is_closing():
            self._transport.write(piece)
            self._loop.call_soon(self._stream, pieces)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port)
    if port:
        await server.serve_forever()
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
