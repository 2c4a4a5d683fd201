"""Traces for OpenTelemetry, through Serve's hook: it calls `exporter` in each of its processes.

    tracing_config: {enabled: true, exporter_import_path: serve_app.tracing:exporter}

in serve_config.yaml turns them on. Where spans go, and all else, is said by OpenTelemetry's own
environment variables, OTEL_EXPORTER_OTLP_ENDPOINT for one. Without it nothing here is imported.
"""

import os

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from deployments import spans

SERVICE = "roundhouse"
MISSING = "tracing needs the OTLP exporter: pip install 'roundhouse[tracing]'"


def exporter() -> list[SpanProcessor]:
    """For Serve: what takes spans, its own and ours, and sends them by OTLP over HTTP, in batches
    and from a thread of its own. A collector that does not answer costs spans, not requests.

    Raises: ImportError where the exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as exc:
        raise ImportError(MISSING) from exc
    # Read when Serve makes its provider, which it does next.
    os.environ.setdefault("OTEL_SERVICE_NAME", SERVICE)
    spans.turn_on()
    return [BatchSpanProcessor(OTLPSpanExporter())]
