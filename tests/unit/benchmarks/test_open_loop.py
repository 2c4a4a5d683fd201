import asyncio
import time

import pytest

from benchmarks.open_loop import open_loop, poisson_arrivals_s


def test_every_server_gets_the_same_arrivals() -> None:
    """The same seed gives the same times, in order and within the time; another seed, others."""
    arrivals_s = poisson_arrivals_s(50, lasts_s=4, seed=5)
    assert arrivals_s == poisson_arrivals_s(50, lasts_s=4, seed=5) == sorted(arrivals_s)
    assert arrivals_s != poisson_arrivals_s(50, lasts_s=4, seed=6)
    assert arrivals_s[0] > 0
    assert arrivals_s[-1] < 4


def test_arrivals_are_poisson_at_the_rate() -> None:
    """The gaps have the mean of the rate, and spread as far as an exponential's."""
    arrivals_s = poisson_arrivals_s(200, lasts_s=100, seed=5)
    gaps_s = [after - before for before, after in zip([0, *arrivals_s], arrivals_s, strict=False)]
    mean_s = sum(gaps_s) / len(gaps_s)
    assert mean_s == pytest.approx(1 / 200, rel=0.03)
    variance = sum((gap - mean_s) ** 2 for gap in gaps_s) / len(gaps_s)
    assert variance**0.5 == pytest.approx(mean_s, rel=0.05)


async def test_no_request_waits_for_an_earlier_answer() -> None:
    """A server that answers nothing is still asked all there is, when it is due."""
    all_asked = asyncio.Event()
    asked: list[int] = []

    async def ask(number: int, due_s: float) -> int:
        asked.append(number)
        if len(asked) == 3:
            all_asked.set()
        await all_asked.wait()
        return number

    _, outcomes = await open_loop(ask, [0.0, 0.001, 0.002])
    assert outcomes == [0, 1, 2]


async def test_latency_counts_from_when_a_request_was_due() -> None:
    """A client that was held up tells `ask` the time that was meant, not the time that it is."""
    late_s: list[float] = []

    async def ask(number: int, due_s: float) -> None:
        late_s.append(time.perf_counter() - due_s)
        if number == 0:
            time.sleep(0.05)  # noqa: ASYNC251 - the client itself is held up

    await open_loop(ask, [0.0, 0.01, 0.02])
    assert late_s[1] > 0.03
    assert late_s[2] > 0.02


async def test_nothing_is_asked_before_it_is_due() -> None:
    """The loop waits for the arrival."""
    early: list[bool] = []

    async def ask(number: int, due_s: float) -> None:
        early.append(time.perf_counter() < due_s)

    await open_loop(ask, [0.0, 0.02, 0.03])
    assert early == [False, False, False]
