"""What the tests of deployments on a cluster have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments import OnCluster, on_cluster
from peers import Peers, peers


@pytest.fixture
async def cluster() -> AsyncIterator[OnCluster]:
    """A deployment's servers on a cluster in memory."""
    async with on_cluster() as made:
        yield made


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Peers]:
    """A deployment's servers, of which a test starts as many as it wants."""
    async with peers(tmp_path) as made:
        yield made


@pytest.fixture
async def three_servers(fleet: Peers) -> None:
    """Has servers `one`, `two` and `three` in the fleet."""
    for name in ("one", "two", "three"):
        await fleet.start(name)
