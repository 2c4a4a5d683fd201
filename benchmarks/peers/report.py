"""The findings in words and tables: for each path the bars, the figures, the memory."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from statistics import fmean, median

from benchmarks.bars import MEGABYTE, STREAMS_AT_32
from benchmarks.peers import loads
from benchmarks.peers.bars import Judged, judged
from benchmarks.peers.figures import median_of, ratios_of
from benchmarks.peers.measure import Found, PathFound
from benchmarks.peers.panels import CHART
from benchmarks.quick_report import LEAST_SHARE, MAX_QUIET_SHARE, cpu_s_per_1000
from benchmarks.report import Report, number
from benchmarks.stacks import OURS
from benchmarks.summary import Record
from benchmarks.table import Table

NAME = "peers"
MAX_REASON_CHARS = 300
STREAMED = (STREAMS_AT_32, loads.CHUNKS_AT_32)
SATURATED_SHARE = 0.8  # of a core: the client may be what is measured


def report_of(found: Found) -> Report:
    tables = [table for path in found.paths for table in tables_of(path)]
    return Report(NAME, list(_notes(found)), tables, CHART.name)


def tables_of(found: PathFound) -> list[Table]:
    tables = [bar_table(found.path, judged(found)), figure_table(found)]
    return [*tables, process_table(found), memory_table(found)]


def bar_table(path: str, bars: Sequence[Judged]) -> Table:
    """Each bar, and whether it is met."""
    rows = []
    for one in bars:
        bar = one.bar
        spread = f"{number(one.lowest)}..{number(one.highest)}" if one.lowest is not None else "-"
        measured = "not measured" if bar.measured is None else number(bar.measured)
        rows.append(
            (
                bar.name,
                f"{'<=' if bar.at_most else '>='} {bar.limit:g} {bar.unit}".rstrip(),
                f"{measured} {bar.unit if bar.measured is not None else ''}".rstrip(),
                spread,
                "met" if bar.met else "NOT MET",
            )
        )
    return Table((f"bar, {path} path", "limit", "measured", "of all pairs", ""), rows)


def figure_table(found: PathFound) -> Table:
    """All contenders side by side; in brackets how many times theirs ours is. The load is said
    once."""
    who = [name for name in found.contenders if name not in found.failed]
    rows: list[tuple[str, ...]] = []
    load = ""
    for name, figure in dict.fromkeys((r.load, f) for r in found.records for f in r.figures):
        cells = [_cell(found.records, one, name, figure) for one in who]
        rows.append((name if name != load else "", figure.replace("_", " "), *cells))
        load = name
    return Table((f"load, {found.path} path", "figure", *who), rows)


def _cell(records: Sequence[Record], contender: str, load: str, figure: str) -> str:
    value = number(median_of(records, contender, load, figure))
    ratios = [] if contender == OURS else ratios_of(records, OURS, contender, load, figure)
    return f"{value} ({number(median(ratios))})" if ratios else value


def process_table(found: PathFound) -> Table:
    """Which process spends how much on a stream, busiest first; the least are left out."""
    load = next((one for one in STREAMED if any(r.load == one for r in found.records)), "")
    rows = []
    for who in found.contenders:
        runs = [r for r in found.records if (r.stack, r.load) == (who, load)]
        costs = cpu_s_per_1000([run for run in runs if who in run.cpu.stacks_s])
        least = sum(costs.values()) * LEAST_SHARE
        busiest = sorted(costs.items(), key=itemgetter(1), reverse=True)
        rows += [(f"{who}: {title}", number(s)) for title, s in busiest if s > least]
    return Table(("process", f"CPU s per 1000 requests, {load}"), rows)


def memory_table(found: PathFound) -> Table:
    """The peak of each stack since its start, and what it has after the loads."""
    rows = [
        (name, number(peak / MEGABYTE), number(found.shared_bytes[name] / MEGABYTE))
        for name, peak in found.peak_bytes.items()
    ]
    header = ("peak RSS, sum over processes, MB", "after the loads, PSS, MB")
    return Table((f"stack, {found.path} path", *header), rows)


def _notes(found: Found) -> Iterator[str]:
    yield from _doubts(found)
    yield f"{found.machine.described()}."
    peers = {k: v for path in found.paths for k, v in path.versions.items()}
    yield "Peers: " + (", ".join(f"{k} {v}" for k, v in peers.items()) or "none") + "."
    repetitions = ", ".join(f"{path.path} {path.num_repetitions}" for path in found.paths)
    yield f"Repetitions, interleaved: {repetitions}; medians; {found.took_s:.0f} s in all."
    yield "In brackets: how many times the other's figure ours is, the median over repetitions."
    yield f"Requests that failed: {_failures(found)}."
    for path in found.paths:
        for name, reason in path.failed.items():
            yield f"{name} took no part: {' '.join(reason[-MAX_REASON_CHARS:].split())}"
        yield f"{path.path} path, in percent of one core: {_cpu(path.records)}."


def _doubts(found: Found) -> Iterator[str]:
    """Why the figures should not be believed."""
    records = [record for path in found.paths for record in path.records]
    if records and fmean(map(_others, records)) > MAX_QUIET_SHARE:
        yield "PROVISIONAL: the machine was not quiet, see the last line."
    if not found.has_priority:
        yield "PROVISIONAL: the client may not have priority here: it waits for others' cores."
    busy = {f"{r.load}, {r.stack}" for r in records if _client(r) > SATURATED_SHARE}
    if busy:
        yield f"The client used most of a core, so these may be its own limit: {'; '.join(busy)}."


def _failures(found: Found) -> str:
    counts = [item for path in found.paths for item in path.failures.items()]
    return "; ".join(f"{count} x {' / '.join(where)}" for where, count in counts) or "none"


def _cpu(records: Sequence[Record]) -> str:
    shares = {"the client": list(map(_client, records)), "others": list(map(_others, records))}
    return ", ".join(
        f"{name} {100 * median(found):.0f} (at most {100 * max(found):.0f})"
        for name, found in shares.items()
        if found
    )


def _client(record: Record) -> float:
    return record.cpu.client_s / record.cpu.elapsed_s


def _others(record: Record) -> float:
    return record.cpu.others_s / record.cpu.elapsed_s
