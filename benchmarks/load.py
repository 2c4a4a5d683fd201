"""One load on one server: chat requests over real HTTP with keep-alive, timed by the client.

Knows nothing of what it measures. A request that fails is a sample like any other, with the reason
in it: none is repeated and none is dropped.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import msgspec

from benchmarks.closed_loop import LIMIT_S, closed_loop
from benchmarks.open_loop import open_loop, poisson_arrivals_s
from benchmarks.token_times import TokenTimes

REQUEST_LIMIT_S = 30.0
READ_BUFFER_BYTES = 1 << 18
NUM_WARM_UP_ROUNDS = 2
WARM_UP_LIMIT_S = 2.0
PATH = "/v1/chat/completions"


# Special tokens are shown, so that a model that has said its all still sends text.
ENDLESS = {"ignore_eos": True, "skip_special_tokens": False}
SEED = 5


@dataclass(frozen=True, slots=True)
class Load:
    """Answers exactly `max_tokens` long. A closed loop of `concurrency` clients: `num_requests`
    in all or, if that is None, as many as they can ask in `lasts_s`. With `rate_per_s` an open
    loop instead: requests arrive for `lasts_s`, and `concurrency` clients only warm it up.
    """

    name: str
    stream: bool
    max_tokens: int
    concurrency: int
    num_requests: int | None = None
    lasts_s: float = LIMIT_S
    rate_per_s: float | None = None
    prompt_bytes: int = 0  # at least
    model: str = "demo"
    fields: Mapping[str, Any] = field(default_factory=lambda: ENDLESS)  # of the request, besides
    ends_with_done: bool = True  # a stream; one of transformers' server ends with its usage

    def body(self, number: int) -> bytes:
        """The number comes first, so that no prompt begins as another does."""
        text = f"Tell me about the number {number}."
        text += " It is a number." * max(0, -(-(self.prompt_bytes - len(text)) // 16))
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            **self.fields,
        }
        if self.stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return msgspec.json.encode(request)

    def arrivals_s(self) -> list[float]:
        """When the requests of an open loop are due."""
        assert self.rate_per_s is not None
        return poisson_arrivals_s(self.rate_per_s, self.lasts_s, SEED)


@dataclass(slots=True)
class Sample:
    """One request as its client saw it; times count from when it was sent, or was due."""

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
        asked = self.load.num_requests
        if asked is not None and (missing := asked - len(self.samples)):
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
        num_requests = NUM_WARM_UP_ROUNDS * concurrency
        await closed_loop(self._ask, num_requests, concurrency, WARM_UP_LIMIT_S)

    async def measure(self) -> Run:
        load = self._load
        if load.rate_per_s is not None:
            return Run(load, *await open_loop(self._ask, load.arrivals_s()))
        found = await closed_loop(self._ask, load.num_requests, load.concurrency, load.lasts_s)
        return Run(load, *found)

    async def _ask(self, number: int, due_s: float | None = None) -> Sample:
        sample = Sample()
        body = self._load.body(number)
        began_s = time.perf_counter() if due_s is None else due_s
        try:
            await self._exchange(body, sample, began_s)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            sample.failure = type(error).__name__
        except (msgspec.DecodeError, KeyError, TypeError):
            sample.failure = "not a chat completion"
        sample.answer_s = time.perf_counter() - began_s
        if sample.failure is None and sample.num_tokens != self._load.max_tokens:
            sample.failure = f"{sample.num_tokens} tokens, not {self._load.max_tokens}"
        return sample

    async def _exchange(self, body: bytes, sample: Sample, began_s: float) -> None:
        async with self._session.post(self._url, data=body) as response:
            if response.status != 200:
                sample.failure = f"status {response.status}"
            elif self._load.stream:
                pieces = response.content.iter_any()
                await read_stream(pieces, sample, began_s, self._load.ends_with_done)
            else:
                read_whole(await response.read(), sample)


async def read_stream(
    pieces: AsyncIterator[bytes], sample: Sample, began_s: float, ends_with_done: bool = True
) -> None:
    """Times a stream of events as it comes."""
    times = TokenTimes()
    async for piece in pieces:
        times.feed(piece, time.perf_counter())
    ended = times.ended if ends_with_done else times.num_tokens > 0
    if not ended or not times.arrivals_s:
        sample.failure = "broken stream"
        return
    sample.first_token_s = times.arrivals_s[0] - began_s
    sample.gaps_s = times.gaps_s()
    sample.num_tokens = times.num_tokens


def read_whole(body: bytes, sample: Sample) -> None:
    """Raises: msgspec.DecodeError, KeyError or TypeError for what is no chat completion."""
    sample.num_tokens = msgspec.json.decode(body)["usage"]["completion_tokens"]
