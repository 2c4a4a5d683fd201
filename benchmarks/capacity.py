"""How many CPUs a rate of requests or of tokens takes, from what one of each was measured to cost.

A request costs each process of a stack so much, and each token of its answer so much more. Both
come from two loads of one run: whole answers, and streams. What an engine computes is left out: it
is the same behind every stack, and on a GPU.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

WHOLE, STREAMED = "1-token answers, c=32", "64-token streams, c=32"
API_WHOLE, API_STREAMED = "whole answers, c=32", "64-chunk streams, c=32"
# Whole answers, streams, and the tokens of each that cost something by themselves: an answer that
# comes as one piece of 64 tokens is one request and no stream.
PAIRS = ((WHOLE, 1, STREAMED, 64), (API_WHOLE, 0, API_STREAMED, 64))
ENGINES = ("VLLM::", "upstream")
USE = 0.7  # of a CPU, that leaves room for bursts


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of one process of a stack."""

    per_request_s: float
    per_token_s: float

    def cpus(self, requests_per_s: float, tokens_per_s: float) -> float:
        """CPUs that are busy all the time at these rates."""
        return self.per_request_s * requests_per_s + self.per_token_s * tokens_per_s


@dataclass(frozen=True, slots=True)
class StackCost:
    """What a stack costs, process by process, on the `path` that it was measured on."""

    path: str
    stack: str
    processes: Mapping[str, Cost]

    def cpus(self, requests_per_s: float, tokens_per_s: float) -> float:
        """Of all processes together."""
        return sum(cost.cpus(requests_per_s, tokens_per_s) for cost in self.processes.values())


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rates to provide for. `use` is how busy a CPU may be on average."""

    requests_per_s: float
    tokens_per_s: float
    use: float = USE

    def cpus(self, cost: StackCost) -> float:
        """CPUs to provide."""
        return cost.cpus(self.requests_per_s, self.tokens_per_s) / self.use

    def replicas(self, cost: Cost) -> int:
        """Of a process that uses one CPU at most, as Python does."""
        return max(1, math.ceil(cost.cpus(self.requests_per_s, self.tokens_per_s) / self.use))


def cost_of(whole_s: float, whole_tokens: int, streamed_s: float, streamed_tokens: int) -> Cost:
    """From CPU seconds for one request of two loads, and the tokens of each that cost something:
    what both have in common is the request's. Never less than nothing, which noise would make of
    little."""
    per_token_s = max(0.0, (streamed_s - whole_s) / (streamed_tokens - whole_tokens))
    return Cost(max(0.0, whole_s - per_token_s * whole_tokens), per_token_s)


def costs(found: Mapping[str, Any]) -> Iterator[StackCost]:
    """The stacks of a file that `peers`, `quick` or `scale` has written with `--output`, those that
    have both loads."""
    for path, records in _records(found):
        for stack in dict.fromkeys(record["stack"] for record in records):
            for whole, whole_tokens, streamed, tokens in PAIRS:
                both = [
                    [r for r in records if (r["stack"], r["load"]) == (stack, load)]
                    for load in (whole, streamed)
                ]
                processes = dict(_processes(both, whole_tokens, tokens)) if all(both) else {}
                if processes:  # without any there is nothing before the engine or the upstream
                    yield StackCost(path, stack, processes)


def _records(found: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    for one in found.get("paths", ()):
        yield one["path"], one["records"]
    if "records" in found:
        yield "engine", found["records"]
    if "routers" in found:
        yield "echo", [_as_record(one) for one in found["routers"]]


def _as_record(throughput: Mapping[str, Any]) -> Mapping[str, Any]:
    stack = f"Roundhouse, routers: {throughput['num_routers']}"
    return {**throughput, "stack": stack, "cpu": {"stacks_s": {stack: throughput["cpu_s"]}}}


def _processes(
    both: Sequence[Sequence[Mapping[str, Any]]], whole_tokens: int, streamed_tokens: int
) -> Iterator[tuple[str, Cost]]:
    titles = {title for records in both for r in records for title in _cpu_s(r)}
    for title in sorted(titles):
        if not title.startswith(ENGINES):
            whole_s, streamed_s = (_per_request_s(records, title) for records in both)
            yield title, cost_of(whole_s, whole_tokens, streamed_s, streamed_tokens)


def _cpu_s(record: Mapping[str, Any]) -> Mapping[str, float]:
    used: Mapping[str, float] = record["cpu"]["stacks_s"].get(record["stack"], {})
    return used


def _per_request_s(records: Iterable[Mapping[str, Any]], title: str) -> float:
    """The median over the repetitions."""
    return median(_cpu_s(r).get(title, 0.0) / int(r["num_requests"]) for r in records)
