"""What the router says of its applications, and how it changes: the lines told during a start."""

from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException

from pydantic import BaseModel, ValidationError

from serve_app.launch.plan import Plan

TIMEOUT_S = 2.0
SETTLED = {"running", "cold", "failed"}


class Loading(BaseModel):
    """A replica that is being loaded."""

    stage: str
    percent: float | None = None
    total_bytes: int = 0

    @property
    def described(self) -> str:
        """What it is doing, and how far it is in tenths: finer would be too many lines."""
        if self.percent is None:
            return self.stage
        return f"{self.stage}, {self.percent // 10 * 10:.0f} % of {self.total_bytes / 1e9:.1f} GB"


class Row(BaseModel):
    """One application of the router's list for operators."""

    application: str
    models: list[str]
    backend: str
    state: str
    reason: str | None = None
    loading: list[Loading] = []

    @property
    def described(self) -> str:
        """Its state, and how far it is or the reason, where there is one."""
        if self.state == "warming" and self.loading:
            return f"{self.state}: {self.loading[0].described}"
        return f"{self.state}: {self.reason}" if self.reason else self.state


class Listed(BaseModel):
    """The router's answer to GET /-/models."""

    applications: list[Row]


def ask(plan: Plan) -> list[Row]:
    """The applications that the router knows; none while it does not answer."""
    # Not through urllib: it would ask the proxy that the environment may name.
    connection = HTTPConnection(plan.reachable_host, plan.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/-/models", headers=_key(plan))
        return Listed.model_validate_json(connection.getresponse().read()).applications
    except (OSError, HTTPException, ValidationError):  # HAProxy, still without a router, has pages
        return []
    finally:
        connection.close()


def _key(plan: Plan) -> dict[str, str]:
    """The first of the clients' keys, where the router asks for one."""
    key = plan.api_keys.partition(",")[0].strip()
    return {"authorization": f"Bearer {key}"} if key else {}


class Progress:
    """The start of the applications that a file names, as it was last seen."""

    def __init__(self, applications: Sequence[str]) -> None:
        self._states = dict.fromkeys(applications, "")
        self._described: dict[str, str] = {}
        self.rows: list[Row] = []

    @property
    def missing(self) -> list[str]:
        """The applications that neither run nor have failed."""
        return [name for name, state in self._states.items() if state not in SETTLED]

    def update(self, rows: Sequence[Row], elapsed_s: float) -> Iterator[str]:
        """A line for each application whose state, or how far it is, has changed since."""
        self.rows = list(rows) or self.rows
        for row in rows:
            changed = self._states.get(row.application) != row.state
            moved = bool(row.loading) and self._described.get(row.application) != row.described
            self._states[row.application] = row.state
            self._described[row.application] = row.described
            if changed or (row.state == "warming" and moved):
                yield _line(row, elapsed_s)


def _line(row: Row, elapsed_s: float) -> str:
    who = f"{row.application} ({row.backend})"
    if row.state == "running":
        return f"{who}: running after {elapsed_s:.0f} s"
    return f"{who}: {row.described}"
