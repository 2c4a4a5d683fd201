"""Spans of a trace, through OpenTelemetry where whoever runs this process has turned it on.

While it is off, which is the default, a span costs a comparison, and OpenTelemetry is not imported.
Parents are named, never found around the code: an answer is a generator, read in any task. No text
of a prompt or an answer is ever put into a span.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

TraceHeaders = tuple[tuple[str, str], ...]  # W3C trace context: traceparent, and tracestate if any
Attributes = Mapping[str, str | bool | int | float]
Kind = Literal["server", "client"]

SCOPE = "roundhouse"
FLUSH_TIMEOUT_MS = 3000
# The names of https://opentelemetry.io/docs/specs/semconv/gen-ai/ for what a path asks for.
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
}


class Span(Protocol):
    """One span, recorded or not. After `end` nothing changes it any more."""

    @property
    def headers(self) -> TraceHeaders:
        """What whoever works for this span is sent; nothing while tracing is off."""

    def set(self, attributes: Attributes) -> None:
        """Adds attributes, or changes them."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Notes that something has happened now."""

    def fail(self, error_type: str) -> None:
        """Marks it as failed; `error_type` is of a small set, such as an error's code."""

    def end(self) -> None:
        """Its time is over."""


class NoSpan:
    """What there is while nothing is traced."""

    headers: TraceHeaders = ()

    def set(self, attributes: Attributes) -> None:
        pass

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        pass

    def fail(self, error_type: str) -> None:
        pass

    def end(self) -> None:
        pass


NO_SPAN = NoSpan()


class RecordedSpan:
    """One of OpenTelemetry's."""

    def __init__(self, span: "OtelSpan") -> None:
        self._span = span

    @property
    def headers(self) -> TraceHeaders:
        return _headers_of(self._span)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        self._span.add_event(name, attributes)

    def fail(self, error_type: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        self._span.end()


class _Tracing:
    """Whether this process traces, and with what."""

    tracer: "Tracer | None" = None


def turn_on(tracer: "Tracer | None" = None) -> None:
    """From now on this process traces; by default with OpenTelemetry's global provider, which may
    be set later."""
    from opentelemetry import trace

    _Tracing.tracer = tracer or trace.get_tracer(SCOPE)


def turn_off() -> None:
    _Tracing.tracer = None


def flush() -> None:
    """Sends what has not been sent yet; before the process ends. Blocks, for seconds at most."""
    if _Tracing.tracer is None:
        return
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):
        provider.force_flush(FLUSH_TIMEOUT_MS)


def begin(name: str, kind: Kind, parent: TraceHeaders, attributes: Attributes) -> Span:
    """A span below `parent`. Where there is no parent nothing is traced: whether a request is, is
    decided once, before the first of these spans."""
    if _Tracing.tracer is None or not parent:
        return NO_SPAN
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(dict(parent))
    return RecordedSpan(
        _Tracing.tracer.start_span(name, context, SpanKind[kind.upper()], attributes)
    )


def around(sent: Mapping[str, str]) -> TraceHeaders:
    """The span that whoever called this code has set around it, if any; the client's, of the
    headers that it `sent`, where what is around is of another trace. Serve's fallback proxy, which
    takes requests while HAProxy knows of no router, does not pass the client's on."""
    if _Tracing.tracer is None:
        return ()
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = trace.get_current_span()
    clients = trace.get_current_span(TraceContextTextMapPropagator().extract(dict(sent)))
    context = clients.get_span_context()
    if not context.is_valid or context.trace_id == found.get_span_context().trace_id:
        return _headers_of(found)
    return _headers_of(clients) if context.trace_flags.sampled else ()


def operation(path: str) -> str:
    """What a path asks a model for, in the words of the semantic conventions."""
    return OPERATIONS.get(path) or path.removeprefix("/v1/")


def usage(prompt_tokens: int, completion_tokens: int) -> Attributes:
    """What an answer cost."""
    return {
        "gen_ai.usage.input_tokens": prompt_tokens,
        "gen_ai.usage.output_tokens": completion_tokens,
    }


def _headers_of(span: "OtelSpan") -> TraceHeaders:
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, set_span_in_context(span))
    return tuple(headers.items())
