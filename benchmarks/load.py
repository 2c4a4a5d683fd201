"""One load on one server: chat requests over real HTTP with keep-alive, timed by the client.

Knows nothing of what it measures. A request that fails is a sample like any other, with the reason
in it: none is repeated and none is dropped.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import msgspec

from benchmarks.closed_loop import closed_loop
from benchmarks.token_times import TokenTimes

REQUEST_LIMIT_S = 30.0
READ_BUFFER_BYTES = 1 << 18
NUM_WARM_UP_ROUNDS = 2
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop of `concurrency` clients, each answer exactly `max_tokens` long."""

    name: str
    stream: bool
    max_tokens: int
    concurrency: int
    num_requests: int

    def body(self, number: int) -> bytes:
        """Special tokens are shown, so that a model that has said its all still sends text."""
        request: dict[str, Any] = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"Tell me about the number {number}."}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "skip_special_tokens": False,
        }
        if self.stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return msgspec.json.encode(request)


@dataclass(slots=True)
class Sample:
    """One request as its client saw it; the first token's time counts from when it was sent."""

    answer_s: float = 0.0
    first_token_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    num_tokens: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A load that has been run once."""

    load: Load
    elapsed_s: float
    samples: list[Sample]

    @property
    def good(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.failure is None]

    @property
    def failures(self) -> Mapping[str, int]:
        """How many requests failed, by reason; those that there was no time for are among them."""
        counts = Counter(sample.failure for sample in self.samples if sample.failure)
        if missing := self.load.num_requests - len(self.samples):
            counts["not asked in time"] = missing
        return dict(counts)


class Client:
    """The clients of one load on one server, and their connections, while it is entered."""

    def __init__(self, url: str, load: Load) -> None:
        self._url = url + PATH
        self._load = load

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=REQUEST_LIMIT_S),
            headers={"content-type": "application/json"},
            read_bufsize=READ_BUFFER_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def warm_up(self) -> None:
        """Opens every connection, and lets the server find its pace."""
        concurrency = self._load.concurrency
        await closed_loop(self._ask, NUM_WARM_UP_ROUNDS * concurrency, concurrency)

    async def measure(self) -> Run:
        load = self._load
        elapsed_s, samples = await closed_loop(self._ask, load.num_requests, load.concurrency)
        return Run(load, elapsed_s, samples)

    async def _ask(self, number: int) -> Sample:
        sample = Sample()
        body = self._load.body(number)
        sent_s = time.perf_counter()
        try:
            async with self._session.post(self._url, data=body) as response:
                if response.status != 200:
                    sample.failure = f"status {response.status}"
                elif self._load.stream:
                    await _read_stream(response, sample, sent_s)
                else:
                    await _read_whole(response, sample)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            sample.failure = type(error).__name__
        sample.answer_s = time.perf_counter() - sent_s
        if sample.failure is None and sample.num_tokens != self._load.max_tokens:
            sample.failure = f"{sample.num_tokens} tokens, not {self._load.max_tokens}"
        return sample


async def _read_stream(response: aiohttp.ClientResponse, sample: Sample, sent_s: float) -> None:
    times = TokenTimes()
    while piece := await response.content.readany():
        times.feed(piece, time.perf_counter())
    if not times.ended or not times.arrivals_s:
        sample.failure = "broken stream"
        return
    sample.first_token_s = times.arrivals_s[0] - sent_s
    sample.gaps_s = times.gaps_s()
    sample.num_tokens = times.num_tokens


async def _read_whole(response: aiohttp.ClientResponse, sample: Sample) -> None:
    answer = msgspec.json.decode(await response.read())
    sample.num_tokens = answer["usage"]["completion_tokens"]
