"""Follows resources whichever server of the deployment has their task, also after another one has got it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY

from taskcell import __version__
from taskcell.deployment.base import Claimed, Peer
from taskcell.deployment.key import peer_token
from taskcell.errors import TaskcellError, TaskMoved
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.neighbours import PEER_OPENS, Inquiry, Neighbours, how
from taskcell.mcp.passed_on import until_dead
from taskcell.mcp.resources.routes import OnBegun, OnChange
from taskcell.model import TaskKey
from taskcell.socket_name import short_path

if TYPE_CHECKING:
    import httpx2

log = structlog.get_logger(__name__)

#: Seconds between two looks which server has a task that is followed.
FOLLOW_TURN = 1.0
#: The key of the `_meta` of a listener's last message that says: nothing changes any more.
OVER = "taskcell/over"
_MODERN = "2026-07-28"
_LISTEN = "subscriptions/listen"
_META = {
    CLIENT_INFO_META_KEY: {"name": "taskcell", "version": __version__},
    PROTOCOL_VERSION_META_KEY: _MODERN,
    CLIENT_CAPABILITIES_META_KEY: {},
}
_HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": _MODERN, "mcp-method": _LISTEN}


class Following:
    """Follows a task's resource here or at the server that has the task.

    Arguments:
        neighbours: know that server.
    """

    def __init__(self, gateway: Gateway, neighbours: Neighbours) -> None:
        self._pool = gateway.pool
        self._neighbours = neighbours
        self.asked = neighbours.asked

    async def follow(  # noqa: PLR0917
        self,
        asked: Inquiry,
        task: TaskKey,
        uri: str,
        here: Callable[[], Awaitable[None]],
        changed: OnChange,
        begun: OnBegun,
    ) -> bool:
        """Follow a resource until nothing changes any more. False: another server asked, and has to look for the task.

        Raises what `here` raises.

        Arguments:
            here: follows it in this server.
            changed: called at each change at another server, and where some may not have been seen.
            begun: called once another server follows it.
        """
        was_away: bool | None = None
        while True:
            try:
                found = await self._neighbours.door(task, asked)
                if was_away or (was_away is False and found is not None):
                    await changed()  # what changed meanwhile was not seen
                was_away = found is not None
                if found is None:
                    is_over = await self._here(task, here)
                else:
                    is_over = await self._there(found, asked, uri, changed, begun)
            except TaskMoved:
                return False
            except (TaskcellError, OSError) as error:
                log.info("A resource is not followed for the moment.", uri=uri, reason=str(error))
                is_over, was_away = False, True
            if is_over:
                return True
            await anyio.sleep(FOLLOW_TURN)

    async def _here(self, task: TaskKey, here: Callable[[], Awaitable[None]]) -> bool:
        """Follow a resource here. False once the task is another server's."""
        failure: Exception | None = None
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._until_gone, task, beside.cancel_scope)
            try:
                await here()
            except Exception as error:  # raised below: the task group would wrap it
                failure = error
            beside.cancel_scope.cancel()
        if failure is not None:
            raise failure
        # What ends with its task's going is not over.
        return self._has(task) and (await self._pool.holder(task, is_sent=True)).door is None

    async def _until_gone(self, task: TaskKey, following: anyio.CancelScope) -> None:
        while self._has(task):  # noqa: ASYNC110 - seen by looks
            await anyio.sleep(FOLLOW_TURN)
        following.cancel()

    def _has(self, task: TaskKey) -> bool:
        claims = self._pool.deployment.claims
        is_shared = claims is not None and claims.covers(task)
        return not self._pool.leaving.is_done and (not is_shared or (claims is not None and task in claims.own))

    async def _there(self, found: Claimed, asked: Inquiry, uri: str, changed: OnChange, begun: OnBegun) -> bool:
        """Follow a resource at another server. False: its stream has ended, and the task may be another's."""
        import httpx2

        wanted = {"notifications": {"resourceSubscriptions": [uri]}, "_meta": {**_META, how(found): True}}
        body = {"jsonrpc": "2.0", "id": 1, "method": _LISTEN, "params": wanted}
        is_over = False
        async with self._client(found, asked) as (http, url), anyio.create_task_group() as beside:
            if isinstance(found.door, Peer):
                beside.start_soon(self._until_dead, found.door, beside.cancel_scope)
            with suppress(httpx2.HTTPError, OSError):
                async with http.stream("POST", url, json=body, headers=_HEADERS) as stream:
                    async for message in _messages(stream):
                        match message.get("method"):
                            case "notifications/subscriptions/acknowledged":
                                begun()
                            case "notifications/resources/updated":
                                await changed()
                        is_over = bool((message.get("result") or {}).get("_meta", {}).get(OVER))
            beside.cancel_scope.cancel()
        return is_over

    async def _until_dead(self, peer: Peer, listening: anyio.CancelScope) -> None:
        await until_dead(self._pool.deployment, peer)
        listening.cancel()

    @asynccontextmanager
    async def _client(self, found: Claimed, asked: Inquiry) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
        """A client of another server, and the address of its MCP. Raises OSError."""
        import httpx2

        door = found.door
        assert door is not None
        if isinstance(door, Peer):
            token = peer_token(self._pool.deployment.key, door.instance, asked.caller)
            async with door.http(token, None, connect=PEER_OPENS) as http:
                yield http, f"{door.url}/mcp"
            return
        with short_path(door) as name:
            transport = httpx2.AsyncHTTPTransport(uds=name, verify=False, trust_env=False)
            async with httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False) as http:
                yield http, "http://localhost/mcp"


async def _messages(stream: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """The messages of a stream of events; what is none is left out."""
    async for line in stream.aiter_lines():
        with suppress(ValueError):
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else None
            if isinstance(message, dict):
                yield message
