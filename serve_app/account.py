"""What became of one request, gathered while it is answered: a line in the log, and a span.

Nothing that a client wrote gets in, but the id of its request, a path that is one of ours, and the
name of a model that is there: no prompt, no key, no answer.
"""

import logging
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from deployments import spans
from deployments.current_request import request_id as current_request
from deployments.errors import RoundhouseError
from deployments.exchange import Exchange, Tail
from serve_app.directory import Application

logger = logging.getLogger("roundhouse.access")

CLIENT_GONE = 499  # as nginx has it: nobody was there any more to be told a status
PROBES = frozenset({"/health", "/ready"})
UNNAMED = frozenset({"request_id", "method", "path", "status", "duration_s"})


class Account:
    """That of one request. It begins when it is made, and is told when it is closed."""

    def __init__(self, request_id: str, method: str, share: float) -> None:
        """`share` of the requests have a line in the log; those that fail too, unless it is 0."""
        current_request.set(request_id)
        self.request_id = request_id
        self.logged = share > 0 and (share >= 1 or random.random() < share)
        self.span: spans.Span = spans.NO_SPAN
        self._share = share
        self._began_at = time.perf_counter()
        self._method = method
        self._path: str | None = None
        self._facts: dict[str, Any] = {}
        self._attempts = 0
        self._held_s = 0.0

    @property
    def _age_s(self) -> float:
        return round(time.perf_counter() - self._began_at, 6)

    def informs(self, path: str) -> None:
        """The request is one that the router answers itself."""
        self._path = "/v1/models/{model}" if path.startswith("/v1/models/") else path

    def asks(self, path: str, headers: Mapping[str, str]) -> None:
        """The request is one for a model."""
        self._path = path
        attributes = {
            "http.request.method": self._method,
            "url.path": path,
            "gen_ai.operation.name": spans.operation(path),
            "roundhouse.request_id": self.request_id,
        }
        route = path if path in spans.OPERATIONS else "/v1/*"
        self.span = spans.begin(f"POST {route}", "server", spans.around(headers), attributes)

    def tries(self, model: str, application: Application) -> None:
        """The request goes to a model: the one it is for, or then one that stands in for it."""
        self._attempts += 1
        self._facts.setdefault("model", model)
        where = _where(model, application)
        if self._attempts == 1:
            self.span.set({"gen_ai.request.model": model})
        self.span.event("roundhouse.attempt", where)

    def exchange(self, path: str, body: bytes, model: str) -> Exchange:
        """What a backend is asked: the request, and how it goes on being told."""
        headers = self.span.headers
        return Exchange(path, body, self.request_id, model, trace=headers, logged=self.logged)

    def missed(self, model: str, application: Application, reason: str) -> None:
        """The model could not answer; another may."""
        self.span.event(
            "roundhouse.attempt_failed", {**_where(model, application), "error.type": reason}
        )

    @contextmanager
    def holding(self, application: Application) -> Iterator[None]:
        """The request waits in the block for an application to run, if it does not run yet."""
        if application.state == "running":
            yield
            return
        began_at = time.perf_counter()
        self.span.event("roundhouse.hold", {"roundhouse.application": application.name})
        try:
            yield
        finally:
            held_s = time.perf_counter() - began_at
            self._held_s += held_s
            self.span.event("roundhouse.hold_end", {"roundhouse.held_s": round(held_s, 6)})

    def answered(self, model: str, application: Application, streamed: bool) -> None:
        """An answer has begun."""
        first_byte_s = self._age_s
        self._facts |= {
            "served_by": model,
            "backend": application.backend,
            "stream": streamed,
            "first_byte_s": first_byte_s,
        }
        if streamed:
            self.span.event("gen_ai.first_token")
        self.span.set(
            {
                "gen_ai.response.model": model,
                "gen_ai.provider.name": application.backend,
                "gen_ai.request.stream": streamed,
                "gen_ai.response.time_to_first_chunk": first_byte_s,
                "roundhouse.application": application.name,
            }
        )

    def costs(self, tail: Tail) -> None:
        """What the answer cost."""
        self._facts |= {
            "prompt_tokens": tail.prompt_tokens,
            "completion_tokens": tail.completion_tokens,
        }
        self.span.set(spans.usage(tail.prompt_tokens, tail.completion_tokens))

    def fails(self, error: RoundhouseError) -> None:
        """How it ended, if badly."""
        self._facts["error"] = error.code

    def close(self, status: int | None) -> None:
        """The request is over; `status` is what the client was told, if it was told any."""
        status = status or CLIENT_GONE
        self.span.set({"http.response.status_code": status})
        if status >= 500 or (status < 400 and "error" in self._facts):  # 4xx: the client's
            self.span.fail(str(self._facts.get("error") or status))
        self.span.end()
        if self._path in PROBES:  # asked all the time; `/-/models` has the reason
            return
        if self.logged or (status >= 500 and self._share > 0):
            self._log(status)

    def _log(self, status: int) -> None:
        facts: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self._method,
            "path": self._path,
            "status": status,
            "duration_s": self._age_s,
            **self._facts,
        }
        if self._attempts > 1:
            facts["attempts"] = self._attempts
        if self._held_s:
            facts["held_s"] = round(self._held_s, 6)
        level = logging.WARNING if status >= 500 else logging.INFO
        logger.log(level, "%s", Sentence(facts), extra=facts)


class Sentence:
    """The facts of an account for people, those that every line has without their names: put
    together when the line is written, which is not while a request waits."""

    __slots__ = ("_facts",)

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def __str__(self) -> str:
        facts = self._facts
        told = [str(facts[name] or "-") for name in ("method", "path", "status") if name in facts]
        told.append(f"{facts['duration_s'] * 1000:.1f}ms")
        told += [f"{name}={value}" for name, value in facts.items() if name not in UNNAMED]
        return " ".join(told)


def _where(model: str, application: Application) -> spans.Attributes:
    return {
        "gen_ai.request.model": model,
        "roundhouse.application": application.name,
        "roundhouse.backend": application.backend,
    }
