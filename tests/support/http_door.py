"""A server's clients over HTTP inside one process, each signed in as somebody: what a door over HTTP will do."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from taskcell.caller import Caller
from taskcell.mcp.principal import sign_in
from taskcell.mcp.server import TaskcellServer

BASE = "http://127.0.0.1:8765"


class SignedIn:
    """An ASGI application whose requests all come from one principal; from nobody where that is empty."""

    def __init__(self, app: Any, principal: str) -> None:
        self._app = app
        self._principal = principal

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if self._principal:
            sign_in(scope, Caller(self._principal))
        await self._app(scope, receive, send)


@asynccontextmanager
async def serving_http(server: TaskcellServer) -> AsyncIterator[Any]:
    """The server's ASGI application, running."""
    app = server.streamable_http_app()
    async with app.router.lifespan_context(app):
        yield app


def http_as(app: Any, principal: str) -> httpx2.AsyncClient:
    """Plain HTTP to the application, as one principal."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(SignedIn(app, principal)), base_url=BASE)


@asynccontextmanager
async def client_as(app: Any, principal: str, **options: Any) -> AsyncIterator[Client]:
    """An MCP client of the application, as one principal. `options` are those of `Client`."""
    async with (
        http_as(app, principal) as http,
        Client(streamable_http_client(f"{BASE}/mcp", http_client=http), mode="2026-07-28", **options) as client,
    ):
        yield client
