"""A client for programs of a server in this process, through its local door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from gateways import GatewayFactory
from observe import eventually
from taskcell.client import connect
from taskcell.client.cell import Cell
from taskcell.config.settings import Settings
from taskcell.deployment.doors import open_doors
from taskcell.http.local_door import with_local_door
from taskcell.model import TaskKey

LOCAL_ENGINE = 'manifests = []\n[engine]\nkind = "local"\n'
#: Seconds for a whole test on a busy machine.
TEST_PATIENCE = 120.0


@asynccontextmanager
async def served(gateway: GatewayFactory, state: Path, toml: str = LOCAL_ENGINE, **more: Any) -> AsyncIterator[Cell]:
    """Arguments: `state` of the deployment, whose newest door is taken; `toml`, its configuration; `more` for it."""
    before = set(open_doors(state))
    about = {"engine": "local", **more}
    opener = with_local_door(lambda: gateway(toml, state=state, **about), Settings(), isolated=False)
    async with opener as opened:
        await opened.pool.of_task(TaskKey("local", "first"))
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(set(open_doors(state)) - before)))
        with anyio.fail_after(TEST_PATIENCE):
            async with connect(door=(set(open_doors(state)) - before).pop()) as client:
                yield client
