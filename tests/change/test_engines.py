"""vLLM's real engine under the same traffic, while its model is scaled down and rolled. -m slow."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import psutil
import pytest
import ray

from tests.change.answers import DONE, Asked, Outcome
from tests.change.conftest import Changing
from tests.change.traffic import Load, traffic
from tests.integration.instance import START_S, Instance, shipped_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG_TOKENS = 400
ENGINES = ("VLLM::EngineCore", "VLLM::Worker")


@dataclass(frozen=True, slots=True)
class Counting(Asked):
    """Asks the demo to count, up to a number that tells answers apart; a long one for so many
    tokens, whatever they say."""

    @property
    def is_long(self) -> bool:
        return self.num_words == LONG_TOKENS

    @property
    def body(self) -> dict[str, Any]:
        last = 40 if self.is_long else self.num_words
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"Count from 1 to {last}."}],
            "stream": self.stream,
            "temperature": 0,
        }
        if self.is_long:
            body |= {"ignore_eos": True, "max_tokens": LONG_TOKENS}
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        return body

    @property
    def text(self) -> str:
        return ", ".join(str(number) for number in range(1, self.num_words + 1))


class Counts(Load):
    """Every tenth is a long stream."""

    def requests(self) -> Iterator[Asked]:
        for number in count():
            long = number % 10 == 0
            num_words = LONG_TOKENS if long else (10, 20, 30, 40)[number % 4]
            yield Counting(self.models[0], long or number % 2 == 0, num_words, 0)


def engine_judged(asked: Asked, status: int, body: bytes, complete: bool) -> Outcome:
    """By its text, its end, and the tokens that it says it has."""
    assert isinstance(asked, Counting)
    if status != 200:
        return Outcome(asked, "refused", f"{status} {body[:200]!r}")
    return (_stream if asked.stream else _whole)(asked, body, complete)


def _whole(asked: Counting, body: bytes, complete: bool) -> Outcome:
    if not complete:
        return Outcome(asked, "cut", f"after {len(body)} bytes")
    choice = json.loads(body)["choices"][0]
    good = choice["message"]["content"].strip() == asked.text
    return Outcome(asked, "good" if good else "wrong", str(choice))


def _stream(asked: Counting, body: bytes, complete: bool) -> Outcome:
    *frames, _ = [frame for frame in body.split(b"\n\n") if not frame.startswith(b":")]
    if any(frame.startswith(b'data: {"error"') for frame in frames):
        return Outcome(asked, "broken", frames[-1].decode()[:200])
    if not complete or DONE not in frames[-1:]:
        return Outcome(asked, "truncated" if complete else "cut", f"{body[-80:]!r}")
    events = [json.loads(frame.removeprefix(b"data: ")) for frame in frames[:-1]]
    if asked.is_long:
        used = events[-1]["usage"]["completion_tokens"]
        return Outcome(asked, "good" if used == LONG_TOKENS else "truncated", f"{used} tokens")
    said = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
    return Outcome(asked, "good" if said.strip() == asked.text else "wrong", said)


# An engine's start and two engines at once are slow where cores are few.
LOAD = Counts(["demo"], rate_per_s=0.7, judge=engine_judged, limit_s=300)


@pytest.fixture
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changing]:
    """Two replicas of the demo on vLLM, as shipped but for their number."""
    config = shipped_config()
    router, demo = config["applications"][:2]
    router["deployments"][0]["user_config"] = {"hold_s": 300, "max_held_requests": 4000}
    demo["args"] |= {"num_cpus": 0.1, "max_ongoing_requests": 400}
    demo["deployments"] = [{"name": "vllm", "num_replicas": 2}]
    config["applications"] = [router, demo]
    config["logging_config"]["encoding"] = "JSON"
    # Two engines that both bind their threads would take the same cores.
    environment = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    instance = Instance(tmp_path_factory.mktemp("engines"), config, environment)
    try:
        instance.start()
        yield Changing(instance)
    finally:
        ray.shutdown()
        instance.stop()


def engines(changing: Changing) -> set[int]:
    """The processes of vLLM's engines."""
    named = {p.pid: " ".join(p.info["cmdline"] or ()) for p in changing.instance.processes()}
    return {pid for pid, name in named.items() if name.startswith(ENGINES)}


def engine_lines(changing: Changing) -> list[dict[str, Any]]:
    """What vLLM's engines have logged, from where Ray keeps it: as JSON, and never as text."""
    texts = [file.read_text() for file in changing.instance.logs.glob("worker-*.out")]
    assert not any("(EngineCore pid=" in text for text in texts)
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line[:1] == "{"]
    return [line for line in lines if line.get("engine_process") == "EngineCore"]


def test_engines_come_and_go(changing: Changing) -> None:
    """While one of two replicas goes, and the other is put in its own place, every answer is whole
    and right, of long streams too; each takes its engine and its worker with it. So does one that
    is killed. What the engines log is JSON, as `logging_config` says, with whose it is."""
    changing.instance.wait(lambda: changing.replicas("demo") == {"RUNNING": 2}, START_S)
    before = engines(changing)
    num_each = len(before) // 2  # the core, and its worker where it has one
    assert num_each > 0
    changed = changing.applications
    with traffic(changing.url, LOAD) as seen:
        changing.instance.wait(lambda: seen.count("good") > 5 and seen.num_open > 0, 240)
        changed["demo"]["deployments"][0]["num_replicas"] = 1
        changing.deploy(changed)
        changing.instance.wait(lambda: changing.replicas("demo") == {"RUNNING": 1}, 240)
        left = engines(changing)
        assert left < before
        assert len(left) == num_each
        changed["demo"]["args"]["max_ongoing_requests"] = 401
        changing.deploy(changed)
        changing.instance.wait(lambda: not left & engines(changing), 240)
        changing.instance.wait(lambda: changing.replicas("demo") == {"RUNNING": 1}, 240)
        good = seen.count("good")
        changing.instance.wait(lambda: seen.count("good") > good + 10, 240)
    assert seen.bad == []
    assert {line["application"] for line in engine_lines(changing)} == {"demo"}
    assert sum(isinstance(o.asked, Counting) and o.asked.is_long for o in seen.outcomes) > 3
    old = [psutil.Process(pid) for pid in engines(changing)]
    (replica,) = changing.pids("demo")
    os.kill(replica, signal.SIGKILL)
    _, alive = psutil.wait_procs(old, timeout=10)
    assert [process for process in alive if process.is_running()] == []
