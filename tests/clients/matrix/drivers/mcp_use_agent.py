"""mcp-use's agent."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

os.environ["MCP_USE_ANONYMIZED_TELEMETRY"] = "false"

from langchain_messages import FakeModel, seen_of
from mcp_use import MCPAgent, MCPClient
from probe import Call, Seen, Server, run_checks


class Client:
    gaps: ClassVar[dict[str, str]] = {
        "cancel": "the SDK 1.x below it sends no cancel",
        "progress": "its agent asks for none",
        "structured": "its agent drops structured content",
        "time-out": "it has none for stdio",
    }
    default_timeout = None
    cancels_what_it_gives_up = False

    def __init__(self, client: MCPClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        entry = {"command": server.command, "args": server.args, "env": server.env}
        client = MCPClient({"mcpServers": {"taskcell": entry}})
        await client.create_all_sessions()
        try:
            yield cls(client)
        finally:
            await client.close_all_sessions()

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._client.get_session("taskcell").list_tools()]

    async def run(self, *calls: Call) -> list[Seen]:
        agent = MCPAgent(FakeModel(calls=list(calls)), self._client, max_steps=30, memory_enabled=True)
        await agent.initialize()
        await agent.run("Do it.")
        return seen_of(agent.get_conversation_history())

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in await self._client.get_session("taskcell").list_resources()]

    async def read(self, uri: str) -> str:
        return (await self._client.get_session("taskcell").read_resource(uri)).contents[0].text


run_checks(Client)
