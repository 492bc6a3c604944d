"""A session of the Python SDK 1.x: reads a plan from standard input, writes one line of JSON for each step."""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

import anyio
import httpx
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

#: Seconds for a step on a busy machine.
PATIENCE = 60.0


async def play(plan: dict[str, Any]) -> None:
    asked: list[str] = []
    step: dict[str, Any] = {}

    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action=step.get("answer", "cancel"))

    headers = {"Authorization": f"Bearer {plan['token']}"}
    async with (
        httpx.AsyncClient(headers=headers, timeout=PATIENCE) as http,
        streamable_http_client(plan["url"], http_client=http) as (read, write, _),
        ClientSession(read, write, elicitation_callback=answer) as session,
    ):
        await session.initialize()
        say({"name": "tools", "tools": [tool.name for tool in (await session.list_tools()).tools]})
        for step in plan["steps"]:
            asked.clear()
            say({"name": step["name"], "asked": asked, **await called(session, step)})


async def called(session: ClientSession, step: dict[str, Any]) -> dict[str, Any]:
    progress: list[str] = []
    done: dict[str, Any] = {"progress": progress}
    with anyio.CancelScope() as given_up:

        async def hear(progress_so_far: float, total: float | None, message: str | None) -> None:
            progress.append(message or "")
            if step.get("cancel"):
                given_up.cancel()

        patience = datetime.timedelta(milliseconds=step.get("patience", PATIENCE * 1000))
        try:
            result = await session.call_tool(
                step["tool"], step["arguments"], read_timeout_seconds=patience, progress_callback=hear
            )
            done["result"] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        except Exception as error:
            done["error"] = str(error)
    if given_up.cancelled_caught:
        done["error"] = "cancelled"
    return done


def say(done: dict[str, Any]) -> None:
    print(json.dumps(done), flush=True)


anyio.run(play, json.load(sys.stdin))
