"""openai-agents; with `strict`, it makes every argument of every tool required."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"

from agents import Agent, Model, ModelResponse, Runner, Usage
from agents.mcp import MCPServerStdio
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)
from probe import Call, Seen, Server, filled, run_checks

STRICT = sys.argv[1:] == ["strict"]


class FakeModel(Model):
    def __init__(self, calls: tuple[Call, ...]) -> None:
        self._calls = calls

    async def get_response(self, *_: Any, input: Any, tools: Any, **__: Any) -> Any:
        items = input
        turn = len(outputs_of(items))
        if turn == len(self._calls):
            text = ResponseOutputText(text="Done.", type="output_text", annotations=[])
            said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
            return ModelResponse([said], Usage(), None)
        name, arguments = self._calls[turn]
        [tool] = [tool for tool in tools if tool.name == name]
        if STRICT:
            assert tool.strict_json_schema, tool
            assert set(tool.params_json_schema["required"]) == set(tool.params_json_schema["properties"]), tool
            arguments = filled(tool.params_json_schema["properties"], arguments)
        made = ResponseFunctionToolCall(
            arguments=json.dumps(arguments), call_id=f"call-{turn}", name=name, type="function_call"
        )
        return ModelResponse([made], Usage(), None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        """Abstract in `Model`; `Runner.run` never streams."""
        raise NotImplementedError


def outputs_of(items: Any) -> list[Any]:
    return [item["output"] for item in items if isinstance(item, dict) and item.get("type") == "function_call_output"]


class Client:
    gaps: ClassVar[dict[str, str]] = {"progress": "it asks for none"}
    default_timeout = inspect.signature(MCPServerStdio).parameters["client_session_timeout_seconds"].default
    cancels_what_it_gives_up = True

    def __init__(self, server: MCPServerStdio) -> None:
        self._server = server

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        parameters: Any = {"command": server.command, "args": server.args, "env": server.env}
        limit = timeout or 300.0
        structured = "TASKCELL__TOOLS__STRUCTURED" in server.env
        async with MCPServerStdio(
            parameters, client_session_timeout_seconds=limit, use_structured_content=structured
        ) as connected:
            yield cls(connected)

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._server.list_tools()]

    async def run(self, *calls: Call) -> list[Seen]:
        agent = Agent(
            "matrix", model=FakeModel(calls), mcp_servers=[self._server],
            mcp_config={"convert_schemas_to_strict": STRICT},
        )  # fmt: skip
        done = await Runner.run(agent, "Do it.", max_turns=20)
        return [_seen(output) for output in outputs_of(done.to_input_list())]

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in (await self._server.list_resources()).resources]

    async def read(self, uri: str) -> str:
        return (await self._server.read_resource(uri)).contents[0].text


def _seen(output: Any) -> Seen:
    blocks = output if isinstance(output, list) else [{"type": "input_text", "text": output}]
    text = "\n".join(block.get("text", "") for block in blocks)
    pictures = sum(block["type"] == "input_image" for block in blocks)
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    return Seen(text, pictures, fields)


run_checks(Client)
