"""What the tests of deployments on a cluster have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deployments import OnCluster, on_cluster


@pytest.fixture
async def cluster() -> AsyncIterator[OnCluster]:
    """A deployment's servers on a cluster in memory."""
    async with on_cluster() as made:
        yield made
