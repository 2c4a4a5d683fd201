"""An error on its way from a replica to the router, which does not unpickle what it is sent."""

from collections.abc import Iterator

import msgspec

from deployments.errors import RoundhouseError
from serve_app.wire.frames import decoded


class Failure(msgspec.Struct):
    """What an error says, and its class by name."""

    kind: str
    message: str
    param: str | None
    code: str | None
    retry_after_s: float | None


def payload_of(error: RoundhouseError) -> bytes:
    name = type(error).__name__
    return msgspec.msgpack.encode(
        Failure(name, error.message, error.param, error.code, error.retry_after_s)
    )


def error_of(payload: bytes) -> RoundhouseError:
    """The error as it was; of a class that this end does not know, the general one.

    Raises: BrokenFrame.
    """
    failure = decoded(payload, Failure)
    kinds = {kind.__name__: kind for kind in _tree(RoundhouseError)}
    error = kinds.get(failure.kind, RoundhouseError)(failure.message)
    error.param, error.code = failure.param, failure.code
    error.retry_after_s = failure.retry_after_s
    return error


def _tree(kind: type[RoundhouseError]) -> Iterator[type[RoundhouseError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
