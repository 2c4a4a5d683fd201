"""Commercial APIs, and any server that speaks OpenAI's protocol: passed through, byte for byte.

The request goes up with `model` replaced by the upstream's name; the answer comes down untouched.
Keys are read here, on the replica, and go nowhere but to the upstream they belong to. Redirects
are not followed and URLs come from the configuration only, so a key cannot be led elsewhere.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployments import spans
from deployments.body import with_fields
from deployments.config import ApiConfig, ApiModel
from deployments.errors import (
    BackendUnavailable,
    ModelNotFound,
    UnsupportedEndpoint,
    UpstreamError,
    UpstreamNotConfigured,
)
from deployments.exchange import JSON, Exchange, Item, ModelCard, Tail
from deployments.load import Load
from deployments.progress import Report, unreported
from deployments.relay import relay

if TYPE_CHECKING:
    import aiohttp

READ_BUFFER_BYTES = 1 << 18
PROVIDERS = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where one model is, resolved from the environment. Never logged: it holds the key."""

    base_url: str
    model: str
    key: str | None

    def headers(self, request: Exchange) -> dict[str, str]:
        """What the upstream is sent. Of the client's headers only the request's id is passed on,
        and the trace it belongs to, if it is traced."""
        headers = {
            "content-type": JSON,
            "x-client-request-id": request.request_id,  # OpenAI's name for it
            "x-request-id": request.request_id,  # everybody else's
            **dict(request.trace),
        }
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        return headers

    def span(self, request: Exchange) -> spans.Span:
        """The call of the upstream, as part of the request's trace."""
        if not request.trace:
            return spans.NO_SPAN
        operation = spans.operation(request.path)
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": self.model,
            **_server(self.base_url),
        }
        return spans.begin(f"{operation} {self.model}", "client", request.trace, attributes)

    def without_key(self, text: bytes) -> bytes:
        """What an upstream says may quote the key it was sent, as errors do."""
        return text.replace(self.key.encode(), b"[redacted]") if self.key else text


def upstream_from_environment(
    name: str, model: ApiModel, environment: Mapping[str, str]
) -> Upstream:
    """Raises: UpstreamNotConfigured, naming the variable that is missing."""
    base_url = environment.get(model.base_url_env or "") or model.base_url
    key = environment.get(model.api_key_env, "").strip() if model.api_key_env else None
    if model.api_key_env and not key:
        raise UpstreamNotConfigured(
            f"The model {name} needs the environment variable {model.api_key_env}, "
            "which is not set where its backend runs."
        )
    return Upstream(base_url.rstrip("/"), model.upstream_model, key)


def _server(base_url: str) -> spans.Attributes:
    """Who is called; nothing for what is no URL, as will be found out soon enough."""
    try:
        url = urlsplit(base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return {}
    host = url.hostname or ""
    provider = PROVIDERS.get(host, host)
    return {"gen_ai.provider.name": provider, "server.address": host, "server.port": port}


class ApiBackend:
    """Several models of commercial APIs on one connection pool."""

    def __init__(self, model_id: str, config: ApiConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._num_running = 0

    def card(self) -> ModelCard:
        return ModelCard(backend="api", models=tuple(self._config.models))

    @property
    def num_running(self) -> int:
        return self._num_running

    def load(self) -> Load:
        return Load(self._num_running)

    async def start(self, report: Report = unreported) -> None:
        import aiohttp

        from deployments import reuse

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._config.max_connections),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_timeout_s),
            read_bufsize=READ_BUFFER_BYTES,
            # Bytes pass untouched, so they must not be compressed for us.
            headers={"accept-encoding": "identity", "user-agent": "roundhouse"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[reuse.noting_reuse()],
        )

    async def stop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def check_health(self) -> None:
        """The replica is well whenever it runs: an upstream's failure is not its own."""

    async def exchange(self, request: Exchange) -> AsyncGenerator[Item, None]:
        import aiohttp

        upstream = self._upstream(request)
        span = upstream.span(request)
        self._num_running += 1
        try:
            async with await self._post(upstream, replace(request, trace=span.headers)) as response:
                span.set({"http.response.status_code": response.status})
                if response.status >= 400:
                    span.fail(str(response.status))
                async for item in relay(response, upstream.without_key):
                    if isinstance(item, Tail):
                        span.set(spans.usage(item.prompt_tokens, item.completion_tokens))
                    yield item
        except UpstreamError as exc:
            span.fail(str(exc.code))
            raise
        except (TimeoutError, aiohttp.ClientError, OSError) as exc:
            # The library's text names hosts and addresses: the type is enough for a client.
            reason = type(exc).__name__
            span.fail(reason)
            raise UpstreamError(f"The upstream of {request.model} failed: {reason}.") from None
        finally:
            self._num_running -= 1
            span.end()

    def _upstream(self, request: Exchange) -> Upstream:
        """Who answers. Raises: ModelNotFound, UnsupportedEndpoint, UpstreamNotConfigured."""
        model = self._config.models.get(request.model)
        if model is None:
            raise ModelNotFound(f"The model {request.model[:200]} does not exist.", param="model")
        if request.path not in self._config.paths:
            raise UnsupportedEndpoint(f"API models do not answer {request.path}.")
        return upstream_from_environment(request.model, model, os.environ)

    async def _post(self, upstream: Upstream, request: Exchange) -> "aiohttp.ClientResponse":
        from deployments import reuse

        if self._session is None:
            raise BackendUnavailable("The API backend is not running.")
        return await reuse.post(
            self._session,
            upstream.base_url + request.path.removeprefix("/v1"),
            data=with_fields(request.body, model=upstream.model),
            headers=upstream.headers(request),
            allow_redirects=False,
        )
