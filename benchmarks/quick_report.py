"""The quick benchmark's findings in words and tables."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from statistics import fmean, median

from benchmarks.bars import MEGABYTE, STREAMS_AT_32, Bar
from benchmarks.quick import Quick
from benchmarks.report import Report, number
from benchmarks.stacks import BARE, OURS
from benchmarks.summary import Record, Row
from benchmarks.table import Table

LEAST_SHARE = 0.01  # of a stack's CPU time
MAX_QUIET_SHARE = 0.1  # of one core, used by others


def report_of(quick: Quick) -> Report:
    tables = [bar_table(quick.bars), row_table(quick.rows), cpu_table(quick.records)]
    return Report("quick", _notes(quick), tables)


def bar_table(bars: Sequence[Bar]) -> Table:
    """Each bar of the issue, and whether it is met."""
    rows = [
        (
            bar.name,
            f"{'<=' if bar.at_most else '>='} {bar.limit:g} {bar.unit}".rstrip(),
            f"{number(bar.measured)} {bar.unit}".rstrip(),
            "met" if bar.met else "NOT MET",
        )
        for bar in bars
    ]
    return Table(("bar", "limit", "measured", ""), rows)


def row_table(rows: Sequence[Row]) -> Table:
    """Both stacks side by side; the load is said once."""
    cells, load = [], ""
    for row in rows:
        lowest, highest = number(row.lowest), number(row.highest)
        cells.append(
            (
                row.load if row.load != load else "",
                row.figure.replace("_", " "),
                number(row.bare),
                number(row.ours),
                number(row.difference, sign=True),
                number(row.ratio),
                f"{lowest}..{highest}",
            )
        )
        load = row.load
    return Table(("load", "figure", BARE, OURS, "difference", "ratio", "of all pairs"), cells)


def cpu_table(records: Sequence[Record]) -> Table:
    """Which process spends how much on 1000 streams, busiest first; the least are left out."""
    runs = [record for record in records if record.load == STREAMS_AT_32]
    cells = []
    for stack in (BARE, OURS):
        costs = cpu_s_per_1000([run for run in runs if run.stack == stack])
        least = sum(costs.values()) * LEAST_SHARE
        busiest = sorted(costs.items(), key=itemgetter(1), reverse=True)
        cells += [(f"{stack}: {title}", number(s)) for title, s in busiest if s > least]
    return Table(("process", f"CPU s per 1000 requests, {STREAMS_AT_32}"), cells)


def cpu_s_per_1000(runs: Sequence[Record]) -> dict[str, float]:
    """Over all runs of one stack, by the title of the process."""
    num_requests = max(1, sum(run.num_requests for run in runs))
    titles = {title for run in runs for title in run.cpu.stacks_s[run.stack]}
    return {
        title: 1000
        * sum(run.cpu.stacks_s[run.stack].get(title, 0.0) for run in runs)
        / num_requests
        for title in titles
    }


def _notes(quick: Quick) -> list[str]:
    start, memory = quick.router.start, quick.router.memory
    return [
        *_doubts(quick),
        f"{quick.machine.described()}.",
        f"Repetitions, A B A B: {quick.num_repetitions}; {quick.took_s:.0f} s in all.",
        f"Failures: {_failures(quick)}.",
        f"Router replica: up after {start.replica_s:.2f} s, reached through HAProxy after "
        f"{start.proxy_s:.2f} s; {memory.now_bytes / MEGABYTE:.0f} MB after the load.",
        f"In percent of one core: {_cpu(quick.records)}.",
    ]


def _doubts(quick: Quick) -> Iterator[str]:
    """Why the figures should not be believed."""
    shares = [record.cpu.others_s / record.cpu.elapsed_s for record in quick.records]
    if fmean(shares) > MAX_QUIET_SHARE:
        yield "PROVISIONAL: the machine was not quiet, see the last line."
    if not quick.has_priority:
        yield "PROVISIONAL: the client may not have priority here: it waits for the engine's cores."


def _failures(quick: Quick) -> str:
    counts = quick.failures.items()
    return "; ".join(f"{count} x {' / '.join(where)}" for where, count in counts) or "none"


def _cpu(records: Sequence[Record]) -> str:
    """How free of each other the runs were: median and highest of the runs."""
    idle = {BARE: OURS, OURS: BARE}
    parts = {
        f"{idle[stack]} while idle": [
            r.cpu.of(idle[stack]) / r.cpu.elapsed_s for r in records if r.stack == stack
        ]
        for stack in (OURS, BARE)
    }
    parts["the client"] = [r.cpu.client_s / r.cpu.elapsed_s for r in records]
    parts["everything else on the machine"] = [r.cpu.others_s / r.cpu.elapsed_s for r in records]
    return ", ".join(
        f"{name} {100 * median(shares):.0f} (at most {100 * max(shares):.0f})"
        for name, shares in parts.items()
    )
