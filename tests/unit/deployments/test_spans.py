"""Spans as OpenTelemetry's SDK records them, and as nothing at all while tracing is off."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deployments import spans
from deployments.api import ApiBackend
from deployments.config import ApiConfig, ApiModel, EchoConfig
from deployments.errors import RoundhouseError
from deployments.exchange import Exchange, Item
from deployments.testing import EchoBackend
from serve_app.answering import told
from tests.plain_http import CHAT
from tests.upstream import Script, Upstream

TRACE, PARENT = "a" * 32, "b" * 16
HEADERS = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "a canary"}]}'
UNSEEN = """
import sys
import serve_app.account, serve_app.answering, deployments.api, deployments.testing
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
import serve_app.app
assert "serve_app.tracing" not in sys.modules
assert not [name for name in sys.modules if name.startswith("opentelemetry.exporter.otlp")]
"""


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    """Tracing is on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.turn_on(provider.get_tracer("test"))
    yield exporter
    spans.turn_off()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


def asking(body: bytes = BODY, trace: spans.TraceHeaders = HEADERS) -> Exchange:
    return Exchange(CHAT, body, "id-1", "m", trace=trace)


async def answer(base_url: str, request: Exchange) -> list[Item]:
    """Of a started API backend, to the end or its error."""
    model = ApiModel(upstream_model="up", base_url=base_url, api_key_env=None)
    backend = ApiBackend("api", ApiConfig(models={"m": model}))
    await backend.start()
    try:
        return [item async for item in told(backend, request)]
    except RoundhouseError:
        return []
    finally:
        await backend.stop()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent_of(span: ReadableSpan) -> str:
    assert span.parent is not None
    return format(span.parent.span_id, "016x")


async def test_backend_and_upstream(exported: InMemorySpanExporter, upstream: Upstream) -> None:
    """The backend's span is below the one that the exchange names, the upstream's call below it,
    and the upstream is told that it is below that; no text of the prompt is in any."""
    await answer(upstream.url, asking())
    backend, call = by_name(exported)["chat m"], by_name(exported)["chat up"]
    assert parent_of(backend) == PARENT
    assert parent_of(call) == format(backend.context.span_id, "016x")
    told_upstream = upstream.received[0].headers["traceparent"]
    assert told_upstream == f"00-{TRACE}-{call.context.span_id:016x}-01"
    for span in (backend, call):
        assert span.attributes is not None
        assert span.attributes["gen_ai.usage.input_tokens"] == 5
        assert span.attributes["gen_ai.usage.output_tokens"] == 2
        assert "canary" not in span.to_json()


@pytest.mark.parametrize(
    ("status", "error"), [(500, "500"), (None, "ClientConnectorError"), (200, "upstream_error")]
)
async def test_a_failed_call(
    exported: InMemorySpanExporter, upstream: Upstream, status: int | None, error: str
) -> None:
    """A call that fails is marked, with why."""
    if status is not None:
        upstream.scripts["up"] = Script((b"{",), status=status)
    await answer(upstream.url if status else "http://127.0.0.1:1", asking())
    call = by_name(exported)["chat up"]
    assert not call.status.is_ok
    assert call.attributes is not None
    assert call.attributes["error.type"] == error


async def test_a_backend_that_fails(exported: InMemorySpanExporter) -> None:
    """A backend's error marks its span, with the code that the client is told."""
    body = BODY.replace(b"a canary", b"[[overload]]")
    with pytest.raises(RoundhouseError):
        _ = [i async for i in told(EchoBackend("m", EchoConfig()), asking(body))]
    span = by_name(exported)["chat m"]
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 429
    assert span.attributes["gen_ai.provider.name"] == "echo"


async def test_what_is_not_traced(exported: InMemorySpanExporter, upstream: Upstream) -> None:
    """While tracing is on, a request that is not traced has no spans, and no header goes up."""
    assert await answer(upstream.url, asking(trace=()))
    assert exported.get_finished_spans() == ()
    assert "traceparent" not in upstream.received[0].headers


def test_the_client_s_trace_goes_on(exported: InMemorySpanExporter) -> None:
    """What is around a request is its parent where it is of the client's trace, or the client has
    none. Where a proxy has begun another the client's goes on, if it is recorded."""
    tracer = TracerProvider().get_tracer("serve")
    recorded, unrecorded = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
    state = {"tracestate": "vendor=1"}
    with tracer.start_as_current_span("of another trace") as other:
        theirs = f"{other.get_span_context().trace_id:032x}"
        assert theirs in dict(spans.around({}))["traceparent"]
        assert theirs in dict(spans.around({"traceparent": "nonsense"}))["traceparent"]
        sent = {"traceparent": recorded, **state}
        assert dict(spans.around(sent)) == sent
        assert spans.around({"traceparent": unrecorded}) == ()
        mine = {"traceparent": f"00-{theirs}-{PARENT}-01"}
        assert f"{other.get_span_context().span_id:016x}" in dict(spans.around(mine))["traceparent"]
    assert spans.around({}) == ()


async def test_off_is_nothing(upstream: Upstream) -> None:
    """While tracing is off there are no spans at all, whatever the exchange says."""
    assert spans.begin("a", "server", HEADERS, {}) is spans.NO_SPAN
    assert spans.around(dict(HEADERS)) == ()
    assert await answer(upstream.url, asking())
    assert "traceparent" not in upstream.received[0].headers


def test_off_imports_nothing() -> None:
    """Nothing of ours imports OpenTelemetry while tracing is off (Serve itself does, where it is
    installed), and nothing at all the exporter."""
    subprocess.run([sys.executable, "-c", UNSEEN], check=True, timeout=120)
