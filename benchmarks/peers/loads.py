"""What is asked of every contender of a path: the same, for the same time, in the same order."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.bars import STREAMS_AT_1, STREAMS_AT_32
from benchmarks.load import Load
from benchmarks.upstream import NUM_CHUNKS

UNARY_AT_1, UNARY_AT_32 = "1-token answers, c=1", "1-token answers, c=32"
WHOLE_AT_1, WHOLE_AT_32 = "whole answers, c=1", "whole answers, c=32"
CHUNKS_AT_1, CHUNKS_AT_32 = "64-chunk streams, c=1", "64-chunk streams, c=32"
PLAIN: Mapping[str, Any] = {}  # the upstream is no engine: nothing to tell it
KILOBYTE, MEGABYTE = 1000, 1_000_000

# The demo has room for 2048 tokens, 1.45 bytes each: 32 kB do not fit it.
ENGINE_PROMPT_BYTES = 2_700


def engine_loads(share: float) -> list[Load]:
    """Streams of 64 tokens are what the bars are about, so they last longest."""
    loads = [
        Load(UNARY_AT_1, False, 1, concurrency=1, lasts_s=1.5),
        Load(UNARY_AT_32, False, 1, concurrency=32, lasts_s=2),
        Load(STREAMS_AT_1, True, 64, concurrency=1, lasts_s=2),
        Load(STREAMS_AT_32, True, 64, concurrency=32, lasts_s=3),
        Load("64-token streams, c=128", True, 64, concurrency=128, lasts_s=3),
        Load(
            "2.7 kB prompt, 1 token, c=4",
            False,
            1,
            concurrency=4,
            lasts_s=1.5,
            prompt_bytes=ENGINE_PROMPT_BYTES,
        ),
        Load(
            "64-token streams, 15 arrivals/s",
            True,
            64,
            concurrency=4,
            lasts_s=3,
            rate_per_s=15,
        ),
    ]
    return [replace(load, lasts_s=load.lasts_s * share) for load in loads]


def huggingface_loads(share: float) -> list[Load]:
    """As before the engine, but for what `transformers serve` would need minutes for."""
    return [load for load in engine_loads(share) if load.concurrency <= 32 and not load.rate_per_s]


def api_loads(share: float) -> list[Load]:
    """Every answer has 64 chunks or tokens, as the upstream's script says."""
    whole = Load(WHOLE_AT_1, False, NUM_CHUNKS, concurrency=1, lasts_s=1.5, fields=PLAIN)
    stream = replace(whole, name=CHUNKS_AT_1, stream=True)
    loads = [
        whole,
        replace(whole, name=WHOLE_AT_32, concurrency=32, lasts_s=2),
        stream,
        replace(stream, name=CHUNKS_AT_32, concurrency=32, lasts_s=2.5),
        replace(stream, name="64-chunk streams, c=128", concurrency=128, lasts_s=2.5),
        replace(whole, name="32 kB prompt, c=4", concurrency=4, prompt_bytes=32 * KILOBYTE),
        replace(whole, name="1 MB prompt, c=4", concurrency=4, prompt_bytes=MEGABYTE),
        replace(
            whole,
            name="whole answers, 80 arrivals/s",
            concurrency=8,
            lasts_s=3,
            rate_per_s=80,
        ),
    ]
    return [replace(load, lasts_s=load.lasts_s * share) for load in loads]
