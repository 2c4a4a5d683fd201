"""How many CPUs a rate takes, from files as the benchmarks write them."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.capacity import (
    API_STREAMED,
    API_WHOLE,
    STREAMED,
    WHOLE,
    Cost,
    StackCost,
    Wanted,
    cost_of,
    costs,
)

ROUTER, REPLICA = "ray::ServeReplica:router:Router", "ray::ServeReplica:demo:vllm"


def record(stack: str, load: str, repetition: int = 0, **cpu_s: float) -> dict[str, Any]:
    """One run of 1000 requests, with CPU seconds by process, as `peers` writes it."""
    titles = {"router": ROUTER, "replica": REPLICA, "engine": "VLLM::Worker"}
    used = {titles.get(name, name): s for name, s in cpu_s.items()}
    cpu = {"elapsed_s": 1.0, "client_s": 0.0, "others_s": 0.0, "stacks_s": {stack: used}}
    head = {"repetition": repetition, "stack": stack, "load": load, "num_requests": 1000}
    return {**head, "failures": {}, "figures": {}, "cpu": cpu}


PEERS = {
    "paths": [
        {
            "path": "engine",
            "records": [
                record("Roundhouse", WHOLE, router=1.0, replica=2.0, engine=50.0),
                record("Roundhouse", STREAMED, router=7.3, replica=8.3, engine=60.0),
                record("bare vLLM", WHOLE, engine=50.0),
            ],
        },
        {
            "path": "api",
            "records": [
                record("LiteLLM proxy", API_WHOLE, litellm=5.0, upstream=9.0),
                record("LiteLLM proxy", API_STREAMED, litellm=37.0, upstream=9.0),
                record("no gateway", API_WHOLE, upstream=9.0),
                record("no gateway", API_STREAMED, upstream=9.0),
            ],
        },
    ]
}


def test_what_a_request_and_a_token_cost() -> None:
    """Of two loads, what an answer of one token costs beyond its token is the request's, and what a
    stream costs beyond that is its tokens'."""
    assert cost_of(1.063, 1, 5.032, 64) == Cost(pytest.approx(1.0), pytest.approx(0.063))
    assert cost_of(5.0, 0, 37.0, 64) == Cost(5.0, 0.5)


def test_noise_makes_nothing_cheaper_than_free() -> None:
    """A process that happened to use less for streams costs nothing for a token, and not less."""
    assert cost_of(2.0, 1, 1.0, 64) == Cost(2.0, 0.0)


def test_stacks_are_read_from_what_peers_writes() -> None:
    """Every stack with both loads is there, process by process, without its engine; the loads are
    those of its path."""
    ours, litellm = costs(PEERS)
    assert (ours.path, ours.stack) == ("engine", "Roundhouse")
    assert ours.processes == {
        ROUTER: Cost(pytest.approx(0.0009), pytest.approx(0.0001)),
        REPLICA: Cost(pytest.approx(0.0019), pytest.approx(0.0001)),
    }
    assert (litellm.path, litellm.stack) == ("api", "LiteLLM proxy")
    assert litellm.processes == {"litellm": Cost(pytest.approx(0.005), pytest.approx(0.0005))}


def test_of_several_repetitions_the_median_counts() -> None:
    """A repetition that others have spoilt does not carry the result."""
    records = [
        record("Roundhouse", load, number, router=cpu_s)
        for load, seconds in ((WHOLE, (1.0, 1.0, 90.0)), (STREAMED, (7.3, 70.0, 7.3)))
        for number, cpu_s in enumerate(seconds)
    ]
    (ours,) = costs({"records": records})
    assert ours.processes[ROUTER].per_token_s == pytest.approx(0.0001)


def test_one_router_and_two_are_two_stacks() -> None:
    """What `scale` writes of its routers is read too."""
    routers = [
        {"num_routers": n, "load": load, "num_requests": 100, "cpu_s": {ROUTER: cpu_s}}
        for n in (1, 2)
        for load, cpu_s in ((WHOLE, 0.1), (STREAMED, 0.73))
    ]
    assert [cost.stack for cost in costs({"routers": routers})] == [
        "Roundhouse, routers: 1",
        "Roundhouse, routers: 2",
    ]


def test_cpus_to_provide() -> None:
    """Requests and tokens add up over the processes, and CPUs are left as idle as is asked; a
    process of Python has a CPU at most, so there are several of it."""
    cost = StackCost("engine", "ours", {"a": Cost(0.001, 0.0001), "b": Cost(0.002, 0.0)})
    wanted = Wanted(requests_per_s=1000, tokens_per_s=10_000, use=0.5)
    assert cost.cpus(1000, 10_000) == pytest.approx(4.0)
    assert wanted.cpus(cost) == pytest.approx(8.0)
    assert [wanted.replicas(one) for one in cost.processes.values()] == [4, 4]
    assert Wanted(1, 1).replicas(Cost(0.0, 0.0)) == 1


@pytest.fixture(autouse=True)
def _sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m benchmarks capacity FILE` prints the CPUs of every stack, and the routers."""
    file = tmp_path / "peers.json"
    file.write_text(json.dumps(PEERS))
    rates = ["--requests-per-s", "1000", "--tokens-per-s", "64000", "--use", "1"]
    assert main(["capacity", str(file), *rates]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if len(line.split()) > 4]
    rows = {line.rsplit(None, 4)[0]: line.split()[-4:] for line in lines}
    # 1000 answers of a token: 3 CPU seconds; 1000 streams of 64 tokens: 2.8 + 12.8.
    assert rows["engine: Roundhouse"] == ["2800", "200", "3.00", "15.6"]
    assert rows["api: LiteLLM proxy"] == ["5000", "500", "5.50", "37.0"]
    assert rows[f"engine: Roundhouse: {ROUTER}"] == ["900", "100", "1", "8"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"records": []}'])
def test_a_file_that_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """A file that is none of ours, or has no stack with both loads, is named."""
    file = tmp_path / "other.json"
    file.write_text(text)
    assert main(["capacity", str(file)]) == 1
    assert "other.json" in capsys.readouterr().err
