"""The findings of the Hugging Face benchmark in words and tables."""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean, median

from benchmarks.bars import Bar
from benchmarks.huggingface.measure import CONTINUOUS, MILLISECONDS, OURS, STATIC, Found, Pass
from benchmarks.huggingface.servers import CONTINUOUS as SERVE_CONTINUOUS
from benchmarks.huggingface.servers import OURS as OURS_SERVED
from benchmarks.huggingface.servers import PLAIN
from benchmarks.quick_report import MAX_QUIET_SHARE, bar_table
from benchmarks.report import Report, number
from benchmarks.table import Table

Rate = Callable[[Pass], float]


def per_cpu_s(done: Pass) -> float:
    """Useful tokens per second of CPU time: of a process with one thread, on a quiet machine, the
    same as per second."""
    return done.num_tokens / done.cpu_s


def per_s(done: Pass) -> float:
    """Useful tokens per second by the clock."""
    return done.num_tokens / done.wall_s


def report_of(found: Found) -> Report:
    tables = [bar_table(bars(found)), rate_table(found.passes), stall_table(found.stalls)]
    return Report("huggingface", _notes(found), tables)


def bars(found: Found) -> list[Bar]:
    """Engines by CPU time, servers by the clock; static batching is its faster variant's."""
    static = [_ratio(found.passes, OURS, name, per_cpu_s) for name in STATIC]
    stretch = [s["gap_after_ms"] - s["gap_before_ms"] - s["chunk_ms"] for s in found.stalls]
    served = [
        Bar(
            f"8 clients, of {name}'s",
            limit,
            _ratio(found.passes, OURS_SERVED, name, per_s),
            "x",
            False,
        )
        for name, limit in ((PLAIN, 3), (SERVE_CONTINUOUS, 1.5))
        if _of(found.passes, name)
    ]
    return [
        Bar("of transformers' continuous batching", 1, _continuous(found.passes), "x", False),
        Bar("of static batched generate", 2, min(s for s in static if s), "x", False),
        *served,
        Bar("longest gap beside a long prompt, beyond one chunk", 0, median(stretch), "ms"),
        Bar("requests or tokens that failed", 0, sum(_failures(found.passes).values()), ""),
    ]


def rate_table(passes: Sequence[Pass]) -> Table:
    """Every contender, and ours against it: by CPU time and by the clock."""
    rows = []
    for name in dict.fromkeys(done.contender for done in passes):
        ours = OURS if name in (OURS, CONTINUOUS, *STATIC) else OURS_SERVED
        cells = [number(median(map(rate, _of(passes, name)))) for rate in (per_cpu_s, per_s)]
        ratios = [_spread(passes, ours, name, rate) for rate in (per_cpu_s, per_s)]
        rows.append((name, cells[0], ratios[0], cells[1], ratios[1]))
    header = ("contender", "tokens per CPU s", "ours/this", "tokens per s", "ours/this")
    return Table(header, rows)


def stall_table(stalls: Sequence[dict[str, float]]) -> Table:
    """The median over the repetitions."""
    names = ("gap, p50", "longest gap", "longest gap beside a long prompt", "longest chunk alone")
    cells = [number(median(s[key] for s in stalls)) for key in MILLISECONDS]
    return Table(("8 streams", "ms"), list(zip(names, cells, strict=True)))


def _of(passes: Sequence[Pass], name: str) -> list[Pass]:
    return [done for done in passes if done.contender == name]


def _continuous(passes: Sequence[Pass]) -> float | None:
    return _ratio(passes, OURS, CONTINUOUS, per_cpu_s)


def _ratios(passes: Sequence[Pass], ours: str, name: str, rate: Rate) -> list[float]:
    """Of the passes of one repetition, which lie seconds apart."""
    pairs = zip(_of(passes, ours), _of(passes, name), strict=True)
    return [rate(mine) / rate(theirs) for mine, theirs in pairs if theirs.num_tokens]


def _ratio(passes: Sequence[Pass], ours: str, name: str, rate: Rate) -> float | None:
    ratios = _ratios(passes, ours, name, rate)
    return median(ratios) if ratios else None


def _spread(passes: Sequence[Pass], ours: str, name: str, rate: Rate) -> str:
    ratios = _ratios(passes, ours, name, rate)
    if name == ours or not ratios:
        return "1" if ratios else "-"
    return f"{number(median(ratios))} ({number(min(ratios))}..{number(max(ratios))})"


def _failures(passes: Sequence[Pass]) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for done in passes:
        for reason, count in done.failures.items():
            counts[done.contender, reason] += count
    return counts


def _notes(found: Found) -> list[str]:
    others = fmean(done.others_share for done in found.passes)
    failures = "; ".join(f"{n} x {' / '.join(w)}" for w, n in _failures(found.passes).items())
    doubts = ["PROVISIONAL: the machine was not quiet, see the last line."]
    num_starts = len({done.start for done in _of(found.passes, OURS_SERVED)})
    return [
        *(doubts if others > MAX_QUIET_SHARE else []),
        f"{found.machine.described()}.",
        f"Repetitions, interleaved: engines {len(_of(found.passes, OURS))}, servers "
        f"{len(_of(found.passes, OURS_SERVED))}, over {num_starts} starts; medians; "
        f"{found.took_s:.0f} s in all.",
        "32 requests, answers of 8 to 149 tokens, float32, greedy, one thread of torch each. Only "
        "the tokens that were asked for count.",
        "Bars of engines are judged by CPU time, those of servers by the clock. After each start a "
        "server does the work once before it counts.",
        f"Failures: {failures or 'none'}.",
        f"Everything else on the machine: {100 * others:.0f} % of one core on average.",
    ]
