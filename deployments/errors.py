"""Every error a client or an operator can meet.

RoundhouseError                  500  internal_error
├ RequestError                         the client must change the request
│ ├ InvalidRequest               400  invalid_value
│ │ └ ContextTooLong             400  context_length_exceeded
│ ├ InvalidApiKey                401  invalid_api_key
│ ├ ModelNotFound                404  model_not_found
│ ├ UnsupportedEndpoint          404  unsupported_endpoint
│ ├ UnknownPath                  404  unknown_url
│ ├ MethodNotAllowed             405  method_not_allowed
│ ├ RequestTimeout               408  request_timeout
│ ├ PayloadTooLarge              413  payload_too_large
│ ├ UnsupportedMediaType         415  unsupported_media_type
│ └ HeadersTooLarge              431  headers_too_large
├ BackendError                         another backend, or the same one later, may answer
│ ├ BackendOverloaded            429  rate_limit_exceeded
│ ├ UpstreamError                502  upstream_error
│ ├ UpstreamNotConfigured        503  upstream_not_configured
│ ├ BackendUnavailable           503  model_unavailable
│ │ ├ ModelWarming               503  model_warming
│ │ ├ NotTaken                   503  model_unavailable
│ │ ├ ReplicaDied                503  model_unavailable
│ │ └ WeightsLost                503  weights_lost
│ └ BackendTimeout               504  timeout
└ StartError                     503  model_failed_to_start

Each takes its message first and by position, so that it survives pickling between actors. Answers
use `message`, never `str(exc)`: across Ray that is a traceback.
"""

from typing import ClassVar

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"


class RoundhouseError(Exception):
    """Something went wrong that nobody foresaw. `message` is for clients: it names no internals."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = SERVER_ERROR
    default_code: ClassVar[str | None] = "internal_error"

    def __init__(
        self,
        message: str = "The server had an error while processing your request.",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, param, code, retry_after_s)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """The message alone, which is what Serve shows an operator of an error at the start."""
        return self.message


class RequestError(RoundhouseError):
    """The request cannot be answered as it is: sending it again, or elsewhere, will not help."""

    status = 400
    type = INVALID_REQUEST


class InvalidRequest(RequestError):
    """A value is missing, of the wrong type, or out of range; `param` says which."""

    default_code = "invalid_value"


class ContextTooLong(InvalidRequest):
    """Prompt and answer together are longer than the model's context."""

    default_code = "context_length_exceeded"


class InvalidApiKey(RequestError):
    """The client's key is missing or unknown."""

    status = 401
    default_code = "invalid_api_key"


class ModelNotFound(RequestError):
    """No application, alias or API model has this name."""

    status = 404
    default_code = "model_not_found"


class UnsupportedEndpoint(RequestError):
    """The model is there, but its backend does not answer this path."""

    status = 404
    default_code = "unsupported_endpoint"


class UnknownPath(RequestError):
    """No such URL."""

    status = 404
    default_code = "unknown_url"


class MethodNotAllowed(RequestError):
    """The URL is there, but not with this HTTP method; `allow` is the one it takes."""

    status = 405
    default_code = "method_not_allowed"

    def __init__(self, message: str, allow: str = "POST") -> None:
        super().__init__(message)
        self.args = (message, allow)
        self.allow = allow


class RequestTimeout(RequestError):
    """The client took too long to send its request."""

    status = 408
    default_code = "request_timeout"


class PayloadTooLarge(RequestError):
    """The body is larger than the router accepts."""

    status = 413
    default_code = "payload_too_large"


class UnsupportedMediaType(RequestError):
    """The body is not JSON, or is compressed."""

    status = 415
    default_code = "unsupported_media_type"


class HeadersTooLarge(RequestError):
    """The headers are more than any client of ours would send."""

    status = 431
    default_code = "headers_too_large"


class BackendError(RoundhouseError):
    """The backend could not answer; before the first byte the router tries the next one."""

    status = 503
    default_code = "model_unavailable"


class BackendOverloaded(BackendError):
    """The queue is full. `retry_after_s` says when to come back."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class UpstreamError(BackendError):
    """A commercial API could not be reached, or broke off its answer."""

    status = 502
    default_code = "upstream_error"


class UpstreamNotConfigured(BackendError):
    """An environment variable that the upstream needs is not set on the replica."""

    default_code = "upstream_not_configured"


class BackendUnavailable(BackendError):
    """No replica can answer now."""


class ModelWarming(BackendUnavailable):
    """The model is starting, which is no failure. `retry_after_s` is when it is thought to run."""

    default_code = "model_warming"


class NotTaken(BackendUnavailable):
    """No replica took the request in time, and the call was ended: it may be sent again."""


class ReplicaDied(BackendUnavailable):
    """The process that had the request is gone, or its node: another replica may answer."""


class WeightsLost(BackendUnavailable):
    """Weights that are read in every step cannot be read any more: the replica is of no use."""

    default_code = "weights_lost"


class BackendTimeout(BackendError):
    """The deadline passed."""

    status = 504
    default_code = "timeout"


class StartError(RoundhouseError):
    """The model cannot be served as configured; the message is for the operator."""

    status = 503
    default_code = "model_failed_to_start"
