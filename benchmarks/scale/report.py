"""The findings of `scale` in words and tables."""

from collections.abc import Iterator, Sequence

from benchmarks.bars import Bar
from benchmarks.quick_report import MAX_QUIET_SHARE, bar_table
from benchmarks.report import Report, number
from benchmarks.scale.many_models import Step
from benchmarks.scale.measure import Scale
from benchmarks.scale.memory import Kept
from benchmarks.scale.overload import OVERLOAD, ROOM, Overload, Phase
from benchmarks.scale.routers import Throughput
from benchmarks.table import Table


def report_of(scale: Scale) -> Report:
    tables = [
        bar_table(list(bars(scale))),
        _steps(scale.steps),
        _kept(scale.kept),
        _phases(scale.overload),
        _routers(scale.routers),
    ]
    return Report("scale", list(_notes(scale)), tables)


def bars(scale: Scale) -> Iterator[Bar]:
    """What the issue asks for; growth is over the first step, of the last where as many run."""
    first = scale.steps[0]
    last = [step for step in scale.steps if step.num_running == first.num_running][-1]
    growth = f"{first.num_applications} to {last.num_applications} models"
    yield Bar(f"router's own memory, {growth}", 1.1, last.router_own_mb / first.router_own_mb, "x")
    yield Bar(f"CPU per request, {growth}", 1.1, last.request_cpu_ms / first.request_cpu_ms, "x")
    yield Bar(f"a look at {last.num_applications} models", 10, last.look_cpu_ms, "ms CPU")
    at, over = scale.overload.at_capacity, scale.overload.overloaded
    yield Bar(
        "first token p99 at 4x, of that at capacity",
        2,
        over.first_token_p99_ms / at.first_token_p99_ms,
        "x",
    )
    yield Bar("refused within, p99", 50, over.refused_p99_ms, "ms")
    yield Bar("refused without Retry-After", 0, over.num_without_retry_after, "")
    yield Bar("neither answered nor refused", 0, at.num_others + over.num_others, "")
    before, after = scale.overload.before, scale.overload.after
    yield Bar("router memory after, of before", 1.1, after.rss_mb / before.rss_mb, "x")
    yield Bar("router sockets after, beyond before", 0, after.num_sockets - before.num_sockets, "")
    yield Bar("under way after", 0, after.num_ongoing, "")


def _steps(steps: Sequence[Step]) -> Table:
    header = (
        "models (with a replica)",
        "router's own MB",
        "beside shared MB",
        "router idle, % of a core",
        "controller idle, %",
        "router ms CPU/request",
        "to each in turn",
        "answer p50 ms",
        "look ms CPU",
        "serve.status() ms CPU",
    )
    rows = [
        (
            f"{step.num_applications} ({step.num_running})",
            number(step.router_own_mb),
            number(step.router_shared_mb),
            number(100 * step.router_idle_cpu),
            number(100 * step.controller_idle_cpu),
            number(step.request_cpu_ms),
            number(step.spread_cpu_ms),
            number(step.answer_p50_ms),
            number(step.look_cpu_ms),
            number(step.public_look_cpu_ms),
        )
        for step in steps
    ]
    return Table(header, rows)


def _kept(kept: Sequence[Kept]) -> Table:
    rows = [
        (
            number(one.num_models),
            number(one.kept_bytes / 1000),
            number(one.kept_bytes / one.num_models),
        )
        for one in kept
    ]
    return Table(("models, simulated, all running", "router keeps kB", "bytes per model"), rows)


def _phases(overload: Overload) -> Table:
    phases = {
        "at capacity": overload.at_capacity,
        f"at {OVERLOAD}x": overload.overloaded,
        "at capacity again": overload.again,
    }
    header = (
        "a model that takes 16",
        "arrivals/s",
        "accepted",
        "refused",
        "failed",
        "first token p50 ms",
        "p99 ms",
        "refused p50 ms",
        "p99 ms",
        "router peak MB",
    )
    return Table(header, [(name, *_phase(phase)) for name, phase in phases.items()])


def _phase(phase: Phase) -> Sequence[str]:
    figures: tuple[float, ...] = (
        phase.rate_per_s,
        phase.num_accepted,
        phase.num_refused,
        phase.num_others,
        phase.first_token_p50_ms,
        phase.first_token_p99_ms,
        phase.refused_p50_ms,
        phase.refused_p99_ms,
        phase.peak_rss_mb,
    )
    return [number(figure) for figure in figures]


def _routers(throughputs: Sequence[Throughput]) -> Table:
    header = (
        "routers",
        "load",
        "requests/s",
        "tokens/s",
        "routers' ms CPU/request",
        "stack's ms CPU/request",
        "failed",
    )
    rows = [
        (
            number(one.num_routers),
            one.load,
            number(one.num_requests / one.elapsed_s),
            number(one.num_tokens / one.elapsed_s),
            number(1000 * _of_routers_s(one) / one.num_requests),
            number(1000 * sum(one.cpu_s.values()) / one.num_requests),
            number(one.num_failures),
        )
        for one in throughputs
    ]
    return Table(header, rows)


def _of_routers_s(one: Throughput) -> float:
    return sum(s for title, s in one.cpu_s.items() if ":router:Router" in title)


def _notes(scale: Scale) -> Iterator[str]:
    others = max(one.others_share for one in scale.routers)
    if others > MAX_QUIET_SHARE:
        yield f"PROVISIONAL: others used up to {100 * others:.0f} % of a core."
    if not scale.has_priority:
        yield "PROVISIONAL: the client may not have priority here: it waits for the others' cores."
    yield f"{scale.machine.described()}."
    yield f"{scale.took_s:.0f} s in all. Models are echoes, deployed on real Serve instances."
    step = scale.steps[-1]
    yield (
        f"One application has a replica, a process, and at last {step.num_running} have; the "
        "others are at zero. Growth is that of the former. What 200 running models cost a router "
        "beside their handles is simulated."
    )
    before, after = scale.overload.before, scale.overload.after
    yield (
        f"The router before and after the overload: {before.rss_mb:.0f} and {after.rss_mb:.0f} MB, "
        f"{before.num_sockets} and {after.num_sockets} sockets; the model takes {ROOM} at a time."
    )
