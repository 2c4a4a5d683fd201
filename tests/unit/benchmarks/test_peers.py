"""What `python -m benchmarks peers` makes of runs, and what it does when a peer does not start."""

import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.bars import STREAMS_AT_1, STREAMS_AT_32
from benchmarks.cpu_use import CpuUse
from benchmarks.load import Load, Run, Sample
from benchmarks.machine import Machine
from benchmarks.peers import environments, loads
from benchmarks.peers.arena import arena
from benchmarks.peers.bars import judged
from benchmarks.peers.chart import BAR_WIDTH, Panel, svg
from benchmarks.peers.contenders import LITELLM_PROXY, NONE, SERVE_LLM, Contender, upstream_stack
from benchmarks.peers.figures import figures_of
from benchmarks.peers.measure import Found, PathFound, share_until, wanted
from benchmarks.peers.panels import panels_of
from benchmarks.peers.report import report_of
from benchmarks.stack import Stack, free_port
from benchmarks.stacks import BARE, OURS
from benchmarks.summary import Record, percentile

STREAM = Load("x", True, 4, 1)


def stream(failure: str | None = None, gaps_s: tuple[float, ...] = (0.1, 0.1)) -> Sample:
    return Sample(0.5, 0.2, list(gaps_s), 4, failure)


def record(who: str, load: str, repetition: int = 0, **figures: float) -> Record:
    cpu = CpuUse(elapsed_s=1, client_s=0.1, others_s=0, stacks_s={who: {"it": 0.5}})
    return Record(repetition, who, load, 10, {}, figures, cpu)


def path(*records: Record, failed: Mapping[str, str] | None = None) -> PathFound:
    who = list(dict.fromkeys([*(r.stack for r in records), *(failed or {})]))
    return PathFound("engine", who, dict(failed or {}), {"ray": "2.60.0"}, 2, list(records), {}, {})


def found(*paths: PathFound) -> Found:
    machine = Machine("2026-11-20 16:00 UTC", 2, "a CPU", 2**34, {}, "abc", 0.0)
    return Found(machine, 1.0, True, list(paths))


def test_percentiles_are_values_that_were_measured() -> None:
    """Nearest rank: no value is made up between two."""
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50, 99, 100)] == [50, 99, 100]
    assert percentile([3.0], 99) == 3


def test_rates_are_of_what_succeeded_and_costs_of_all_that_was_asked() -> None:
    """A failed request adds nothing to the rates, but what it cost is in the cost of each."""
    figures = figures_of(Run(STREAM, 2.0, [stream(), stream(), stream("status 500")]), cpu_s=0.3)
    assert figures["requests_per_s"] == 1
    assert figures["tokens_per_s"] == 4
    assert figures["chunks_per_s"] == 3
    assert figures["cpu_s_per_1000_requests"] == pytest.approx(100)
    assert figures["cpu_s_per_100k_tokens"] == pytest.approx(100_000 * 0.3 / 8)
    assert figures["first_token_p50_ms"] == figures["first_token_p99_ms"] == 200
    assert figures["gap_p50_ms"] == 100


def test_a_run_without_an_answer_has_no_figures() -> None:
    """Nothing succeeded: there is no rate of zero that a median could hide in."""
    assert figures_of(Run(STREAM, 2.0, [stream("status 500")]), cpu_s=0.3) == {}


def test_a_bar_is_the_median_of_the_ratios_within_repetitions() -> None:
    """A machine that slows down between repetitions changes no ratio."""
    rates = [(50.0, 100.0), (30.0, 40.0), (5.0, 5.0)]
    records = [
        record(who, STREAMS_AT_32, repetition, requests_per_s=rate)
        for repetition, pair in enumerate(rates)
        for who, rate in zip((OURS, BARE), pair, strict=True)
    ]
    bar = judged(path(*records))[0]
    assert bar.bar.measured == 0.75
    assert (bar.lowest, bar.highest) == (0.5, 1.0)
    assert not bar.bar.met


def test_a_difference_is_judged_in_milliseconds() -> None:
    """The first token may come so much later, however early it comes."""
    records = [
        record(OURS, STREAMS_AT_1, first_token_p50_ms=8.4),
        record(BARE, STREAMS_AT_1, first_token_p50_ms=7.0),
    ]
    bar = judged(path(*records))[2].bar
    assert bar.measured == pytest.approx(1.4)
    assert bar.met


def test_what_was_not_measured_is_not_met() -> None:
    """A peer that did not start gives us no bar."""
    records = [record(OURS, STREAMS_AT_32, requests_per_s=50)]
    bars = judged(path(*records, failed={SERVE_LLM: "boom"}))
    assert [bar.bar.met for bar in bars[:-1]] == [False] * 6
    rows = report_of(found(path(*records))).tables[0].rows
    assert {row[2] for row in rows[:-1]} == {"not measured"}


def test_the_report_says_who_took_no_part_and_what_failed() -> None:
    """Neither a contender that did not start nor a failed request is passed over."""
    bad = record(BARE, STREAMS_AT_32)
    bad = Record(0, BARE, STREAMS_AT_32, 3, {"status 500": 3}, {}, bad.cpu)
    text = report_of(found(path(bad, failed={SERVE_LLM: "Traceback: no pyarrow"}))).as_markdown()
    assert f"{SERVE_LLM} took no part: Traceback: no pyarrow" in text
    assert f"3 x {BARE} / {STREAMS_AT_32} / status 500" in text
    assert "ray 2.60.0" in text


def test_the_table_has_everybody_side_by_side() -> None:
    """Each figure once, and in brackets how many times the other's ours is."""
    records = [
        record(BARE, STREAMS_AT_32, tokens_per_s=200.0),
        record(OURS, STREAMS_AT_32, tokens_per_s=150.0),
    ]
    table = report_of(found(path(*records))).tables[1]
    assert list(table.header) == ["load, engine path", "figure", BARE, OURS]
    assert [list(row) for row in table.rows] == [
        [STREAMS_AT_32, "tokens per s", "200 (0.75)", "150"]
    ]


def test_the_report_says_which_process_costs_what() -> None:
    """Of each stack, what its processes used for the requests that it was asked."""
    runs = [record(OURS, STREAMS_AT_32), record(OURS, STREAMS_AT_32, 1), record(BARE, "another")]
    table = report_of(found(path(*runs))).tables[2]
    assert list(table.rows) == [(f"{OURS}: it", "50.0")]


def test_a_client_that_is_the_limit_is_named() -> None:
    """Where the client used most of a core, the report says that it may be what was measured."""
    cpu = CpuUse(1, 0.9, 0, {NONE: {}})
    busy = Record(0, NONE, "c=32", 10, {}, {"requests_per_s": 9.0}, cpu)
    assert "its own limit: c=32, no gateway" in report_of(found(path(busy))).as_markdown()


def test_the_chart_is_an_svg_for_light_and_dark() -> None:
    """Well-formed whatever the names are; the longest bar fills the panel, ours stands out."""
    text = svg(
        [Panel("a < b & c", [(OURS, 50.0), (LITELLM_PROXY, 100.0)]), Panel("one", [("x", 0)])]
    )
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    bars = root.findall(f"{space}rect")
    assert [float(bar.get("width", 0)) for bar in bars] == [BAR_WIDTH / 2, BAR_WIDTH, 1]
    assert [bar.get("class") for bar in bars] == ["ours", None, None]
    assert "a < b & c" in [node.text for node in root.findall(f"{space}text")]
    assert "prefers-color-scheme: dark" in text


def test_the_chart_leaves_out_what_was_not_measured() -> None:
    """A panel has a bar for everyone who has the figure, and there is none without."""
    panels = panels_of(found(path(record(OURS, STREAMS_AT_32, tokens_per_s=150.0))))
    assert [panel.values for panel in panels] == [[(OURS, 150.0)]]


def test_words_narrow_the_loads_down() -> None:
    """One word is enough, in any case; no word means all."""
    names = [load.name for load in loads.engine_loads(1)]
    assert [name for name in names if wanted(name, ["C=1,", "prompt"])] == [
        name for name in names if "prompt" in name
    ]
    assert all(wanted(name, []) for name in names)


def test_a_path_has_its_share_of_the_time() -> None:
    """Alone it has all of it; together they share it out to the end."""
    assert share_until("api", ["api"]) == 1
    assert share_until("engine", ["engine", "api"]) == 0.6
    assert share_until("api", ["engine", "api"]) == 1


def test_both_paths_have_the_loads_of_their_bars() -> None:
    """No bar is asked of a load that is not run."""
    engine = {load.name for load in loads.engine_loads(1)}
    api = {load.name for load in loads.api_loads(1)}
    assert {STREAMS_AT_1, STREAMS_AT_32, loads.UNARY_AT_32} <= engine
    assert {loads.CHUNKS_AT_1, loads.CHUNKS_AT_32, loads.WHOLE_AT_32} <= api


def test_one_that_does_not_start_is_told_of_and_the_others_go_on(tmp_path: Path) -> None:
    """Its log's end is kept; whoever starts is measured; afterwards nothing runs."""

    def broken(folder: Path) -> Stack:
        command = [sys.executable, "-c", "raise SystemExit('no room here')"]
        return Stack("broken", free_port(), "/", command, folder / "broken.log")

    upstream = upstream_stack(tmp_path)
    contenders = [Contender("broken", broken), Contender(NONE, stack=upstream.name)]
    load = Load("whole", False, 64, 2, num_requests=4)
    with arena(contenders, tmp_path, [upstream]) as stage:
        assert [one.name for one in stage.ready] == [NONE]
        assert "no room here" in stage.failed["broken"]
        assert stage.record(stage.ready[0], load, 0).failures == {}
    assert upstream.processes() == []


def test_every_lock_pins_every_package() -> None:
    """What is installed today is installed tomorrow."""
    for environment in (environments.LITELLM, environments.VLLM_ROUTER, environments.RAY_SERVE_LLM):
        lines = (environments.LOCKS / f"{environment.name}.txt").read_text().splitlines()
        packages = [line for line in lines if not line.startswith("#")]
        assert packages
        assert all("==" in line for line in packages)


def test_the_environments_lie_where_the_operator_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One variable moves them all, so that they outlive a working tree."""
    monkeypatch.setenv(environments.CACHE, str(tmp_path))
    assert environments.LITELLM.folder == tmp_path / "litellm"
