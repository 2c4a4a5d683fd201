"""One started backend of each kind for this suite: engines take their time to start."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.subjects import SUBJECTS, Subject


@pytest_asyncio.fixture(scope="package", loop_scope="session", params=SUBJECTS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with SUBJECTS[request.param]() as found:
        yield found
