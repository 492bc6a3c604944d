"""FastMCP's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastmcp import Client as FastMCPClient
from fastmcp.client.transports import StdioTransport
from probe import Direct, Server, run_checks


class Client(Direct):
    hears = "progress_handler"
    options = {"raise_on_error": False}  # noqa: RUF012

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        transport = StdioTransport(server.command, server.args, env=server.env, keep_alive=False)
        async with FastMCPClient(transport, timeout=timeout, init_timeout=timeout or 60) as client:
            yield cls(client)


run_checks(Client)
