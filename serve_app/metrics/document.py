"""The table of metrics in cluster/metrics.md: `python -m serve_app.metrics.document` prints it."""

from collections.abc import Iterator

from serve_app.metrics.catalog import ALL, PREFIX, Metric


def table() -> str:
    """Every metric, as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "| metric | kind | unit | labels | meaning |"
    yield "|---|---|---|---|---|"
    for metric in ALL:
        yield _row(metric)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
    name = f"`{PREFIX}{metric.name}`"
    return f"| {name} | {metric.kind} | {metric.unit} | {labels} | {metric.meaning} |"


if __name__ == "__main__":
    print(table(), end="")
