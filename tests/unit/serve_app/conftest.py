"""What the router's tests stand on: EchoBackends behind the real router, over real HTTP."""

from collections.abc import AsyncIterator

import pytest

from deployments.config import EchoConfig
from deployments.testing import EchoBackend
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.loop_clock import LoopClock

MODELS = ("demo", "other", "org/slashed")


@pytest.fixture
def cluster() -> LocalCluster:
    """Three echoes: demo, other, and one whose name has a slash."""
    return LocalCluster({name: EchoBackend(name, EchoConfig()) for name in MODELS})


@pytest.fixture
def app(cluster: LocalCluster) -> RouterApp:
    return RouterApp(cluster)


@pytest.fixture
async def clock() -> LoopClock:
    """Of the loop in which the test and its servers run."""
    return LoopClock()


@pytest.fixture
async def url(app: RouterApp) -> AsyncIterator[str]:
    async with serving(app) as address:
        yield address
