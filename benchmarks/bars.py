"""The bars that issue 2 sets, and whether they are met."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.router_cost import Memory, Start
from benchmarks.summary import Row

STREAMS_AT_1 = "64-token streams, c=1"
STREAMS_AT_32 = "64-token streams, c=32"
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit, and what was measured against it; None where the measurement failed."""

    name: str
    limit: float
    measured: float | None
    unit: str
    at_most: bool = True

    @property
    def met(self) -> bool:
        if self.measured is None:
            return False
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass(frozen=True, slots=True)
class RouterCost:
    """What a router replica costs by itself."""

    import_s: float
    start: Start
    memory: Memory


def bars(rows: Sequence[Row], router: RouterCost, num_failures: int) -> list[Bar]:
    first_token = _row(rows, STREAMS_AT_1, "first_token_p50_ms")
    streams = _row(rows, STREAMS_AT_32, "requests_per_s")
    later_ms = first_token.difference if first_token else None
    ratio = streams.ratio if streams else None
    return [
        Bar("first token, c=1, after bare vLLM's (p50)", 3, later_ms, "ms"),
        Bar("64-token streams, c=32, of bare vLLM's", 0.85, ratio, "x", at_most=False),
        Bar("router process, creation to /health", 3, router.start.replica_s, "s"),
        Bar("import of serve_app.app", 3, router.import_s, "s"),
        Bar("router process, peak memory", 250, router.memory.peak_bytes / MEGABYTE, "MB"),
        Bar("requests that failed, both stacks", 0, num_failures, ""),
    ]


def _row(rows: Sequence[Row], load: str, figure: str) -> Row | None:
    return next((row for row in rows if (row.load, row.figure) == (load, figure)), None)
