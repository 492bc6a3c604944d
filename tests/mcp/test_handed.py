"""Calls that another server has handed on, by the names that it gives them."""

from __future__ import annotations

import anyio
import pytest

from taskcell.mcp.handed import Handed, HandedCall


@pytest.mark.anyio
async def test_two_calls_that_a_client_gives_one_name_are_both_answered() -> None:
    handed, answers, both = Handed(), [], anyio.Event()

    async def work(call: HandedCall) -> str:
        if answers:
            both.set()
        answers.append(call.principal)
        await both.wait()
        return call.principal

    found: list[str | None] = []

    async def serve(principal: str) -> None:
        found.append(await handed.serve("name", principal, work))

    async with anyio.create_task_group() as calls:
        calls.start_soon(serve, "ada")
        calls.start_soon(serve, "bob")
    assert sorted(map(str, found)) == ["ada", "bob"]
    assert not handed.say("name", "ada", "cancel")
