"""pydantic-ai's agent."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from fastmcp.client.transports import StdioTransport
from probe import Call, Seen, Server, run_checks
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


class Client:
    gaps: ClassVar[dict[str, str]] = {}
    default_timeout = 300.0 if "read_timeout = 5 * 60" in inspect.getsource(MCPToolset.__init__) else None
    cancels_what_it_gives_up = True

    def __init__(self, toolset: MCPToolset, said: list[str]) -> None:
        self._toolset, self._said = toolset, said

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        said: list[str] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            said.append(message or "")

        transport = StdioTransport(server.command, server.args, env=server.env, keep_alive=False)
        limit = {"read_timeout": timeout} if timeout else {}
        toolset = MCPToolset(transport, progress_handler=progress, init_timeout=60, **limit)
        async with toolset:
            yield cls(toolset, said)

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._toolset.list_tools()]

    async def run(self, *calls: Call) -> list[Seen]:
        def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            turn = len(seen_of(messages))
            return ModelResponse([ToolCallPart(*calls[turn]) if turn < len(calls) else TextPart("Done.")])

        done = await Agent(FunctionModel(model), toolsets=[self._toolset]).run("Do it.")
        return seen_of(done.all_messages())

    async def follow(self, call: Call) -> list[str]:
        self._said.clear()
        await self.run(call)
        return self._said

    async def resources(self) -> list[str]:
        return [one.uri for one in await self._toolset.list_resources()]

    async def read(self, uri: str) -> str:
        return str(await self._toolset.read_resource(uri))


def seen_of(messages: list[ModelMessage]) -> list[Seen]:
    parts = [part for message in messages for part in message.parts]
    return [_seen(part) for part in parts if isinstance(part, (ToolReturnPart, RetryPromptPart))]


def _seen(part: ToolReturnPart | RetryPromptPart) -> Seen:
    blocks: Any = part.content if isinstance(part.content, list) else [part.content]
    pictures = sum(isinstance(block, BinaryContent) for block in blocks)
    texts = [block if isinstance(block, str) else json.dumps(block, default=str) for block in blocks]
    fields = next((block for block in blocks if isinstance(block, dict)), None)
    return Seen("\n".join(texts), pictures, fields)


run_checks(Client)
