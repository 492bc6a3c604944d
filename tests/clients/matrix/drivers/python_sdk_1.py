"""The official SDK for Python, 1.x."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import ImageContent, TextContent
from probe import Call, Seen, Server, run_checks


class Client:
    gaps: ClassVar[dict[str, str]] = {"cancel": "it sends no cancel"}
    default_timeout = None
    cancels_what_it_gives_up = False

    def __init__(self, session: ClientSession) -> None:
        self._session = session

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

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._session.list_tools()).tools]

    async def run(self, *calls: Call) -> list[Seen]:
        return [await self._one(name, arguments) for name, arguments in calls]

    async def _one(self, name, arguments, **options) -> Seen:
        result = await self._session.call_tool(name, arguments, **options)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        pictures = sum(isinstance(block, ImageContent) for block in result.content)
        return Seen(text, pictures, result.structuredContent)

    async def follow(self, call: Call) -> list[str]:
        said: list[str] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            said.append(message or "")

        await self._one(*call, progress_callback=progress)
        return said

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in (await self._session.list_resources()).resources]

    async def read(self, uri: str) -> str:
        return (await self._session.read_resource(uri)).contents[0].text


run_checks(Client)
