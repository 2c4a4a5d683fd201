"""What was served, in numbers: requests and tokens by model and backend, as Prometheus counters.

Booked in the process, exported by Ray; no call leaves the router for it.
"""

from ray.serve import metrics

from deployments.exchange import Tail
from serve_app.directory import Application


class Ledger:
    """The router's books. Labels are model and backend of applications that exist, so bounded."""

    def __init__(self) -> None:
        labels = ("model", "backend")
        self._requests = metrics.Counter(
            "roundhouse_requests_total",
            description="Answers given, by HTTP status.",
            tag_keys=(*labels, "status"),
        )
        self._prompt_tokens = metrics.Counter(
            "roundhouse_prompt_tokens_total",
            description="Tokens of prompts, as the backends counted them.",
            tag_keys=labels,
        )
        self._completion_tokens = metrics.Counter(
            "roundhouse_completion_tokens_total",
            description="Tokens generated, as the backends counted them.",
            tag_keys=labels,
        )

    def book_answer(self, model: str, application: Application, status: int) -> None:
        """Books one answer."""
        tags = {"model": model, "backend": application.backend, "status": str(status)}
        self._requests.inc(tags=tags)

    def book_tokens(self, model: str, application: Application, tail: Tail) -> None:
        """Books what an answer cost."""
        tags = {"model": model, "backend": application.backend}
        if tail.prompt_tokens:
            self._prompt_tokens.inc(tail.prompt_tokens, tags=tags)
        if tail.completion_tokens:
            self._completion_tokens.inc(tail.completion_tokens, tags=tags)
