"""A session of the Python SDK 1.x."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client
from session import PATIENCE, Hear, MakeCall, Person, play


@asynccontextmanager
async def connected(plan: dict[str, Any], person: Person) -> AsyncIterator[ClientSession]:
    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action=person.answer(params.message))

    headers = {"Authorization": f"Bearer {plan['token']}"}
    async with (
        httpx.AsyncClient(headers=headers, timeout=PATIENCE) as http,
        streamable_http_client(plan["url"], http_client=http) as (read, write, _),
        ClientSession(read, write, elicitation_callback=answer) as session,
    ):
        await session.initialize()
        yield session


def calls_of(session: ClientSession) -> MakeCall:
    async def call(step: dict[str, Any], patience: float, hear: Hear) -> Any:
        limit = datetime.timedelta(seconds=patience)
        return await session.call_tool(
            step["tool"], step["arguments"], read_timeout_seconds=limit, progress_callback=hear
        )

    return call


play(connected, calls_of)
