"""A session of the Python SDK 2.x, or of FastMCP's client with `--fastmcp`, in either era.

Reads a plan from standard input, and writes one line of JSON for each step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

#: Seconds for a step on a busy machine.
PATIENCE = 60.0


class Person:
    """Answers the server's questions as the step says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.action = "cancel"

    async def answer(self, context: Any, params: Any) -> Any:
        self.asked.append(params.message)
        return ElicitResult(action=self.action)

    async def answer_fastmcp(self, message: str, response_type: Any, params: Any, context: Any) -> Any:
        from fastmcp.client.elicitation import ElicitResult as Answer

        self.asked.append(message)
        return Answer(action=self.action)


@asynccontextmanager
async def connected(plan: dict[str, Any], person: Person) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {plan['token']}"}
    if "--fastmcp" in sys.argv:
        from fastmcp import Client as FastClient
        from fastmcp.client.transports import StreamableHttpTransport

        transport = StreamableHttpTransport(plan["url"], headers=headers)
        async with FastClient(transport, mode=plan["era"], elicitation_handler=person.answer_fastmcp) as client:
            yield client
    else:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
            Client(
                streamable_http_client(plan["url"], http_client=http),
                mode=plan["era"],
                elicitation_callback=person.answer,
            ) as client,
        ):
            yield client


async def play(plan: dict[str, Any]) -> None:
    person = Person()
    async with connected(plan, person) as client:
        tools = await client.list_tools()
        say({"name": "tools", "tools": [tool.name for tool in getattr(tools, "tools", tools)]})
        for step in plan["steps"]:
            person.asked, person.action = [], step.get("answer", "cancel")
            say({"name": step["name"], **await called(client, step), "asked": person.asked})


async def called(client: Any, step: dict[str, Any]) -> dict[str, Any]:
    progress: list[str] = []
    done: dict[str, Any] = {"progress": progress}
    with anyio.CancelScope() as given_up:

        async def hear(progress_so_far: float, total: float | None, message: str | None) -> None:
            progress.append(message or "")
            if step.get("cancel"):
                given_up.cancel()

        try:
            result = await call(client, step, step.get("patience", PATIENCE * 1000) / 1000, hear)
            done["result"] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        except Exception as error:
            done["error"] = str(error)
    if given_up.cancelled_caught:
        done["error"] = "cancelled"
    return done


async def call(client: Any, step: dict[str, Any], patience: float, hear: Any) -> Any:
    if "--fastmcp" in sys.argv:
        return await client.call_tool_mcp(step["tool"], step["arguments"], progress_handler=hear, timeout=patience)
    return await client.call_tool(
        step["tool"], step["arguments"], progress_callback=hear, read_timeout_seconds=patience
    )


def say(done: dict[str, Any]) -> None:
    print(json.dumps(done), flush=True)


anyio.run(play, json.load(sys.stdin))
