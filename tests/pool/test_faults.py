"""What goes wrong around a sandbox ends in one clear sentence or a `lost`, and the next call works."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import docker
import pytest

from gateways import GatewayFactory
from observe import HOST_TIMEOUT, alive, containers, eventually, marker
from second_engine import DASH, SecondEngine
from serving import serving
from taskcell.errors import Denied, EngineUnavailable, ImageMissing, SpawnFailed
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from taskcell.tools.binding import CommandTool

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


async def terminal(gw: Gateway, command: str, **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, **arguments}))


async def test_a_container_that_is_killed_under_a_command_is_lost_and_the_next_call_has_a_fresh_one(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    results = []
    async with gateway('deployment = "killed-outside"') as gw:
        await terminal(gw, "echo kept > file")

        async def long() -> None:
            results.append(await terminal(gw, "echo partial; sleep 60"))

        async with anyio.create_task_group() as calls:
            calls.start_soon(long)
            (container,) = containers(docker_api, taskcell__deployment="killed-outside")
            assert await anyio.to_thread.run_sync(eventually, lambda: "sleep" in str(docker_api.top(container)))
            docker_api.kill(container)
        (lost,) = results
        assert (lost.status.value, lost.exit_code, lost.stdout) == ("lost", None, "partial\n")
        assert "not run again" in lost.notes[0]
        after = await terminal(gw, "cat file; echo works")
        assert after.stdout == "cat: file: No such file or directory\nworks\n"
        assert "files that were in the workspace are lost" in after.notes[0]
        assert (await terminal(gw, "true")).notes == ()


async def test_a_workspace_outlives_a_dead_sandbox_while_another_one_of_the_task_holds_it(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "held"') as gw:
        await terminal(gw, "echo kept > file")
        await gw.call(ToolCall("local", "jq", {"args": ["-n", "1"]}))
        wanted = {"taskcell__deployment": "held", "taskcell__profile": "terminal"}
        docker_api.kill(containers(docker_api, **wanted)[0])
        assert await anyio.to_thread.run_sync(eventually, lambda: not containers(docker_api, **wanted))
        after = await terminal(gw, "cat file")
        assert after.stdout == "kept\n"
        assert "still there" in after.notes[0]


async def test_reset_gives_a_fresh_container_with_the_same_workspace(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        await terminal(gw, "echo kept > file; echo gone > /tmp/file; cd /tmp; export A=1; sleep 300 &")
        report = await gw.call(ToolCall("local", "sandbox", {"action": "reset"}))
        assert len(report.sandboxes) == 1
        after = await terminal(gw, 'pwd; cat file; ls /tmp; echo "[$A]"; ps -e -o args= | grep -c "[s]leep 300"')
        assert after.stdout == "/workspace\nkept\n[]\n0\n"


def changed(gw: Gateway, **profile: object) -> dict[str, CommandTool]:
    """The gateway's tools, with another profile for the terminal."""
    terminal_tool = gw.tools["terminal"]
    return {**gw.tools, "terminal": replace(terminal_tool, profile=replace(terminal_tool.profile, **profile))}


async def test_a_changed_configuration_that_cannot_be_started_costs_no_files(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        before = dict(gw.tools)
        await terminal(gw, "echo kept > file")
        gw.replace_tools(changed(gw, image="taskcell/nothing:latest"))
        with pytest.raises(ImageMissing):
            await terminal(gw, "cat file")
        gw.replace_tools(before)
        assert (await terminal(gw, "cat file")).stdout == "kept\n"


async def test_a_changed_configuration_leaves_running_calls_alone(gateway: GatewayFactory) -> None:
    results: list[ProcessResult] = []
    async with gateway() as gw:
        await terminal(gw, "true")

        async def long() -> None:
            results.append(await terminal(gw, "touch begun; sleep 2; echo finished"))

        async with anyio.create_task_group() as calls:
            calls.start_soon(long)
            while (await terminal(gw, "ls")).stdout != "begun\n":
                await anyio.sleep(0.02)
            gw.replace_tools(changed(gw, memory=1536 << 20))
            assert (await terminal(gw, "ls")).stdout == "begun\n"
        assert (results[0].status.value, results[0].stdout) == ("exited", "finished\n")


async def test_a_reset_after_a_death_says_that_the_files_are_lost(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "reset-lost"') as gw:
        await terminal(gw, "echo gone > file")
        docker_api.kill(containers(docker_api, taskcell__deployment="reset-lost")[0])
        assert await anyio.to_thread.run_sync(
            eventually, lambda: not containers(docker_api, taskcell__deployment="reset-lost")
        )
        report = await gw.call(ToolCall("local", "sandbox", {"action": "reset"}))
        assert "files that were in the workspace are lost" in report.notes[0]


async def test_a_paused_sandbox_is_removed_at_the_end_and_keeps_no_other_tasks_volume(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "paused"') as gw:
        for task in ("one", "two"):
            await terminal(gw, "true", task_id=task)
        docker_api.pause(containers(docker_api, taskcell__deployment="paused")[0])
    assert containers(docker_api, taskcell__deployment="paused") == []
    assert not docker_api.volumes(filters={"label": "taskcell.deployment=paused"})["Volumes"]


async def test_a_server_that_ends_while_a_sandbox_is_made_leaves_nothing(
    tmp_path: Path, docker_api: docker.APIClient
) -> None:
    def left() -> list[object]:
        volumes = docker_api.volumes(filters={"label": "taskcell.deployment=ends-early"})["Volumes"] or []
        return [*containers(docker_api, taskcell__deployment="ends-early"), *volumes]

    for delay in (0.02, 0.06, 0.1, 0.15):
        with suppress(BaseExceptionGroup):
            toml = 'deployment = "ends-early"'
            async with serving(tmp_path, toml) as (client, pid), anyio.create_task_group() as calls:
                calls.start_soon(client.call_tool, "terminal", {"command": "true"})
                await anyio.sleep(delay)
                os.kill(pid, signal.SIGTERM)
    # What the server could not wait for goes by itself when nobody has claimed it, and the engine may be slow.
    assert await anyio.to_thread.run_sync(eventually, lambda: not left(), 3 * HOST_TIMEOUT)


async def test_two_tasks_and_two_principals_never_see_each_others_files(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        await terminal(gw, "echo mine > file", task_id="one")
        other = await terminal(gw, "ls -A", task_id="two")
        stranger = await gw.call(ToolCall("someone else", "terminal", {"command": "ls -A", "task_id": "one"}))
        assert (other.stdout, stranger.stdout) == ("", "")


async def test_fifty_calls_at_once_for_one_new_task_make_one_container(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway('deployment = "herd"') as gw:
        results: list[ProcessResult] = []

        async def call(number: int) -> None:
            results.append(await terminal(gw, f"echo {number}"))

        async with anyio.create_task_group() as calls:
            for number in range(50):
                calls.start_soon(call, number)
        assert sorted(int(result.stdout) for result in results) == list(range(50))
        assert len({result.process_id for result in results}) == 50
        assert len(containers(docker_api, taskcell__deployment="herd")) == 1


async def test_a_caller_that_gives_up_while_the_sandbox_is_made_does_not_stop_the_others(
    gateway: GatewayFactory,
) -> None:
    async with gateway() as gw:
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(terminal, gw, "echo first")
            await anyio.lowlevel.checkpoint()
            impatient.cancel_scope.cancel()
        assert (await terminal(gw, "echo second")).stdout == "second\n"


async def test_running_out_of_memory_says_so_and_the_sandbox_works_on(gateway: GatewayFactory) -> None:
    async with gateway('[terminal]\nmemory = "200m"\n[workspace]\nsize = "16m"') as gw:
        result = await terminal(gw, "python3 -c 'x = bytearray(500_000_000)'")
        assert (result.status.value, result.exit_code) == ("oom_killed", 137)
        assert "memory was used up" in result.notes[0]
        assert (await terminal(gw, "echo works")).stdout == "works\n"


async def test_a_missing_image_says_how_to_get_it(gateway: GatewayFactory) -> None:
    async with gateway('[terminal]\nimage = "taskcell/nothing:latest"') as gw:
        with pytest.raises(ImageMissing, match=r"taskcell/nothing:latest.*taskcell image build"):
            await terminal(gw, "true")
    async with gateway('[terminal]\nimage = "localhost:9/nothing:latest"') as gw:
        with pytest.raises(ImageMissing, match=r"localhost:9/nothing:latest.*could not be pulled"):
            await terminal(gw, "true")


async def test_no_engine_says_where_it_looked(gateway: GatewayFactory, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"No container engine answers at unix:///.*DOCKER_HOST"):
        async with gateway(host=f"unix://{tmp_path}/nothing.sock"):
            pass


async def test_a_program_that_is_not_there_and_a_folder_that_is_not_there_are_named(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        with pytest.raises(SpawnFailed, match="no/such/folder"):
            await terminal(gw, "true", workdir="no/such/folder")
        assert (await terminal(gw, "no-such-program")).exit_code == 127


async def test_a_removed_working_directory_is_replaced_by_the_workspace_with_a_note(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        removed = await terminal(gw, "mkdir -p gone && cd gone && export KEPT=yes && rmdir ../gone")
        assert "is gone; the next command starts in '/workspace'" in removed.notes[0]
        assert (await terminal(gw, "pwd; echo $KEPT")).stdout == "/workspace\nyes\n"
        await terminal(gw, "mkdir later && cd later")
        await gw.call(ToolCall("local", "sql", {"args": [":memory:", ".shell rmdir /workspace/later"]}))
        after = await terminal(gw, "pwd")
        assert after.stdout == "/workspace\n"
        assert "'/workspace/later' is gone" in after.notes[0]


async def test_the_policy_stands_between_every_call_and_the_engine(gateway: GatewayFactory) -> None:
    rule = '[[policy.rules]]\nname = "no-curl"\ntool = "terminal"\ncommand = "curl"\neffect = "deny"\nreason = "No."'
    async with gateway(rule) as gw:
        with pytest.raises(Denied, match="no-curl"):
            await terminal(gw, "curl x")
        assert (await gw.call(ToolCall("local", "sandbox", {"action": "status"}))).sandboxes == ()


async def test_an_engine_that_goes_away_in_the_middle_loses_the_command_and_says_so_at_the_next(
    gateway: GatewayFactory, second_engine: SecondEngine
) -> None:
    results = []
    async with gateway(DASH, host=second_engine.host) as gw:
        assert (await terminal(gw, "echo works")).stdout == "works\n"

        async def long() -> None:
            results.append(await terminal(gw, "echo partial; sleep 60"))

        async with anyio.create_task_group() as calls:
            calls.start_soon(long)
            await anyio.sleep(0.5)
            await anyio.to_thread.run_sync(second_engine.stop)
        assert (results[0].status.value, results[0].stdout) == ("lost", "partial\n")
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await terminal(gw, "echo again")


async def test_a_killed_servers_sandboxes_remove_themselves(tmp_path: Path, docker_api: docker.APIClient) -> None:
    mark = marker()
    seen = []
    toml = 'deployment = "killed-server"\n[pool]\nwarm = 0\norphan_ttl = "1s"\n'
    with suppress(BaseExceptionGroup):  # the client's connection ends under it
        async with serving(tmp_path, toml) as (client, pid), anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "terminal", {"command": f"setsid sleep {mark} & sleep {mark}"})
            seen.append(await anyio.to_thread.run_sync(eventually, lambda: len(alive(mark)) >= 2))
            seen.append(len(containers(docker_api, taskcell__deployment="killed-server")) == 1)
            os.kill(pid, signal.SIGKILL)
    assert seen == [True, True]
    assert await anyio.to_thread.run_sync(eventually, lambda: not alive(mark))
    assert await anyio.to_thread.run_sync(
        eventually, lambda: not containers(docker_api, taskcell__deployment="killed-server")
    )
