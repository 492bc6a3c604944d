"""Who calls: what comes through a pipe is `local`, and what comes over HTTP is whose door says it is."""

from __future__ import annotations

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

from asking import fields
from gateways import GatewayFactory
from http_door import client_as, serving_http
from taskcell.mcp.server import build_server
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'


async def test_each_principals_tasks_are_its_own_on_one_server(gateway: GatewayFactory) -> None:
    async with gateway(LOCAL, engine="local") as gw:
        server = build_server(gw)
        async with (
            serving_http(server) as app,
            client_as(app, "one") as one,
            client_as(app, "two") as two,
            Client(build_server(gw)) as here,
        ):
            for client, word in ((one, "one"), (two, "two"), (here, "here")):
                await client.call_tool("terminal", {"command": f"echo {word} > mine"})
            for client, word in ((one, "one"), (two, "two"), (here, "here")):
                assert (await fields(client, "read_file", {"path": "mine"}))["text"] == f"{word}\n"
            for principal in ("one", "two", "local"):
                assert len(await gw.pool.of_task(TaskKey(principal, "default"))) == 1


async def test_a_request_over_http_that_nobody_has_signed_is_refused_and_never_local(gateway: GatewayFactory) -> None:
    async with (
        gateway(LOCAL, engine="local") as gw,
        serving_http(build_server(gw)) as app,
        client_as(app, "") as nobody,
    ):
        with pytest.raises(MCPError, match="Nobody is signed in"):
            await nobody.list_tools()
        with pytest.raises(MCPError, match="Nobody is signed in"):
            await nobody.session.call_tool("terminal", {"command": "true"})
        with pytest.raises(MCPError, match="Nobody is signed in"):
            await nobody.read_resource("taskcell://tasks/default/files/x")
        assert await gw.pool.of_task(TaskKey("local", "default")) == []
