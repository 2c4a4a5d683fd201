"""JSON logs and traces of a real Serve instance: the router, an echo, and an API."""

from collections.abc import Mapping

import pytest
import pytest_asyncio

from tests.integration.launched.conftest import CLIENTS_SPAN, KEY, Observed
from tests.otlp_collector import Span
from tests.plain_http import CHAT, Answered, chat, post
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CANARIES = (KEY, "canary-prompt", "canary-model", "sk-canary-of-a-client")
LIMIT_S = 300  # of the whole test
NAMES = {f"POST {CHAT}", "chat echo", "chat gpt-4", "chat gpt-5.6-sol"}


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def streamed(observed: Observed) -> Answered:
    """A stream of the upstream's, asked for by way of a model that fails."""
    body = chat("[[fail]] canary-prompt", "echo", stream=True)
    answer: Answered = await observed.ask("id-1", "a" * 32, body)
    assert (answer.status, answer.headers["x-served-by"]) == (200, "gpt-4")
    return answer


async def test_one_trace(observed: Observed, streamed: Answered) -> None:
    """The client's trace goes on through router and backend to the upstream, each the parent of
    the next, with what the conventions for generative AI ask for."""
    await until(lambda: set(observed.collector.of("a" * 32)) >= NAMES)
    # Serve's own spans around the router's end after it, and may be told later.
    await until(lambda: _ancestor(observed.collector.of("a" * 32)) == CLIENTS_SPAN)
    spans = observed.collector.of("a" * 32)
    router, backend, call = spans["POST " + CHAT], spans["chat gpt-4"], spans["chat gpt-5.6-sol"]
    assert backend.parent_id == router.span_id
    assert call.parent_id == backend.span_id
    assert {span.service for span in spans.values()} == {"roundhouse"}
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
    }
    for span in (router, backend, call):
        assert {name: span.attributes[name] for name in expected} == expected
        assert not span.failed
    assert router.attributes["gen_ai.request.model"] == "echo"
    assert router.attributes["gen_ai.response.model"] == "gpt-4"
    assert router.attributes["roundhouse.request_id"] == "id-1"
    assert 0 < router.attributes["gen_ai.response.time_to_first_chunk"] < LIMIT_S
    assert call.attributes["server.port"] == int(observed.upstream.url.split(":")[2].split("/")[0])
    assert [name for name, _ in router.events] == [
        "roundhouse.attempt",
        "roundhouse.attempt_failed",
        "roundhouse.attempt",
        "gen_ai.first_token",
    ]
    assert spans["chat echo"].failed


def _ancestor(spans: Mapping[str, Span]) -> str:
    """The nearest parent of the router's span that is not of this trace's own spans."""
    parents = {span.span_id: span.parent_id for span in spans.values()}
    parent = spans["POST " + CHAT].parent_id
    while parent in parents:
        parent = parents[parent]
    return parent


async def test_the_trace_goes_through_serve_s_proxy(observed: Observed) -> None:
    """HAProxy sends what comes before it knows a router to a proxy of Serve's, which does not pass
    the client's trace on: it goes on all the same."""
    answer = await observed.ask("id-4", "e" * 32, chat("x", "echo"), observed.instance.fallback_url)
    assert answer.status == 200
    await until(lambda: {"POST " + CHAT, "chat echo"} <= set(observed.collector.of("e" * 32)))
    spans = observed.collector.of("e" * 32)
    assert spans["POST " + CHAT].parent_id == CLIENTS_SPAN
    assert spans["chat echo"].parent_id == spans["POST " + CHAT].span_id


async def test_the_upstream_is_told(observed: Observed, streamed: Answered) -> None:
    """The upstream can log the same id, and go on with the same trace."""
    received = observed.upstream.received[0].headers
    assert received["x-request-id"] == received["x-client-request-id"] == "id-1"
    await until(lambda: "chat gpt-5.6-sol" in observed.collector.of("a" * 32))
    call = observed.collector.of("a" * 32)["chat gpt-5.6-sol"]
    assert received["traceparent"] == f"00-{'a' * 32}-{call.span_id}-01"
    assert received["tracestate"] == "vendor=1"


async def test_json_lines(observed: Observed, streamed: Answered) -> None:
    """The request can be followed by its id through every hop, in lines of JSON with who, where,
    how it ended, how long it took and what it cost."""
    await until(lambda: len(observed.lines("id-1")) >= 3)
    lines = {line["application"]: line for line in observed.lines("id-1")}
    assert set(lines) == {"router", "echo", "api"}
    for line in lines.values():
        assert line["asctime"]
        assert line["timestamp_ns"]
        assert line["levelname"]
        assert line["node_id"]
        assert line["replica"]
        assert line["duration_s"] > 0
        assert line["model"] == ("gpt-4" if line["application"] == "api" else "echo")
    assert lines["router"]["served_by"] == "gpt-4"
    assert lines["router"]["attempts"] == 2
    assert lines["echo"]["error"] == "model_unavailable"
    assert lines["api"]["completion_tokens"] == lines["router"]["completion_tokens"] == 2
    assert len({line["node_id"] for line in lines.values()}) == 1


async def test_what_is_not_sampled(observed: Observed, streamed: Answered) -> None:
    """A client that traces but does not record this request gets no spans."""
    await until(lambda: "chat gpt-4" in observed.collector.of("a" * 32))
    headers = {"traceparent": f"00-{'b' * 32}-{CLIENTS_SPAN}-00"}
    await post(observed.instance.url + CHAT, chat("x", "gpt-4"), headers)
    assert "traceparent" not in observed.upstream.received[-1].headers
    await observed.ask("id-2", "c" * 32, chat("x", "echo"))
    await until(lambda: "POST " + CHAT in observed.collector.of("c" * 32))
    assert observed.collector.of("b" * 32) == {}


async def test_no_secret_anywhere(observed: Observed, streamed: Answered) -> None:
    """Neither a key nor what clients wrote is in any log file of the run, or in a span, whatever
    goes wrong."""
    for text in ("canary-prompt [[crash]]", "canary-prompt [[overload]]", "canary-prompt"):
        await observed.ask("id-3", "d" * 32, chat(text, "echo"))
    await observed.ask("id-3", "d" * 32, chat("x", "canary-model"))
    await observed.ask("id-3", "d" * 32, b'{"model": "echo", "messages": ["canary-prompt"')
    await until(lambda: len(observed.lines("id-3")) >= 8)
    texts = observed.instance.written() | {"spans": repr(observed.collector.spans)}
    found = [(name, word) for name, text in texts.items() for word in CANARIES if word in text]
    assert found == []
