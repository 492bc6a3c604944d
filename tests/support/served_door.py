"""A gateway, of the local engine or another one, served through its local door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2

from gateways import GatewayFactory
from http_serving import PATIENCE
from observe import eventually
from taskcell.config.settings import Settings
from taskcell.deployment.doors import open_doors
from taskcell.gateway.gateway import Gateway
from taskcell.http.local_door import with_local_door
from taskcell.model import ToolCall

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'


@asynccontextmanager
async def served_door(
    gateway: GatewayFactory,
    state: Path,
    toml: str = LOCAL,
    *,
    engine: str = "local",
    within: float = 4 * PATIENCE,
    **more: Any,
) -> AsyncIterator[tuple[Gateway, Path, httpx2.AsyncClient]]:
    """The gateway, in which the task `t` has a sandbox, its door's socket, and a client of that.

    Arguments:
        within: seconds for all that is done with them.
    """
    opener = with_local_door(lambda: gateway(toml, engine=engine, state=state, **more), Settings(), isolated=False)
    async with opener as gw:
        await gw.call(ToolCall("local", "terminal", {"command": "true", "task_id": "t"}))
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(open_doors(state))))
        (door,) = open_doors(state)
        transport = httpx2.AsyncHTTPTransport(uds=str(door), verify=False)
        with anyio.fail_after(within):
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=PATIENCE) as http:
                yield gw, door, http
