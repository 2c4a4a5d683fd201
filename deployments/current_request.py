"""Which request the running task works for, so that what it logs can be found by its id."""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("roundhouse_request_id", default=None)
