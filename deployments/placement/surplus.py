"""Layers that a checkpoint's files have and its config does not name: without them a model says
nonsense, and transformers leaves them out without a word."""

from collections.abc import Collection

from deployments.errors import StartError

MAX_NAMES = 3


def check_surplus(checkpoint: object, beyond: Collection[str]) -> None:
    """Raises: StartError if there are weights of such layers; `beyond` are their names."""
    if beyond:
        raise StartError(
            f"The checkpoint {checkpoint} has {len(beyond)} weights of layers that its config.json "
            f"does not name ({some(beyond)}). Download both again."
        )


def some(names: Collection[str]) -> str:
    """The first of some names."""
    more = ", ..." if len(names) > MAX_NAMES else ""
    return ", ".join(sorted(names)[:MAX_NAMES]) + more
