"""A commercial API of our own: a real HTTP server on loopback, good or bad as it is told.

What it does with a request is a Script, chosen by the `model` that the request names. A model
without a script gets an ordinary chat answer, streamed if the request asks for that.
"""

import asyncio
import enum
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Self

from aiohttp import web

from deployments.exchange import EVENT_STREAM, JSON


class Act(enum.Enum):
    """What an upstream may do besides sending bytes; as a first step, before the head."""

    HANG = "send nothing more, and keep the connection"
    BREAK = "close the connection without the end of the answer"
    RESET = "reset the connection"


Step = bytes | Act | asyncio.Event


@dataclass(frozen=True, slots=True)
class Script:
    """An answer: its head, then its steps in order. An event among the steps is waited for.

    The body ends cleanly after the last step. `sized` announces its length; else it is chunked.
    """

    steps: tuple[Step, ...] = ()
    status: int = 200
    content_type: str | None = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    sized: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came. Header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """Runs while it is entered. `scripts` may be changed at any time."""

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self.scripts = dict(scripts or {})
        self.received: list[Received] = []
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()  # a connection ended before its answer had
        handler = web.Application(client_max_size=1 << 26)
        handler.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            handler, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        self.url = ""

    @property
    def num_connections(self) -> int:
        """Connections that are open now."""
        server = self._runner.server
        return len(server.connections) if server else 0

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.path_qs, headers, await request.read())
        self.received.append(received)
        self.arrived.set()
        asked = received.json
        script = self.scripts.get(asked["model"]) or ordinary(bool(asked.get("stream")))
        try:
            return await _perform(script, request)
        except asyncio.CancelledError:
            self.gone.set()
            raise


async def _perform(script: Script, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=script.status, headers=dict(script.headers))
    if script.content_type:
        response.headers["content-type"] = script.content_type
    if script.sized:
        response.content_length = sum(len(step) for step in script.steps if type(step) is bytes)
    for step in script.steps:
        if isinstance(step, bytes):
            if not response.prepared:
                await response.prepare(request)
            await response.write(step)
        else:
            await _act(step, request)
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def _act(step: Act | asyncio.Event, request: web.Request) -> None:
    transport = request.transport
    if isinstance(step, asyncio.Event):
        await step.wait()
        return
    if step is Act.RESET and transport is not None:
        no_linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, no_linger)
    if step is not Act.HANG and transport is not None:
        transport.close()
    await asyncio.Event().wait()  # until the connection is lost, which cancels this


def ordinary(stream: bool) -> Script:
    """The answer that every upstream should give."""
    return Script(tuple(EVENTS), content_type=EVENT_STREAM) if stream else Script((WHOLE,))


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    kind = "chat.completion.chunk"
    head = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "upstream-1"}
    return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"


def _delta(delta: dict[str, str], finish: str | None = None) -> bytes:
    return _chunk([{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}])


# Spaces, key order and number forms that no serialiser of ours would write: they must survive.
WHOLE = (
    '{ "id":"chatcmpl-1","object":"chat.completion", "created":1,"model":"upstream-1",\n'
    ' "x_extra": 1.50e+00, "choices":[{"index":0,"finish_reason":"stop","logprobs":null,\n'
    ' "message":{"role":"assistant","refusal":null,"content":"Grüße \\u2603"}}],\n'
    ' "usage":{"total_tokens":7,"prompt_tokens":5,"completion_tokens":2} }\n'
).encode()
EVENTS = (
    _delta({"role": "assistant", "content": ""}),
    _delta({"content": "Grüße"}),
    _delta({"content": " ☃"}),
    _delta({}, "stop"),
    _chunk([], usage=USAGE),
    b"data: [DONE]\n\n",
)
