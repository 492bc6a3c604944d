"""What the programs of every SDK for Python share: they play the steps of a plan, and say what came of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

#: Seconds for a step on a busy machine.
PATIENCE = 60.0

#: Hears progress: how far, of how much, and a message.
Hear = Callable[[float, "float | None", "str | None"], Awaitable[None]]
#: Makes the call of a step with a time-out in seconds, and returns its result.
MakeCall = Callable[[dict[str, Any], float, Hear], Awaitable[Any]]


class Person:
    """Answers the server's questions as the step says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.action = "cancel"

    def answer(self, message: str) -> str:
        """Note a question; return the action of the answer."""
        self.asked.append(message)
        return self.action


def play(
    connect: Callable[[dict[str, Any], Person], AbstractAsyncContextManager[Any]],
    call: Callable[[Any], MakeCall],
) -> None:
    """Read a plan from standard input, and write one line of JSON for each step.

    Arguments:
        connect: the client's session with the server of a plan.
        call: how that session calls a tool.
    """
    anyio.run(_play, connect, call)


async def _play(connect: Any, call: Any) -> None:
    plan, person = json.load(sys.stdin), Person()
    async with connect(plan, person) as client:
        tools = await client.list_tools()
        _say({"name": "tools", "tools": [tool.name for tool in getattr(tools, "tools", tools)]})
        for step in plan["steps"]:
            person.asked, person.action = [], step.get("answer", "cancel")
            _say({"name": step["name"], **await _called(call(client), step), "asked": person.asked})


async def _called(call: MakeCall, step: dict[str, Any]) -> dict[str, Any]:
    progress: list[str] = []
    done: dict[str, Any] = {"progress": progress}
    with anyio.CancelScope() as given_up:

        async def hear(progress_so_far: float, total: float | None, message: str | None) -> None:
            progress.append(message or "")
            if step.get("cancel"):
                given_up.cancel()

        try:
            result = await call(step, step.get("patience", PATIENCE * 1000) / 1000, hear)
            done["result"] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        except Exception as error:
            done["error"] = str(error)
    if given_up.cancelled_caught:
        done["error"] = "cancelled"
    return done


def _say(done: dict[str, Any]) -> None:
    print(json.dumps(done), flush=True)
