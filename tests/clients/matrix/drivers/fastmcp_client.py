"""FastMCP's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from fastmcp import Client as FastMCPClient
from fastmcp.client.transports import StdioTransport
from mcp.types import ImageContent, TextContent
from probe import Call, Seen, Server, run_checks


class Client:
    gaps: ClassVar[dict[str, str]] = {}
    default_timeout = None
    cancels_what_it_gives_up = True

    def __init__(self, client: FastMCPClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        transport = StdioTransport(server.command, server.args, env=server.env, keep_alive=False)
        async with FastMCPClient(transport, timeout=timeout, init_timeout=timeout or 60) as client:
            yield cls(client)

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._client.list_tools()]

    async def run(self, *calls: Call) -> list[Seen]:
        return [await self._one(name, arguments) for name, arguments in calls]

    async def _one(self, name, arguments, **options) -> Seen:
        result = await self._client.call_tool(name, arguments, raise_on_error=False, **options)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        pictures = sum(isinstance(block, ImageContent) for block in result.content)
        return Seen(text, pictures, result.structured_content)

    async def follow(self, call: Call) -> list[str]:
        said: list[str] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            said.append(message or "")

        await self._one(*call, progress_handler=progress)
        return said

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in await self._client.list_resources()]

    async def read(self, uri: str) -> str:
        return (await self._client.read_resource(uri))[0].text


run_checks(Client)
