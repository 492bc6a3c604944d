"""The official SDK for Python, 2.x."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from mcp import StdioServerParameters
from mcp.client.client import Client as SDKClient
from mcp.client.stdio import stdio_client
from mcp.types import ImageContent, TextContent
from probe import Call, Seen, Server, run_checks


class Client:
    gaps: ClassVar[dict[str, str]] = {}
    default_timeout = None
    cancels_what_it_gives_up = True

    def __init__(self, client: SDKClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        parameters = StdioServerParameters(command=server.command, args=server.args, env=server.env)
        async with SDKClient(stdio_client(parameters), read_timeout_seconds=timeout) as client:
            yield cls(client)

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._client.list_tools()).tools]

    async def run(self, *calls: Call) -> list[Seen]:
        return [await self._one(name, arguments) for name, arguments in calls]

    async def _one(self, name, arguments, **options) -> Seen:
        result = await self._client.call_tool(name, arguments, **options)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        pictures = sum(isinstance(block, ImageContent) for block in result.content)
        return Seen(text, pictures, result.structured_content)

    async def follow(self, call: Call) -> list[str]:
        said: list[str] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            said.append(message or "")

        await self._one(*call, progress_callback=progress)
        return said

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in (await self._client.list_resources()).resources]

    async def read(self, uri: str) -> str:
        return (await self._client.read_resource(uri)).contents[0].text


run_checks(Client)
