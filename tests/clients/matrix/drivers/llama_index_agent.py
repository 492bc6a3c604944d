"""LlamaIndex's agent; its client starts a server for each call."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec
from probe import Call, Seen, Server, run_checks


class Client:
    gaps: ClassVar[dict[str, str]] = {
        "progress": "its agent asks for none",
        "structured": "its model is shown the result as Python prints it",
        "picture": "its model is shown the picture's base64 as text",
        "cancel": "its agent lets a call that has begun go on",
        "resources": "its server has just started, and no task is open in it",
    }
    default_timeout = float(inspect.signature(BasicMCPClient.__init__).parameters["timeout"].default)
    cancels_what_it_gives_up = True

    def __init__(self, client: BasicMCPClient, tools: list[Any]) -> None:
        self._client, self._tools = client, tools

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        client = BasicMCPClient(server.command, server.args, env=server.env, timeout=timeout or 300)
        yield cls(client, await McpToolSpec(client).to_tool_list_async())

    async def tools(self) -> list[str]:
        return [tool.metadata.name for tool in self._tools]

    async def run(self, *calls: Call) -> list[Seen]:
        def model(messages: Any, **_: Any) -> ChatMessage:
            turn = sum(message.role == MessageRole.TOOL for message in messages)
            if turn >= len(calls):
                return ChatMessage(role=MessageRole.ASSISTANT, content="Done.")
            name, arguments = calls[turn]
            block = ToolCallBlock(tool_call_id=f"call-{turn}", tool_name=name, tool_kwargs=arguments)
            return ChatMessage(role=MessageRole.ASSISTANT, blocks=[block])

        agent = FunctionAgent(
            tools=self._tools, llm=MockFunctionCallingLLM(response_generator=model), streaming=False, timeout=None
        )
        handler = agent.run("Do it.")
        events = [event async for event in handler.stream_events()]
        await handler
        return [_seen(event.tool_output) for event in events if isinstance(event, ToolCallResult)]


def _seen(output: Any) -> Seen:
    text = "\n".join(block.text for block in output.blocks if isinstance(block, TextBlock))
    return Seen(text, sum(isinstance(block, ImageBlock) for block in output.blocks))


run_checks(Client)
