"""smolagents' agent that calls tools."""

from __future__ import annotations

import ast
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
from mcp import StdioServerParameters
from mcpadapt.core import MCPAdapt
from PIL.Image import Image
from probe import Call, Seen, Server, filled, run_checks
from smolagents import ChatMessage, MCPClient, Model, Tool, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole


class FakeModel(Model):
    """Leaves out no argument, as this library demands of models."""

    def __init__(self, calls: tuple[Call, ...], tools: list[Tool]) -> None:
        super().__init__(model_id="fake")
        inputs = {tool.name: tool.inputs for tool in tools}
        made = [(name, filled(inputs[name], arguments)) for name, arguments in calls]
        self._turns = iter([*made, ("final_answer", {"answer": "Done."})])

    def generate(self, messages: Any, **_: Any) -> ChatMessage:
        name, arguments = next(self._turns)
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        call = ChatMessageToolCall(function=function, id="call", type="function")
        return ChatMessage(MessageRole.ASSISTANT, content="", tool_calls=[call])


class Client:
    gaps: ClassVar[dict[str, str]] = {
        "progress": "it asks for none",
        "cancel": "a call cannot be cancelled",
        "resources": "it has none",
    }
    default_timeout = float(inspect.signature(MCPAdapt.__init__).parameters["connect_timeout"].default)
    cancels_what_it_gives_up = False

    def __init__(self, client: MCPClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        parameters = StdioServerParameters(command=server.command, args=server.args, env=server.env)
        structured = "TASKCELL__TOOLS__STRUCTURED" in server.env
        limit = {"connect_timeout": timeout} if timeout else {}
        client = MCPClient(parameters, adapter_kwargs=limit, structured_output=structured)
        try:
            yield cls(client)
        finally:
            await anyio.to_thread.run_sync(client.disconnect)

    async def tools(self) -> list[str]:
        return [tool.name for tool in self._client.get_tools()]

    async def run(self, *calls: Call) -> list[Seen]:
        tools = self._client.get_tools()
        agent = ToolCallingAgent(tools, FakeModel(calls, tools), verbosity_level=0, max_steps=20)
        await anyio.to_thread.run_sync(agent.run, "Do it.")
        steps = [step for step in agent.memory.steps if getattr(step, "tool_calls", None)]
        pictures = sum(isinstance(value, Image) for value in agent.state.values())
        return [_seen(step, pictures) for step in steps if step.tool_calls[0].name != "final_answer"]


def _seen(step: Any, pictures: int) -> Seen:
    """A picture is not among the observations: the agent keeps it, and tells its model the name."""
    error = f"\n{step.error}" if step.error else ""
    text = f"{step.observations}{error}"
    try:
        fields = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        fields = None
    return Seen(text, pictures, fields)


run_checks(Client)
