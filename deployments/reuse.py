"""Connections to an upstream are used again, and may be closed by it in the very moment in which
they are: the request has then reached nobody, and goes once more on a new connection."""

from types import SimpleNamespace
from typing import Any

import aiohttp


def noting_reuse() -> aiohttp.TraceConfig:
    """For a session: lets `post` know which connections were idle before."""
    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(_reused)
    return config


async def _reused(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    context.trace_request_ctx["reused"] = True


async def post(session: aiohttp.ClientSession, url: str, **options: Any) -> aiohttp.ClientResponse:
    """The answer, once it has begun. Only a connection that had been idle is made up for, and once:
    whoever hangs up on a new one may have begun to work. Raises: aiohttp.ClientError, OSError."""
    notes: dict[str, bool] = {}
    try:
        return await session.post(url, trace_request_ctx=notes, **options)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        if "reused" not in notes:
            raise
    return await session.post(url, trace_request_ctx=notes, **options)
