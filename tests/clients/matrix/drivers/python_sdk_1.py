"""The official SDK for Python, 1.x."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from probe import Direct, Server, run_checks


class Client(Direct):
    gaps = {"cancel": "it sends no cancel"}  # noqa: RUF012
    cancels_what_it_gives_up = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        parameters = StdioServerParameters(command=server.command, args=server.args, env=server.env)
        limit = timedelta(seconds=timeout) if timeout else None
        async with (
            stdio_client(parameters) as (read, write),
            ClientSession(read, write, read_timeout_seconds=limit) as session,
        ):
            await session.initialize()
            yield cls(session)


run_checks(Client)
