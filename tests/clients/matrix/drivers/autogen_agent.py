"""AutoGen's agent with `mcp_server_tools()`, which starts a server for each call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ToolCallExecutionEvent
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import CreateResult, ModelFamily, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient
from autogen_ext.tools.mcp import StdioServerParams, mcp_server_tools
from probe import Call, Seen, Server, run_checks


class Client:
    gaps: ClassVar[dict[str, str]] = {
        "progress": "it asks for none",
        "structured": "it drops structured content",
        "picture": "its model is shown the picture's base64 as text",
        "resources": "it has none for agents",
    }
    default_timeout = StdioServerParams(command="x").read_timeout_seconds
    cancels_what_it_gives_up = True

    def __init__(self, tools: list[Any]) -> None:
        self._tools = tools

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        parameters = StdioServerParams(
            command=server.command, args=server.args, env=server.env, read_timeout_seconds=timeout or 300
        )
        yield cls(await mcp_server_tools(parameters))

    async def tools(self) -> list[str]:
        return [tool.name for tool in self._tools]

    async def run(self, *calls: Call) -> list[Seen]:
        made = [FunctionCall(f"call-{n}", json.dumps(arguments), name) for n, (name, arguments) in enumerate(calls)]
        usage = RequestUsage(0, 0)
        turns = [CreateResult(finish_reason="function_calls", content=[one], usage=usage, cached=False) for one in made]
        done = CreateResult(finish_reason="stop", content="Done.", usage=usage, cached=False)
        info: Any = {
            "vision": True, "function_calling": True, "json_output": True, "structured_output": True,
            "family": ModelFamily.UNKNOWN,
        }  # fmt: skip
        model = ReplayChatCompletionClient([*turns, done], model_info=info)
        agent = AssistantAgent("matrix", model, tools=self._tools, max_tool_iterations=len(calls) + 1)
        token = CancellationToken()
        try:
            result = await agent.run(task="Do it.", cancellation_token=token)
        except asyncio.CancelledError:
            # The agent runs tools in a task of its own, which cancelling its caller does not reach: without this, the
            # command goes on until the collector happens to find that task.
            token.cancel()
            raise
        events = [one for one in result.messages if isinstance(one, ToolCallExecutionEvent)]
        return [Seen(output.content) for event in events for output in event.content]


run_checks(Client)
