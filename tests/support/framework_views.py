"""A program that has a framework's agent call tools of a server, and prints what the agent's model sees of each answer.

Its models are those that the frameworks have for tests: a function in the place of pydantic-ai's model, and a subclass
of google-adk's `BaseLlm`. It runs in an environment of its own, without taskcell: `scripts/clients.sh` makes it.

    framework_views.py pydantic-ai|google-adk CALLS COMMAND...

CALLS is a JSON array of `[tool, arguments]`. The last line that is printed is a JSON array of texts.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any

#: Seconds for one call on a busy machine: the frameworks' own default of five is too short for a first sandbox.
TIMEOUT = 60

Call = tuple[str, dict[str, Any]]


async def pydantic_ai(calls: Sequence[Call], command: Sequence[str]) -> list[str]:
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai import Agent, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.messages import ModelMessage, RetryPromptPart, ToolReturnPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    seen: list[str] = []

    def shown(part: ToolReturnPart | RetryPromptPart) -> str:
        if isinstance(part, RetryPromptPart):
            return part.model_response()
        files = (f" and a picture, {file.media_type}" for file in part.files)
        return "".join((part.model_response_str(), *files))

    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answers = (part for part in messages[-1].parts if isinstance(part, ToolReturnPart | RetryPromptPart))
        seen.extend(map(shown, answers))
        if len(seen) == len(calls):
            return ModelResponse(parts=[TextPart("done")])
        tool, arguments = calls[len(seen)]
        return ModelResponse(parts=[ToolCallPart(tool, arguments)])

    server = MCPToolset(StdioTransport(command[0], list(command[1:])), init_timeout=TIMEOUT, read_timeout=TIMEOUT)
    agent = Agent(FunctionModel(model), toolsets=[server])
    async with agent:
        await agent.run("go")
    return seen


async def google_adk(calls: Sequence[Call], command: Sequence[str]) -> list[str]:
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmRequest, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
    from google.genai import types
    from mcp import StdioServerParameters

    seen: list[str] = []

    class Model(BaseLlm):
        async def generate_content_async(
            self, llm_request: LlmRequest, stream: bool = False
        ) -> AsyncGenerator[LlmResponse, None]:
            parts = llm_request.contents[-1].parts or []
            answers = [part.function_response.response for part in parts if part.function_response]
            seen.extend(json.dumps(answer, ensure_ascii=False) for answer in answers)
            if len(seen) == len(calls):
                part = types.Part(text="done")
            else:
                tool, arguments = calls[len(seen)]
                part = types.Part(function_call=types.FunctionCall(name=tool, args=arguments))
            yield LlmResponse(content=types.Content(role="model", parts=[part]))

    server = StdioServerParameters(command=command[0], args=list(command[1:]))
    toolset = McpToolset(connection_params=StdioConnectionParams(server_params=server, timeout=TIMEOUT))
    runner = InMemoryRunner(LlmAgent(name="agent", model=Model(model="stand-in"), tools=[toolset]), app_name="views")
    session = await runner.session_service.create_session(app_name="views", user_id="user")
    message = types.Content(role="user", parts=[types.Part(text="go")])
    async for _ in runner.run_async(user_id="user", session_id=session.id, new_message=message):
        pass
    await toolset.close()
    return seen


def main() -> None:
    framework, calls, *command = sys.argv[1:]
    view = {"pydantic-ai": pydantic_ai, "google-adk": google_adk}[framework]
    print(json.dumps(asyncio.run(view([(tool, arguments) for tool, arguments in json.loads(calls)], command))))


if __name__ == "__main__":
    main()
