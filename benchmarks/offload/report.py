"""What the two ways to stream took, beside what the disk and the processor allow."""

from statistics import fmean
from typing import Any

from benchmarks.bars import Bar
from benchmarks.offload.compare import GIB, Found
from benchmarks.quick_report import MAX_QUIET_SHARE, bar_table
from benchmarks.report import Report, number
from benchmarks.table import Table

GB = 1e9
HEADER = (
    *("streamed by", "batch", "step s", "tokens/s", "read GB", "disk GB/s", "disk s"),
    *("compute s", "of bound", "into slots GB/s", "of that", "disk busy %"),
)


def report_of(found: Found) -> Report:
    return Report("offload", _notes(found), [bar_table(bars(found)), step_table(found)])


def bound_s(step: dict[str, Any], bandwidth: str = "disk_bandwidth") -> float:
    """What a step cannot be shorter than: the slower of disk and processor."""
    disk_s: float = step["read_bytes"] / step[bandwidth]
    return max(disk_s, step["compute_s"] or 0.0)


def bars(found: Found) -> list[Bar]:
    steps = {step["batch"]: step for step in found.streamed["steps"]}
    seconds = {batch: step["step_s"] for batch, step in steps.items()}
    runs = [found.streamed, found.alone, *found.quantized.values()]
    return [
        *(_of_bound(f"batch {batch}", step) for batch, step in steps.items()),
        *(
            _of_bound(f"{kind}, batch {step['batch']}", step)
            for kind, run in found.quantized.items()
            for step in run["steps"]
        ),
        *(_speedup(kind, run, found.accelerate) for kind, run in _planned_alike(found)),
        Bar("growth of tokens/s, batch 1 to 8, of 8 x", 0.8, seconds[1] / seconds[8], "x", False),
        Bar("peak memory, off the plan", 10, max(map(_off_plan, runs)), "%"),
        Bar("bytes of a step that came from the disk", 0.99, min(map(_cold, runs)), "x", False),
        Bar("`roundhouse plan` of a 70 B checkpoint's headers", 2, found.plan_s, "s"),
    ]


def _planned_alike(found: Found) -> list[tuple[str, dict[str, Any]]]:
    return [("bfloat16", found.alone), *found.quantized.items()]


def _of_bound(what: str, step: dict[str, Any]) -> Bar:
    return Bar(f"of the bound, {what}", 0.8, bound_s(step) / step["step_s"], "x", False)


def _speedup(kind: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Bar:
    speedup = theirs["steps"][0]["step_s"] / ours["steps"][0]["step_s"]
    return Bar(f"accelerate's seconds, batch 1, by {kind}", 2.5, speedup, "x", False)


def _off_plan(run: dict[str, Any]) -> float:
    return 100 * abs(_peak(run) - 1)


def _peak(run: dict[str, Any]) -> float:
    return float(run["peak_bytes"] / run["planned_bytes"])


def _cold(run: dict[str, Any]) -> float:
    """Of the weights that are not resident, if any: less means that the page cache was read."""
    if not run["streamed_bytes"]:
        return 1.0
    return float(min(step["read_bytes"] for step in run["steps"]) / run["streamed_bytes"])


def step_table(found: Found) -> Table:
    runs = {"Roundhouse": found.streamed, "planned for 1": found.alone}
    runs |= found.quantized | {"accelerate": found.accelerate}
    return Table(HEADER, [_row(name, step) for name, run in runs.items() for step in run["steps"]])


def _row(name: str, step: dict[str, Any]) -> tuple[str, ...]:
    disk_s = step["read_bytes"] / step["disk_bandwidth"]
    into_slots = step["memory_bandwidth"]
    of_that = None if into_slots is None else bound_s(step, "memory_bandwidth") / step["step_s"]
    return (
        name,
        str(step["batch"]),
        number(step["step_s"]),
        number(step["batch"] / step["step_s"]),
        number(step["read_bytes"] / GB),
        number(step["disk_bandwidth"] / GB),
        number(disk_s),
        number(step["compute_s"]),
        number(bound_s(step) / step["step_s"]),
        number(None if into_slots is None else into_slots / GB),
        number(of_that),
        number(None if step["busy_share"] is None else 100 * step["busy_share"]),
    )


def _notes(found: Found) -> list[str]:
    others = fmean(step["others_share"] for step in found.streamed["steps"])
    doubts = ["PROVISIONAL: the machine was not quiet, see the last line."]
    ours, theirs = found.streamed, found.accelerate
    alone = found.alone["steps"][0]
    most = theirs["steps"][0]["step_s"] / (alone["read_bytes"] / alone["disk_bandwidth"])
    return [
        *(doubts if others > MAX_QUIET_SHARE else []),
        f"{found.machine.described()}; {found.took_s:.0f} s in all.",
        f"Bloom-3B's geometry, {found.weight_bytes / GB:.2f} GB of random bfloat16 weights, within "
        f"{found.limit_bytes / GIB:g} GiB of RAM ({ours['cap']}), of which "
        f"{ours['planned_bytes'] / GIB:.2f} were planned; {ours['streamed_bytes'] / GB:.2f} GB of "
        "the weights are read in each step.",
        f"Peak resident memory: {ours['peak_bytes'] / GIB:.2f} GiB; accelerate "
        f"{theirs['peak_bytes'] / GIB:.2f} GiB ({theirs['cap']}).",
        "The bound of a step is the slower of two: its bytes by the bandwidth of direct reads "
        "(disk s), and the same step over weights that are in memory (compute s). Reads and "
        "steps take turns; their medians count. Read GB is what the kernel counts as read from "
        "the disk.",
        "Those reads go into a block of 4 MiB again and again, which the processor's cache keeps "
        "(disk GB/s). Into slots: the same into the slots, as weights must be; of that: the bound "
        "by these, of a step.",
        "Disk busy: of the time of the steps, that in which the streamer was reading.",
        "accelerate: its device map with tied weights, the plan of `planned for 1` and the same "
        "cap, page cache dropped before. It leaves what it streams unquantised. To read the bytes "
        "of `planned for 1` at the disk's bandwidth and do nothing else would be "
        f"{most:.2f} times as fast as accelerate: with these weights as they are, that is the "
        "most.",
        f"Everything else on the machine: {100 * others:.0f} % of one core on average.",
    ]
