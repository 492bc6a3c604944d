"""A session of the Python SDK 2.x, or of FastMCP's client with `--fastmcp`, in either era."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult
from session import PATIENCE, Hear, MakeCall, Person, play


@asynccontextmanager
async def connected(plan: dict[str, Any], person: Person) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {plan['token']}"}
    if "--fastmcp" in sys.argv:
        from fastmcp import Client as FastClient
        from fastmcp.client.elicitation import ElicitResult as FastAnswer
        from fastmcp.client.transports import StreamableHttpTransport

        async def answer_fast(message: str, response_type: Any, params: Any, context: Any) -> Any:
            return FastAnswer(action=person.answer(message))

        transport = StreamableHttpTransport(plan["url"], headers=headers)
        async with FastClient(transport, mode=plan["era"], elicitation_handler=answer_fast) as client:
            yield client
        return

    async def answer(context: Any, params: Any) -> Any:
        return ElicitResult(action=person.answer(params.message))

    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
        Client(
            streamable_http_client(plan["url"], http_client=http), mode=plan["era"], elicitation_callback=answer
        ) as client,
    ):
        yield client


def calls_of(client: Any) -> MakeCall:
    async def call(step: dict[str, Any], patience: float, hear: Hear) -> Any:
        if "--fastmcp" in sys.argv:
            return await client.call_tool_mcp(step["tool"], step["arguments"], progress_handler=hear, timeout=patience)
        return await client.call_tool(
            step["tool"], step["arguments"], progress_callback=hear, read_timeout_seconds=patience
        )

    return call


play(connected, calls_of)
