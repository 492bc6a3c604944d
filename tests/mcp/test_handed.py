"""Calls that other servers have handed on, by the names that these gave them."""

from __future__ import annotations

import anyio
import pytest

from taskcell.mcp.handed import Handed, HandedCall
from taskcell.mcp.passed_on import CANCEL

pytestmark = pytest.mark.anyio


async def test_calls_that_have_the_same_name_end_apart_and_each_principal_cancels_its_own() -> None:
    handed, over, answers = Handed(), anyio.Event(), []

    async def work(call: HandedCall) -> str:
        await over.wait()
        return "done"

    async def serve(principal: str) -> None:
        answers.append((principal, await handed.serve("name", principal, work)))

    async with anyio.create_task_group() as calls:
        for principal in ("ann", "ann", "bob"):
            calls.start_soon(serve, principal)
        await anyio.wait_all_tasks_blocked()
        assert handed.say("name", "bob", CANCEL)
        assert not handed.say("name", "eve", CANCEL)
        await anyio.wait_all_tasks_blocked()
        assert answers == [("bob", None)]
        over.set()
    assert sorted(answers[1:]) == [("ann", "done")] * 2
    assert not handed.say("name", "ann", CANCEL)
