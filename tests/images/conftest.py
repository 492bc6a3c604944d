"""The default image as the terminal's: an agent's calls in a sandbox of the default profile."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent_task import Task
from gateways import GatewayFactory


@pytest.fixture
async def task(gateway: GatewayFactory) -> AsyncIterator[Task]:
    async with gateway() as gw:
        yield Task(gw)
