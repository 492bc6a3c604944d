"""A call may be cancelled at any of the pool's waits: nothing of it stays, and the next call works."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from gateways import GatewayFactory
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall

pytestmark = pytest.mark.anyio

#: Turns of the event loop after which a call is cancelled: a first call takes fewer, as the test itself checks.
TURNS = (*range(40), *range(40, 160, 8))
#: Seconds for a call on the local engine, which takes milliseconds, on a busy machine.
PATIENCE = 60.0


async def call(gw: Gateway, task: str, action: str = "run") -> None:
    if action == "run":
        result = await gw.call(ToolCall("local", "terminal", {"command": "echo works", "task_id": task}))
        assert result.stdout == "works\n"
    else:
        await gw.call(ToolCall("local", "sandbox", {"action": action, "task_id": task}))


async def cancelled_after(turns: int, gw: Gateway, task: str, action: str) -> bool:
    """Begin a call and cancel it after so many turns of the event loop; whether it was still under way."""
    finished = False

    async def run() -> None:
        nonlocal finished
        await call(gw, task, action)
        finished = True

    async with anyio.create_task_group() as calls:
        calls.start_soon(run)
        for _ in range(turns):
            # A short sleep lets threads and supervisors go on, so that later waits are reached too.
            await (anyio.sleep(0.001) if turns > 20 else anyio.lowlevel.checkpoint())
        calls.cancel_scope.cancel()
    return not finished


@pytest.mark.parametrize("warm", [0, 1])
@pytest.mark.parametrize("action", ["run", "reset", "close"])
async def test_a_call_that_is_cancelled_at_any_wait_leaves_the_pool_consistent(
    gateway: GatewayFactory, action: str, warm: int, tmp_path: Path
) -> None:
    toml = '[pool]\nmax_sandboxes = 3\nacquire_timeout = "5s"\n'
    cancelled = 0
    async with gateway(toml, engine="local", warm=warm, state=tmp_path / "state") as gw:
        for turns in TURNS:
            task = f"task {turns}"
            with anyio.fail_after(PATIENCE):
                if action != "run":
                    await call(gw, task)
                cancelled += await cancelled_after(turns, gw, task, action)
                slots = gw.pool.slots
                assert slots.waiting == 0
                assert all(slot.leases == 0 for slot in slots)
                assert len(slots) <= 3
                await call(gw, task)
                await call(gw, task, "close")
        assert 0 < cancelled < len(TURNS), "some calls were cancelled under way, and some had ended"
        assert gw.pool.deployment.is_shared
    processes = gw.engine._processes  # type: ignore[attr-defined]
    assert processes == {}
    assert list(Path(gw.engine._folder).glob("ws-*")) == []  # type: ignore[attr-defined]


async def test_calls_that_wait_for_a_place_and_give_up_leave_no_trace(gateway: GatewayFactory) -> None:
    async with gateway("[pool]\nmax_sandboxes = 1\n", engine="local") as gw:
        await call(gw, "first")
        async with anyio.create_task_group() as calls:
            calls.start_soon(gw.call, ToolCall("local", "terminal", {"command": "sleep 60", "task_id": "first"}))
            await anyio.sleep(0.1)
            for number in range(5):
                calls.start_soon(call, gw, f"waits {number}")
            with anyio.fail_after(PATIENCE):
                while gw.pool.slots.waiting < 5:
                    await anyio.sleep(0.01)
            calls.cancel_scope.cancel()
        assert gw.pool.slots.waiting == 0
        await call(gw, "next")
        assert len(gw.pool.slots) == 1
