"""`python -m benchmarks capacity`: what rates take in CPUs, stack beside stack."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.capacity import StackCost, Wanted, costs
from benchmarks.report import Report, number
from benchmarks.table import Table

ROUTER = "ray::ServeReplica:router:Router"
PROXY = "haproxy"
NOT_IN_THE_WAY = 0.02  # of a stack's CPUs: what costs less only looks on


def read(files: Sequence[Path]) -> list[StackCost]:
    """The stacks in the files, in their order. Raises: RuntimeError for a file without any."""
    found: list[StackCost] = []
    for file in files:
        try:
            there = list(costs(msgspec.json.decode(file.read_bytes())))
        except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise RuntimeError(f"{file} cannot be read: {error!r}") from error
        if not there:
            raise RuntimeError(f"{file} has no stack with both loads: whole answers and streams")
        found += there
    return found


def report_of(
    stacks: Sequence[StackCost], requests: Wanted, tokens: Wanted, files: Sequence[Path]
) -> Report:
    """CPUs for the requests and, apart, for the tokens; then our processes one by one."""
    notes = [
        f"From {', '.join(file.name for file in files)}. CPUs to provide if each is to be "
        f"{100 * requests.use:.0f} % busy; engines are left out.",
        f"{requests.requests_per_s:g} whole answers/s; {tokens.tokens_per_s:g} tokens/s "
        f"in {tokens.requests_per_s:g} streams/s.",
        "A process of Python uses one CPU at most: so many replicas of the router.",
    ]
    return Report(
        "capacity", notes, [_totals(stacks, requests, tokens), _ours(stacks, requests, tokens)]
    )


def _totals(stacks: Sequence[StackCost], requests: Wanted, tokens: Wanted) -> Table:
    rows = [
        (
            f"{cost.path}: {cost.stack}",
            number(1e6 * sum(c.per_request_s for c in cost.processes.values())),
            number(1e6 * sum(c.per_token_s for c in cost.processes.values())),
            number(requests.cpus(cost)),
            number(tokens.cpus(cost)),
        )
        for cost in stacks
    ]
    header = ("stack", "µs per request", "µs per token", "CPUs for requests", "CPUs for tokens")
    return Table(header, rows)


def _ours(stacks: Sequence[StackCost], requests: Wanted, tokens: Wanted) -> Table:
    rows = list(_processes(stacks, requests, tokens))
    header = ("process", "µs per request", "µs per token", "replicas: requests", "replicas: tokens")
    return Table(header, rows)


def _processes(
    stacks: Sequence[StackCost], requests: Wanted, tokens: Wanted
) -> Iterator[tuple[str, ...]]:
    for stack in stacks:
        for title, cost in stack.processes.items():
            asked = tokens.requests_per_s, tokens.tokens_per_s
            share = cost.cpus(*asked) / stack.cpus(*asked)
            if title.startswith((ROUTER, PROXY)) and share > NOT_IN_THE_WAY:
                yield (
                    f"{stack.path}: {stack.stack}: {title}",
                    number(1e6 * cost.per_request_s),
                    number(1e6 * cost.per_token_s),
                    number(requests.replicas(cost)),
                    number(tokens.replicas(cost)),
                )
