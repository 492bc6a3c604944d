"""Commands that go on after their call's answer, on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def task(engine: str, gateway: GatewayFactory) -> AsyncIterator[Task]:
    async with gateway(LIMITS, engine=engine) as gw:
        yield Task(gw)
