"""The bars that issue 5 sets, as ratios within one run, and whether they are met."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.bars import STREAMS_AT_1, STREAMS_AT_32, Bar
from benchmarks.peers import contenders as who
from benchmarks.peers import loads
from benchmarks.peers.figures import pairs_of, ratios_of
from benchmarks.peers.measure import PathFound
from benchmarks.stacks import BARE, OURS
from benchmarks.summary import Record


@dataclass(frozen=True, slots=True)
class Goal:
    """A bar before it is measured: ours against `theirs`, as a ratio or as a difference in ms."""

    name: str
    limit: float
    theirs: str
    load: str
    figure: str
    at_most: bool = False
    difference: bool = False

    def measured(self, records: Sequence[Record]) -> list[float]:
        """One value for each repetition."""
        where = (self.theirs, self.load, self.figure)
        if self.difference:
            pairs = pairs_of(records, OURS, *where)
            return [ours - theirs for ours, theirs in pairs]
        return ratios_of(records, OURS, *where)


RATE, FIRST = "requests_per_s", "first_token_p50_ms"
PER_TOKEN = "cpu_s_per_100k_tokens"
LLM, LITELLM = who.SERVE_LLM, who.LITELLM_PROXY

GOALS = {
    "engine": (
        Goal("64-token streams, c=32, of bare vLLM's", 1.0, BARE, STREAMS_AT_32, RATE),
        Goal("1-token answers, c=32, of bare vLLM's", 0.8, BARE, loads.UNARY_AT_32, RATE),
        Goal(
            "first token, c=1, after bare vLLM's (p50)",
            1.5,
            BARE,
            STREAMS_AT_1,
            FIRST,
            at_most=True,
            difference=True,
        ),
        Goal("64-token streams, c=32, of Ray Serve LLM's", 2, LLM, STREAMS_AT_32, RATE),
        Goal("1-token answers, c=32, of Ray Serve LLM's", 4, LLM, loads.UNARY_AT_32, RATE),
        Goal(
            "CPU s per 100,000 streamed tokens, c=32, of Ray Serve LLM's",
            0.4,
            LLM,
            STREAMS_AT_32,
            PER_TOKEN,
            at_most=True,
        ),
    ),
    "api": (
        Goal("whole API answers/s, c=32, of LiteLLM's", 8, LITELLM, loads.WHOLE_AT_32, RATE),
        Goal("API chunks/s, c=32, of LiteLLM's", 20, LITELLM, loads.CHUNKS_AT_32, "chunks_per_s"),
        Goal(
            "API first byte, c=1, after the upstream's (p50)",
            2,
            who.NONE,
            loads.CHUNKS_AT_1,
            FIRST,
            at_most=True,
            difference=True,
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar with the lowest and the highest of its repetitions."""

    bar: Bar
    lowest: float | None
    highest: float | None


def judged(found: PathFound) -> list[Judged]:
    """Every bar of the path; one whose loads or contender did not run is not met."""
    bars = [_judged(goal, found.records) for goal in GOALS.get(found.path, ())]
    mine = sum(count for (name, *_), count in found.failures.items() if name == OURS)
    return [*bars, Judged(Bar("requests of ours that failed", 0, mine, ""), None, None)]


def _judged(goal: Goal, records: Sequence[Record]) -> Judged:
    values = goal.measured(records)
    unit = "ms" if goal.difference else "x"
    measured = median(values) if values else None
    bar = Bar(goal.name, goal.limit, measured, unit, goal.at_most)
    return Judged(bar, min(values, default=None), max(values, default=None))
