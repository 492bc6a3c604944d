"""The official SDK for Python, 2.x."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp import StdioServerParameters
from mcp.client.client import Client as SDKClient
from mcp.client.stdio import stdio_client
from probe import Direct, Server, run_checks


class Client(Direct):
    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        parameters = StdioServerParameters(command=server.command, args=server.args, env=server.env)
        async with SDKClient(stdio_client(parameters), read_timeout_seconds=timeout) as client:
            yield cls(client)


run_checks(Client)
