"""How a container stands, as its engine sees it from outside."""

from __future__ import annotations

import os
import signal

import anyio
import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from observe import HOST_TIMEOUT
from taskcell.engine.base import Container, Standing
from taskcell.engine.docker.standing import CHANNEL
from taskcell.gateway.gateway import Gateway

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


async def becomes(gw: Gateway, container: Container, wanted: Standing) -> None:
    """Wait until it stands so: a process stops, goes on and ends a moment after its signal."""
    with anyio.fail_after(HOST_TIMEOUT):
        while await gw.engine.standing(container) is not wanted:
            await anyio.sleep(0.02)


async def test_a_container_whose_supervisor_or_channel_a_signal_stops_stands_as_stopped(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway() as gw:
        # Another program that is stopped does not count.
        await Task(gw).terminal("sleep 60 & kill -STOP $!")
        (slot,) = gw.pool.slots
        assert slot.sandbox is not None
        container = slot.sandbox.container
        await becomes(gw, container, Standing.RUNS)
        listed = docker_api.top(container.id, ps_args="-o pid,args")["Processes"]
        pid_1 = int(docker_api.inspect_container(container.id)["State"]["Pid"])
        (channel,) = [int(pid) for pid, command in listed if tuple(command.split()) == CHANNEL]
        for pid in (pid_1, channel):
            os.kill(pid, signal.SIGSTOP)
            await becomes(gw, container, Standing.STOPPED)
            os.kill(pid, signal.SIGCONT)
            await becomes(gw, container, Standing.RUNS)
        docker_api.pause(container.id)
        await becomes(gw, container, Standing.RUNS)
        docker_api.unpause(container.id)
        await anyio.to_thread.run_sync(lambda: docker_api.remove_container(container.id, force=True))
        await becomes(gw, container, Standing.ENDED)
