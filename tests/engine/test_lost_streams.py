"""The stream to a real sandbox breaks, and the sandbox goes on: in the network, and in the container."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import docker
import pytest

from gateways import GatewayFactory
from held_engine import HeldEngine
from observe import HOST_TIMEOUT, containers, eventually
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Prints a line for each that it reads, and says at its end how many processes ran it: one.
ECHOES = "echo ran >> runs; while read -r line; do echo $line; done; wc -l < runs"
LINES = 12


@pytest.fixture
def relay() -> Iterator[HeldEngine]:
    relay = HeldEngine()
    yield relay
    relay.close()


async def call(gw: Gateway, tool: str, **arguments: object) -> ProcessResult:
    answer = await gw.call(ToolCall("local", tool, arguments))
    result = getattr(answer, "result", answer)
    assert isinstance(result, ProcessResult)
    return result


async def written_to_while_streams_break(gw: Gateway, cut: Callable[[], None]) -> None:
    """Every line reaches a command once, and comes back once, though each finds its stream broken."""
    await call(gw, "terminal", command="export KEPT=yes; cd /tmp")
    started = await call(gw, "terminal", command=f"cd /workspace; {ECHOES}", background=True)
    sent = []
    with anyio.fail_after(6 * HOST_TIMEOUT):
        for number in range(LINES):
            await anyio.to_thread.run_sync(cut)
            sent.append(f"line-{number}")
            await call(gw, "process", action="write", process_id=started.process_id, data=f"{sent[-1]}\n")
        await call(gw, "process", action="close_stdin", process_id=started.process_id)
        ended = await call(gw, "process", action="wait", process_id=started.process_id)
        assert (ended.status.value, ended.stdout.split()) == ("exited", [*sent, "1"])
        after = await call(gw, "terminal", command="echo $KEPT; pwd")
        assert (after.stdout, after.notes) == ("yes\n/tmp\n", ())


async def test_a_sandbox_goes_on_when_every_connection_to_the_engine_breaks(
    gateway: GatewayFactory, relay: HeldEngine
) -> None:
    async with gateway(host=relay.host) as gw:
        await written_to_while_streams_break(gw, relay.cut)
    assert relay.seen("/exec/[^/]+/start") > LINES // 2


async def test_a_sandbox_goes_on_when_the_process_that_carries_its_channel_is_killed(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    def bridges() -> list[int]:
        (container,) = containers(docker_api, taskcell__deployment="killed-bridge")
        found = docker_api.top(container, ps_args="-o pid,args")["Processes"]
        return [int(pid) for pid, command in found if " connect " in command]

    def kill() -> None:
        assert eventually(lambda: bool(bridges()))
        for pid in bridges():
            os.kill(pid, signal.SIGKILL)
            assert eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]

    async with gateway('deployment = "killed-bridge"') as gw:
        await written_to_while_streams_break(gw, kill)
