"""A backend's answer on its replica: passed on as it is, and told in the log and as a span."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from deployments import spans
from deployments.current_request import request_id as current_request
from deployments.errors import RoundhouseError
from deployments.exchange import EVENT_STREAM, Backend, Exchange, Head, Item, Tail
from serve_app.account import CLIENT_GONE, Sentence

logger = logging.getLogger("roundhouse.access")


async def told(backend: Backend, request: Exchange) -> AsyncGenerator[Item, None]:
    """The items of the exchange; what the backend logs meanwhile has the request's id.

    Raises: what the exchange raises.
    """
    current_request.set(request.request_id)
    telling = _Telling(backend.card().backend, request)
    try:
        async with aclosing(
            backend.exchange(replace(request, trace=telling.span.headers))
        ) as items:
            async for item in items:
                if not isinstance(item, bytes):
                    telling.sees(item)
                yield item
    except BaseException as exc:
        telling.fails(exc)
        raise
    finally:
        telling.end()


class _Telling:
    """What is known of one exchange."""

    def __init__(self, backend: str, request: Exchange) -> None:
        self._began_at = time.perf_counter()
        self._logged = request.logged
        self._facts: dict[str, Any] = {
            "request_id": request.request_id,
            "path": request.path,
            "status": CLIENT_GONE,
            "duration_s": 0.0,
            "model": request.model,
            "backend": backend,
        }
        operation = spans.operation(request.path)
        self.span = spans.begin(
            f"{operation} {request.model}",
            "server",
            request.trace,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": request.model,
                "gen_ai.provider.name": backend,
                "roundhouse.request_id": request.request_id,
            },
        )

    @property
    def _age_s(self) -> float:
        return round(time.perf_counter() - self._began_at, 6)

    def sees(self, item: Head | Tail) -> None:
        """A Head comes with the first bytes of the answer, a Tail after the last."""
        if isinstance(item, Head):
            first_byte_s = self._age_s
            self._facts |= {"status": item.status, "first_byte_s": first_byte_s}
            if item.content_type.startswith(EVENT_STREAM):
                self.span.event("gen_ai.first_token")
            self.span.set({"gen_ai.response.time_to_first_chunk": first_byte_s})
        else:
            self._facts |= {
                "prompt_tokens": item.prompt_tokens,
                "completion_tokens": item.completion_tokens,
            }
            self.span.set(spans.usage(item.prompt_tokens, item.completion_tokens))

    def fails(self, exc: BaseException) -> None:
        """An error before the Head has a status; one after it, or a client that left, has not."""
        if isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self._facts["error"] = "cancelled"
            return
        error = exc if isinstance(exc, RoundhouseError) else RoundhouseError()
        self._facts["error"] = error.code
        if self._facts["status"] == CLIENT_GONE:
            self._facts["status"] = error.status
        if error.status >= 500:
            self.span.fail(str(error.code))

    def end(self) -> None:
        facts = self._facts
        facts["duration_s"] = self._age_s
        self.span.set({"http.response.status_code": facts["status"]})
        self.span.end()
        failed = facts["status"] >= 500
        if self._logged or failed:
            level = logging.WARNING if failed else logging.INFO
            logger.log(level, "%s", Sentence(facts), extra=facts)
