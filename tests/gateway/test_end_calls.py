"""What happens to running calls when the server ends: killed and answered, or left to the next server."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from gateways import GatewayFactory
from observe import HOST_TIMEOUT
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, Status, ToolCall

pytestmark = pytest.mark.anyio

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'
KEEP = LOCAL + '[pool]\non_exit = "keep"\n'


async def ended(gw: Gateway) -> ProcessResult:
    """What a call returns whose server ends while its command runs."""
    reports, started = list[object](), anyio.Event()
    asked = ToolCall("ada", "process", {"action": "poll", "process_id": "p1", "cursor": 0})

    async def run() -> None:
        call = ToolCall("ada", "terminal", {"command": "echo partial; sleep 60"})
        reports.append(await gw.call(call, lambda process: started.set()))

    with anyio.fail_after(HOST_TIMEOUT):
        async with anyio.create_task_group() as calls:
            calls.start_soon(run)
            await started.wait()
            while not (await gw.call(asked)).result.stdout:
                await anyio.sleep(0.02)
            await gw.end_calls()
    (report,) = reports
    assert isinstance(report, ProcessResult)
    return report


async def test_a_call_is_answered_with_what_it_printed_and_its_command_is_killed(gateway: GatewayFactory) -> None:
    async with gateway(LOCAL, engine="local") as gw:
        report = await ended(gw)
    assert (report.status, report.stdout) == (Status.KILLED, "partial\n")


async def test_where_the_next_server_takes_over_a_call_is_answered_as_running_and_its_command_goes_on(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(KEEP, engine="local", state=tmp_path / "state") as gw:
        report = await ended(gw)
        assert (report.status, report.stdout) == (Status.RUNNING, "partial\n")
        polled = await gw.call(ToolCall("ada", "process", {"action": "poll", "process_id": report.process_id}))
        assert "running" in polled.said()
        await gw.call(ToolCall("ada", "sandbox", {"action": "close"}))
