"""The end of a server closes each sandbox for itself: one that cannot be closed keeps no other, and is named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import anyio.abc
import pytest
from structlog.testing import capture_logs

from gateways import GatewayFactory
from observe import HOST_TIMEOUT, eventually
from taskcell.errors import SandboxLost
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall
from taskcell.pool.slot import Slot

pytestmark = pytest.mark.anyio


async def call(gw: Gateway, task: str) -> None:
    result = await gw.call(ToolCall("local", "terminal", {"command": "echo works", "task_id": task}))
    assert result.stdout == "works\n"


async def warm(gw: Gateway) -> Slot:
    """The warm sandbox, once there is one."""
    with anyio.fail_after(HOST_TIMEOUT):
        while True:
            found = [slot for slot in gw.pool.slots if slot.is_warm and slot.settled.is_set()]
            if found:
                return found[0]
            await anyio.sleep(0.02)


def runs(process: anyio.abc.Process) -> bool:
    return Path(f"/proc/{process.pid}/exe").exists()


async def test_a_sandbox_that_cannot_be_closed_keeps_no_other_and_no_new_one_is_made_meanwhile(
    gateway: GatewayFactory,
) -> None:
    with capture_logs() as logs:
        async with gateway(engine="local", warm=1) as gw:
            await call(gw, "stuck")
            await call(gw, "other")
            await warm(gw)
            engine = gw.engine
            processes = dict(engine._processes)  # type: ignore[attr-defined]
            (stuck,) = [slot for slot in gw.pool.slots if slot.task.task == "stuck"]
            assert stuck.sandbox is not None
            name = stuck.sandbox.container.name
            os.kill(processes[stuck.sandbox.container.id].pid, signal.SIGSTOP)
        assert engine._processes == {}  # type: ignore[attr-defined]
    assert len(processes) == 3
    assert await anyio.to_thread.run_sync(eventually, lambda: not any(map(runs, processes.values())))
    (said,) = [line for line in logs if "not every sandbox" in line["event"]]
    assert said["names"] == [name]


async def test_a_call_that_waits_for_a_place_gets_no_sandbox_from_a_server_that_ends(gateway: GatewayFactory) -> None:
    refused: list[str] = []

    async def wait_for_a_place(gw: Gateway) -> None:
        with pytest.raises(SandboxLost) as error:
            await call(gw, "waits")
        refused.append(str(error.value))

    async with anyio.create_task_group() as calls, gateway("[pool]\nmax_sandboxes = 1\n", engine="local") as gw:
        await call(gw, "works")
        calls.start_soon(gw.call, ToolCall("local", "terminal", {"command": "sleep 60", "task_id": "works"}))
        calls.start_soon(wait_for_a_place, gw)
        with anyio.fail_after(HOST_TIMEOUT):
            while not gw.pool.slots.waiting:
                await anyio.sleep(0.02)
    assert "The server is closing" in refused[0]
    assert gw.engine._processes == {}  # type: ignore[attr-defined]
