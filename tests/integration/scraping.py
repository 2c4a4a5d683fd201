"""What Prometheus reads of the instance under test."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.integration.conftest import Roundhouse


def scraped(roundhouse: Roundhouse) -> Iterator[Sample]:
    """Every sample of every address in the file where Ray tells Prometheus what to scrape."""
    for group in json.loads(roundhouse.discovery_file.read_text()):
        for address in group["targets"]:
            for family in text_string_to_metric_families(told_by(address)):
                yield from family.samples


def told_by(address: str) -> str:
    """Nothing, where nobody listens: two Rays of one machine name the same autoscaler's address,
    and it is gone with the first of them."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""


def value(samples: Sequence[Sample], name: str, **labels: str) -> float:
    """The sum of the series that have these labels."""
    wanted = labels.items()
    return sum(s.value for s in samples if s.name == name and wanted <= s.labels.items())
