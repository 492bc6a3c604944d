"""Servers of one deployment on a cluster, each with its own gateway and its own door over HTTP, in this process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from asking import fields
from deployments import OnCluster, on_cluster
from http_serving import PATIENCE
from local_pods import LocalNodes, LocalPods
from taskcell.assembly.gateway import open_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.auth.authentication import Authentication
from taskcell.auth.tokens import TokenFile
from taskcell.caller import USUAL_SCOPES
from taskcell.config.settings import Settings
from taskcell.deployment.cluster.deployment import ClusterDeployment
from taskcell.deployment.cluster.members import TERM
from taskcell.deployment.key import caller_of_peer
from taskcell.gateway.admission import Admission
from taskcell.gateway.gateway import Gateway
from taskcell.http.app import HttpApp
from taskcell.http.listener import HttpListener
from taskcell.http.local_door import with_local_door
from taskcell.http.peer_listener import serving_peers
from taskcell.http.serve import hand_over, join_others
from taskcell.mcp.server import build_server
from taskcell.model import TaskKey
from taskcell.tools.catalog import build_tools

TOML = """\
deployment = "test"
manifests = []
[engine]
kind = "local"
[pool]
warm = 0
on_exit = "keep"
[http]
tokens_file = "tokens.json"
peer_url = "{url}"
[workspace]
store = "store"
[environments.e]
environment = ["OF=the environment"]
"""


@dataclass
class PeerServer:
    """One server."""

    name: str
    url: str
    gateway: Gateway
    deployment: ClusterDeployment
    token: str
    stop: anyio.abc.CancelScope
    hand_over: Callable[[float], Awaitable[None]]

    @asynccontextmanager
    async def client(self, token: str = "", **options: Any) -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {token or self.token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode="2026-07-28", **options) as client,
        ):
            yield client

    async def run(self, command: str, task: str = "t", token: str = "", **more: Any) -> dict[str, Any]:
        """Run a command by a connection of its own to this server."""
        with anyio.fail_after(PATIENCE):
            async with self.client(token) as client:
                return await fields(client, "terminal", {"command": command, "task_id": task, **more})

    @property
    def tasks(self) -> set[str]:
        return {slot.task.task for slot in self.gateway.pool.slots}


class Peers:
    """All of them. Time stands still for their Leases until a test lets it pass."""

    def __init__(self, cluster: OnCluster, folder: Path, group: anyio.abc.TaskGroup) -> None:
        self.cluster, self.folder = cluster, folder
        self.servers: dict[str, PeerServer] = {}
        self._nodes, self._group = LocalNodes(), group
        #: The servers that are started from now on reach each other over TLS.
        self.over_tls = False
        self.tokens = {
            name: TokenFile(folder / "tokens.json").create(name, USUAL_SCOPES, None)[1] for name in ("ann", "bob")
        }

    async def start(self, name: str) -> PeerServer:
        """One more server, which is one of the deployment's by the time that this returns."""
        # By its protocol asyncio knows that it is not to wait for more to send.
        listening, for_peers = [socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) for _ in "12"]
        for one in (listening, for_peers):
            one.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        peer_url = f"https://127.0.0.1:{for_peers.getsockname()[1]}" if self.over_tls else url
        path = self.folder / f"{name}.toml"
        path.write_text(TOML.format(url=peer_url))
        settings = load_settings(Invocation({}, self.folder, path))
        with anyio.fail_after(PATIENCE):
            found: PeerServer = await self._group.start(self._serve, name, url, settings, (listening, for_peers))
        self.servers[name] = self.servers[found.deployment.instance] = found
        self.cluster.living[found.deployment.instance] = found.deployment
        for other in self.cluster.living.values():
            await other.members.look()
        return found

    async def _serve(
        self,
        name: str,
        url: str,
        settings: Settings,
        sockets: tuple[socket.socket, socket.socket],
        *,
        task_status: anyio.abc.TaskStatus[PeerServer],
    ) -> None:
        own = {"folder": self.folder / name, "store": settings.archive_store}
        deployment = self.cluster.make(name, settings.http.peer_url, **own)
        engine = LocalPods(self._nodes, self.cluster.server.api(name))
        authentication = Authentication.of(settings)
        authentication.of_peer = lambda token: caller_of_peer(deployment.key, deployment.instance, token)
        listening, for_peers = sockets
        with anyio.CancelScope() as stop, listening, for_peers:
            opened = lambda: open_gateway(settings, build_tools(settings, ()), engine, deployment=deployment)  # noqa: E731
            async with with_local_door(opened, settings, isolated=False) as gateway:
                admission = Admission()
                server = build_server(gateway, isolated=False, admission=admission)
                app = HttpApp(server, settings.http, authentication, metrics=bytes, host="127.0.0.1", ready=_is_ready)
                listener = HttpListener(app.requests)
                peers = serving_peers(app.requests, for_peers, deployment.tls)
                async with app.running(), peers, anyio.create_task_group() as serving:
                    serving.start_soon(listener.serve, [listening])

                    async def end(linger: float) -> None:
                        await hand_over(app, admission, gateway, server, linger)

                    try:
                        await join_others(gateway.pool)
                        task_status.started(PeerServer(name, url, gateway, deployment, self.tokens["ann"], stop, end))
                        await anyio.sleep_forever()
                    finally:
                        listener.close()

    def lead(self, task: str, principal: str = "ann") -> PeerServer:
        """The server that is to have a task that nobody has."""
        one = next(iter(self.cluster.living.values()))
        return self.servers[one.members.lead(TaskKey(principal, task))]

    def holder(self, task: str) -> PeerServer:
        """The server that has a sandbox of the task."""
        (one,) = {id(server): server for server in self.servers.values() if task in server.tasks}.values()
        return one

    def other(self, *than: PeerServer) -> PeerServer:
        return next(one for one in self.servers.values() if one not in than)

    async def cut_off(self, server: PeerServer) -> None:
        """The cluster's API does not reach this server any more, until all others count it as dead."""
        self.cluster.server.cut_off.add(server.name)
        del self.cluster.living[server.deployment.instance]
        await self.cluster.pass_time(2 * TERM)  # its last renewal may not have been seen yet

    async def reach_again(self, server: PeerServer) -> None:
        self.cluster.server.cut_off.discard(server.name)
        self.cluster.living[server.deployment.instance] = server.deployment
        await server.deployment.renew()


async def _is_ready() -> bool:
    return True


@asynccontextmanager
async def peers(folder: Path) -> AsyncIterator[Peers]:
    async with on_cluster() as cluster, anyio.create_task_group() as group:
        made = Peers(cluster, folder, group)
        try:
            yield made
        finally:
            group.cancel_scope.cancel()
    for container in list(made._nodes.containers.values()):
        await made._nodes.engine.remove(container)
    await made._nodes.engine.aclose()
