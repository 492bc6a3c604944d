"""Containers for one call, and containers that are kept after their task, on the real engine."""

import tomllib

import anyio
import docker
import pytest

from gateways import GatewayFactory
from observe import HOST_TIMEOUT, commands_in, containers, eventually, marker
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

MANIFEST = """version = "1"
[skills.once]
description = "Runs a line in a container of its own."
source = "docker:taskcell/base:latest"
[skills.once.docker]
entrypoint = ["sh", "-c"]
reuse = "call"
{more}
"""


@pytest.fixture
def toml(tmp_path) -> str:
    (tmp_path / "once.toml").write_text(MANIFEST.format(more=""))
    return f'manifests = ["once.toml"]\ndeployment = "{marker()}"\n'


async def run(gw: Gateway, line: str, tool: str = "once", task: str = "t") -> str:
    arguments = {"args": [line]} if tool != "terminal" else {"command": line}
    result = await gw.call(ToolCall("local", tool, {**arguments, "task_id": task}))
    assert (result.exit_code, result.notes) == (0, ())
    return result.stdout


def mine(api: docker.APIClient, toml: str) -> list[str]:
    return containers(api, taskcell__deployment=tomllib.loads(toml)["deployment"])


async def test_each_call_has_a_fresh_container_and_the_same_workspace(
    gateway: GatewayFactory, docker_api: docker.APIClient, toml: str
) -> None:
    with anyio.fail_after(3 * HOST_TIMEOUT):
        async with gateway(toml) as gw:
            lines = [
                await run(gw, f"echo {i} | tee -a /tmp/f /workspace/f; cat /tmp/f /workspace/f") for i in (1, 2, 3)
            ]
            # What holds the files until the next call is the one that this call will have.
            assert await anyio.to_thread.run_sync(lambda: eventually(lambda: len(mine(docker_api, toml)) == 1))
    assert [line.split() for line in lines] == [["1"] * 3, ["2", "2", "1", "2"], ["3", "3", "1", "2", "3"]]
    assert mine(docker_api, toml) == []


async def test_calls_at_the_same_time_have_a_container_each(gateway: GatewayFactory, toml: str) -> None:
    seen: list[str] = []
    with anyio.fail_after(3 * HOST_TIMEOUT):
        async with gateway(toml) as gw, anyio.create_task_group() as calls:

            async def meet(own: str, other: str) -> None:
                meet = f"touch {own} /tmp/{own}; until [ -e {other} ]; do sleep 0.05; done; ls /tmp"
                seen.append(await run(gw, meet))

            calls.start_soon(meet, "a", "b")
            calls.start_soon(meet, "b", "a")
    assert sorted(seen) == ["a\n", "b\n"]


async def test_what_a_call_leaves_running_goes_with_its_container_and_the_terminal_keeps_the_files(
    gateway: GatewayFactory, docker_api: docker.APIClient, toml: str
) -> None:
    mark = marker()
    with anyio.fail_after(3 * HOST_TIMEOUT):
        async with gateway(toml) as gw:
            await run(gw, "echo x > f", tool="terminal")
            left = await gw.call(ToolCall("local", "once", {"args": [f"setsid sleep {mark} & cat f"], "task_id": "t"}))
            assert left.stdout == "x\n"

            def only_the_terminal() -> bool:
                ids = mine(docker_api, toml)
                return len(ids) == 1 and not any(mark in line for line in commands_in(docker_api, ids[0]))

            assert await anyio.to_thread.run_sync(lambda: eventually(only_the_terminal))
            assert await run(gw, "cat f", tool="terminal") == "x\n"


async def test_a_cancelled_call_leaves_no_container_of_its_own(
    gateway: GatewayFactory, docker_api: docker.APIClient, toml: str
) -> None:
    mark = marker()
    with anyio.fail_after(3 * HOST_TIMEOUT):
        async with gateway(toml) as gw:
            async with anyio.create_task_group() as calls:
                calls.start_soon(run, gw, f"sleep {mark}")

                def runs() -> bool:
                    return any(mark in line for id in mine(docker_api, toml) for line in commands_in(docker_api, id))

                assert await anyio.to_thread.run_sync(lambda: eventually(runs))
                calls.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(lambda: eventually(lambda: len(mine(docker_api, toml)) == 1))
            assert await run(gw, "echo again") == "again\n"
    assert mine(docker_api, toml) == []


async def test_a_container_that_is_to_be_kept_is_stopped_and_there_after_its_task(
    gateway: GatewayFactory, docker_api: docker.APIClient, tmp_path, toml: str
) -> None:
    (tmp_path / "once.toml").write_text(MANIFEST.format(more="rm = false").replace('reuse = "call"', ""))
    with anyio.fail_after(3 * HOST_TIMEOUT):
        async with gateway(toml) as gw:
            await run(gw, "true")
            await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "t"}))
    (kept,) = mine(docker_api, toml)
    try:
        state = docker_api.inspect_container(kept)["State"]
        assert (state["Running"], state["Status"]) == (False, "exited")
    finally:
        docker_api.remove_container(kept, force=True, v=True)
