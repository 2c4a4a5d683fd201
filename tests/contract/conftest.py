"""One started backend of each kind for the whole suite: engines take their time to start."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.subjects import GENERATING, SUBJECTS, Subject


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=SUBJECTS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with SUBJECTS[request.param]() as found:
        yield found


@pytest.fixture
def generating(subject: Subject) -> Subject:
    """Those that sample tokens themselves."""
    if subject.name not in GENERATING:
        pytest.skip("samples no tokens")
    return subject
