"""A fast upstream for the clients to read: `python -m benchmarks.upstream`, a process of its own.

It prints its port and serves until its standard input ends, so it never outlives who started it.
"""

import asyncio
import json
import sys

import uvloop
from aiohttp import web

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
    return b"data: " + json.dumps(body).encode() + b"\n\n"


EVENTS = (
    event({"role": "assistant", "content": ""}),
    *(event({"content": "word "}) for _ in range(NUM_CHUNKS)),
    event({}, "stop"),
    b"data: [DONE]\n\n",
)


async def answer(request: web.Request) -> web.StreamResponse:
    """A whole answer, or one event at a time, other connections served in between."""
    if not (await request.json()).get("stream"):
        return web.Response(body=WHOLE, content_type="application/json")
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for piece in EVENTS:
        await response.write(piece)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def serve() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve())
