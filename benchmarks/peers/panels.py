"""Which figures the picture shows."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bars import STREAMS_AT_1, STREAMS_AT_32
from benchmarks.peers import loads
from benchmarks.peers.chart import Panel, svg
from benchmarks.peers.figures import median_of
from benchmarks.peers.measure import Found, PathFound

CHART = Path(__file__).parents[1] / "peers.svg"

# Path: title, load, figure.
SHOWN = {
    "engine": (
        ("64-token streams, 32 at a time: tokens/s", STREAMS_AT_32, "tokens_per_s"),
        ("1-token answers, 32 at a time: requests/s", loads.UNARY_AT_32, "requests_per_s"),
        ("first token, one at a time: ms, less is better", STREAMS_AT_1, "first_token_p50_ms"),
        (
            "CPU s per 100,000 tokens, 32 at a time: less is better",
            STREAMS_AT_32,
            "cpu_s_per_100k_tokens",
        ),
    ),
    "api": (
        ("API answers, 32 at a time: requests/s", loads.WHOLE_AT_32, "requests_per_s"),
        ("API streams, 32 at a time: chunks/s", loads.CHUNKS_AT_32, "chunks_per_s"),
        (
            "API first byte, one at a time: ms, less is better",
            loads.CHUNKS_AT_1,
            "first_token_p50_ms",
        ),
        (
            "CPU s per 1,000 API answers, 32 at a time: less is better",
            loads.WHOLE_AT_32,
            "cpu_s_per_1000_requests",
        ),
    ),
    "huggingface": (
        ("Hugging Face streams, 32 at a time: tokens/s", STREAMS_AT_32, "tokens_per_s"),
        ("Hugging Face, first token, one at a time: ms", STREAMS_AT_1, "first_token_p50_ms"),
    ),
}


def panels_of(found: Found) -> list[Panel]:
    """Those for which anything was measured."""
    panels = [
        Panel(title, _values(path, load, figure))
        for path in found.paths
        for title, load, figure in SHOWN[path.path]
    ]
    return [panel for panel in panels if panel.values]


def write(found: Found, file: Path = CHART) -> None:
    """Draws the chart that README shows."""
    file.write_text(svg(panels_of(found)))


def _values(path: PathFound, load: str, figure: str) -> Sequence[tuple[str, float]]:
    values = ((who, median_of(path.records, who, load, figure)) for who in path.contenders)
    return [(who, value) for who, value in values if value is not None]
