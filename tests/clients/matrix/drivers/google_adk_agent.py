"""google-adk's agent."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters
from probe import Call, Seen, Server, run_checks


class FakeModel(BaseLlm):
    calls: list[Call]

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        turn = len(responses_of(llm_request.contents))
        if turn < len(self.calls):
            name, arguments = self.calls[turn]
            part = types.Part(function_call=types.FunctionCall(id=f"call-{turn}", name=name, args=arguments))
        else:
            part = types.Part(text="Done.")
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


class Client:
    gaps: ClassVar[dict[str, str]] = {
        "picture": "its model is shown the picture's base64 as text",
    }
    default_timeout = StdioConnectionParams(server_params=StdioServerParameters(command="x")).timeout
    cancels_what_it_gives_up = True

    def __init__(self, toolset: McpToolset, said: list[str]) -> None:
        self._toolset, self._said = toolset, said

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        said: list[str] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            said.append(message or "")

        parameters = StdioServerParameters(command=server.command, args=server.args, env=server.env)
        connection = StdioConnectionParams(server_params=parameters, timeout=timeout or 300.0)
        toolset = McpToolset(connection_params=connection, progress_callback=progress)
        try:
            yield cls(toolset, said)
        finally:
            await toolset.close()

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._toolset.get_tools()]

    async def run(self, *calls: Call) -> list[Seen]:
        agent = LlmAgent(name="matrix", model=FakeModel(model="fake", calls=list(calls)), tools=[self._toolset])
        runner = InMemoryRunner(agent, app_name="matrix")
        session = await runner.session_service.create_session(app_name="matrix", user_id="one")
        asked = types.Content(role="user", parts=[types.Part(text="Do it.")])
        contents = [
            event.content
            async for event in runner.run_async(user_id="one", session_id=session.id, new_message=asked)
            if event.content
        ]
        return [_seen(response) for response in responses_of(contents)]

    async def follow(self, call: Call) -> list[str]:
        self._said.clear()
        await self.run(call)
        return self._said

    async def resources(self) -> list[str]:
        return await self._toolset.list_resources()

    async def read(self, uri: str) -> str:
        return str(await self._toolset.read_resource(uri))


def responses_of(contents: Any) -> list[Any]:
    parts = [part for content in contents for part in content.parts or []]
    return [part.function_response for part in parts if part.function_response]


def _seen(response: Any) -> Seen:
    fields = response.response.get("structuredContent")
    blocks = response.response.get("content", [])
    text = "\n".join(str(block.get("text", "")) for block in blocks) or json.dumps(response.response, default=str)
    return Seen(text, len(response.parts or []), fields)


run_checks(Client)
