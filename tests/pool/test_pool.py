"""Warm sandboxes, bounds, idle ones and persistent files, on the real engine."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import docker
import pytest
from structlog.testing import capture_logs

from gateways import GatewayFactory
from observe import HOST_TIMEOUT, containers, eventually, marker
from taskcell.errors import EngineError, NoRoom
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


async def terminal(
    gw: Gateway, command: str, task: str = "t", principal: str = "local", **arguments: object
) -> ProcessResult:
    with anyio.fail_after(2 * HOST_TIMEOUT):
        return await gw.call(ToolCall(principal, "terminal", {"command": command, "task_id": task, **arguments}))


async def becomes(holds: Callable[[], bool]) -> None:
    assert await anyio.to_thread.run_sync(eventually, holds)


class Deployed:
    """What the engine has of one deployment."""

    def __init__(self, api: docker.APIClient) -> None:
        self.api = api
        self.name = f"pool-{marker()[:9]}"
        self.toml = f'deployment = "{self.name}"\n'

    @property
    def ids(self) -> list[str]:
        return containers(self.api, taskcell__deployment=self.name)

    @property
    def names(self) -> list[str]:
        found = self.api.containers(all=True, filters={"label": f"taskcell.deployment={self.name}"})
        return sorted(str(one["Names"][0]).removeprefix("/") for one in found)

    @property
    def warm(self) -> list[str]:
        return [name for name in self.names if name.startswith("taskcell-warm-")]

    @property
    def volumes(self) -> list[str]:
        found = self.api.volumes(filters={"label": f"taskcell.deployment={self.name}"})["Volumes"] or []
        return [str(volume["Name"]) for volume in found]


@pytest.fixture
def deployed(docker_api: docker.APIClient) -> Deployed:
    return Deployed(docker_api)


# --- warm


async def test_a_new_task_gets_the_warm_sandbox_and_another_one_is_made(
    gateway: GatewayFactory, deployed: Deployed
) -> None:
    async with gateway(deployed.toml, warm=1) as gw:
        await terminal(gw, "echo x > file; echo x > /tmp/file", "first")
        await becomes(lambda: len(deployed.warm) == 1)
        before = set(deployed.ids)
        assert (await terminal(gw, "ls -A . /tmp; id -un", "second")).stdout == ".:\n\n/tmp:\nagent\n"
        await becomes(lambda: len(deployed.warm) == 1 and len(deployed.ids) == 3)
        assert before < set(deployed.ids)
        assert (await terminal(gw, "cat file", "first")).stdout == "x\n"
    assert deployed.ids == deployed.volumes == []


async def test_a_warm_sandbox_that_is_not_in_order_is_not_handed_out(
    gateway: GatewayFactory, deployed: Deployed, docker_api: docker.APIClient, tmp_path: Path
) -> None:
    def ready() -> bool:
        """The server has written down that there is one; its container is there earlier."""
        return '"task": ""' in "".join(file.read_text() for file in (tmp_path / "state").glob("*.json"))

    docker_api.tag("taskcell/base:latest", f"taskcell/{deployed.name}", "latest")
    try:
        toml = f'{deployed.toml}[terminal]\nimage = "taskcell/{deployed.name}:latest"\n'
        async with gateway(toml, warm=1, state=tmp_path / "state") as gw:
            await terminal(gw, "true", "first")
            await becomes(ready)
            # Paused: it is there, and says nothing.
            docker_api.pause(deployed.warm[0])
            assert (await terminal(gw, "echo works", "second")).stdout == "works\n"
            await becomes(lambda: len(deployed.warm) == 1 and len(deployed.ids) == 3 and ready())
            old = docker_api.inspect_container(deployed.warm[0])["Id"]
            conf = {"Labels": {"rebuilt": "yes"}}
            docker_api.commit(old, f"taskcell/{deployed.name}", "latest", conf=conf)
            assert (await terminal(gw, "echo works", "third")).stdout == "works\n"
            await becomes(lambda: old not in deployed.ids)
    finally:
        docker_api.remove_image(f"taskcell/{deployed.name}:latest", force=True)


async def test_no_sandbox_is_made_ready_before_the_first_call(gateway: GatewayFactory, deployed: Deployed) -> None:
    async with gateway(deployed.toml, warm=2) as gw:
        await gw.call(ToolCall("local", "sandbox", {"action": "status"}))
        await anyio.sleep(1.5)  # longer than the pool's own look at things
        assert deployed.ids == []


# --- bounds


async def test_the_least_recently_used_idle_sandbox_makes_room_and_its_task_is_told(
    gateway: GatewayFactory, deployed: Deployed
) -> None:
    async with gateway(f"{deployed.toml}[pool]\nmax_sandboxes = 2\n") as gw:
        for task in ("a", "b", "c"):
            await terminal(gw, "echo x > file", task)
        await becomes(lambda: len(deployed.ids) == 2)
        assert (await terminal(gw, "cat file", "c")).stdout == "x\n"
        again = await terminal(gw, "cat file", "a")
        assert again.exit_code == 1
        assert "closed to make room" in again.notes[0]
        assert "are lost" in again.notes[0]


async def test_with_all_places_in_use_a_call_waits_and_then_says_who_has_them(
    gateway: GatewayFactory, deployed: Deployed
) -> None:
    toml = f'{deployed.toml}[pool]\nmax_sandboxes = 2\nacquire_timeout = "300ms"\n'
    async with gateway(toml) as gw:
        await terminal(gw, "sleep 170", "mine", wait=0.1)
        await terminal(gw, "sleep 170", "secret-name", "somebody", wait=0.1)
        with pytest.raises(NoRoom, match=r"300 ms|0\.3 s.*max_sandboxes \(2\).*'mine'.*1 by others") as refused:
            await terminal(gw, "true", "next")
        assert "secret-name" not in str(refused.value)
        await terminal(gw, "pkill sleep", "mine")
        assert (await terminal(gw, "echo works", "next")).stdout == "works\n"


async def test_a_herd_of_calls_for_few_new_tasks_makes_one_container_each_and_leaves_none(
    gateway: GatewayFactory, deployed: Deployed
) -> None:
    toml = f"{deployed.toml}[pool]\nmax_sandboxes = 100\nmax_per_principal = 100\n"
    results: list[ProcessResult] = []
    async with gateway(toml) as gw:

        async def call(number: int) -> None:
            arguments = {"command": f"echo {number}", "task_id": f"task-{number % 50}"}
            results.append(await gw.call(ToolCall("local", "terminal", arguments)))

        with anyio.fail_after(6 * HOST_TIMEOUT):
            async with anyio.create_task_group() as calls:
                for number in range(200):
                    calls.start_soon(call, number)
        assert sorted(int(result.stdout) for result in results) == list(range(200))
        assert len(deployed.ids) == 50
    await becomes(lambda: deployed.ids == deployed.volumes == [])


# --- idle


async def test_an_idle_sandbox_is_closed_but_not_one_with_a_living_process(
    gateway: GatewayFactory, deployed: Deployed
) -> None:
    async with gateway(f'{deployed.toml}[pool]\nidle_ttl = "500ms"\n') as gw:
        await terminal(gw, "echo x > file", "idle")
        await terminal(gw, "sleep 300 > /dev/null & echo x > file", "works")
        await becomes(lambda: len(deployed.ids) == 1)
        await anyio.sleep(1.5)  # three times the time to live
        assert (await terminal(gw, "cat file; pgrep -c sleep", "works")).stdout == "x\n1\n"
        after = await terminal(gw, "cat file", "idle")
        assert "closed after 0.5 s without a call or a process" in after.notes[0]
        assert deployed.volumes != []
    assert deployed.volumes == []


# --- persistent files

PERSISTENT = "[workspace]\npersistent = true\n"


async def test_persistent_files_outlive_sandboxes_and_servers_in_a_volume_of_their_own(
    gateway: GatewayFactory, deployed: Deployed, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    try:
        async with gateway(deployed.toml + PERSISTENT, state=state) as gw:
            assert (await terminal(gw, "echo kept > file; stat -c '%u %a' .")).stdout == "1000 2775\n"
            await gw.call(ToolCall("local", "jq", {"args": ["-n", "1"], "task_id": "t"}))
            await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "t"}))
            assert (await terminal(gw, "cat file")).stdout == "kept\n"
        assert deployed.ids == []
        async with gateway(deployed.toml + PERSISTENT, state=state) as gw:
            assert (await terminal(gw, "cat file")).stdout == "kept\n"
            assert (await terminal(gw, "ls -A", "other")).stdout == ""
    finally:
        for volume in deployed.volumes:
            deployed.api.remove_volume(volume)


async def test_persistent_files_in_a_host_folder_belong_to_the_sandbox_and_can_be_used_by_the_host(
    gateway: GatewayFactory, deployed: Deployed, tmp_path: Path
) -> None:
    root = tmp_path / "work"
    toml = f'{deployed.toml}{PERSISTENT}root = "{root}"\n'
    async with gateway(toml) as gw:
        await terminal(gw, "mkdir sub; echo sandbox > sub/file")
        (folder,) = root.iterdir()
        assert (folder / "sub/file").read_text() == "sandbox\n"
        (folder / "sub/from-host").write_text("host\n")
        os.chown(folder / "sub/from-host", (folder / "sub").stat().st_uid, -1)
        assert (await terminal(gw, "cat sub/from-host && echo more >> sub/from-host && rm sub/file")).stdout == "host\n"
        assert len(list(root.iterdir())) == 1
    assert (folder / "sub/from-host").read_text() == "host\nmore\n"
    assert folder.stat().st_mode & stat.S_IWOTH == 0


async def test_a_root_for_files_that_is_not_ones_own_is_refused(
    gateway: GatewayFactory, deployed: Deployed, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    async with gateway(f'{deployed.toml}{PERSISTENT}root = "{tmp_path}/open"\n') as gw:
        with pytest.raises(EngineError, match="can be written by others"):
            await terminal(gw, "true")
    assert deployed.ids == []


# --- an engine that fails


class Undeletable:
    """A file in a container's own folder that the engine cannot remove, so that it leaves a dead container."""

    def __init__(self, api: docker.APIClient, container: str) -> None:
        self._api, self._container = api, container
        self._file = Path(api.info()["DockerRootDir"], "containers", container, "undeletable")
        self._file.touch()
        if subprocess.run(["chattr", "+i", self._file], check=False, capture_output=True).returncode:
            pytest.skip("the engine's file system has no immutable files")

    def release_when_removal_has_failed(self) -> None:
        def has_failed() -> bool:
            return "unable to remove" in str(self._api.inspect_container(self._container)["State"]["Error"])

        try:
            assert eventually(has_failed)
        finally:
            self.release()

    def release(self) -> None:
        subprocess.run(["chattr", "-i", self._file], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can reach the engine's own files")
async def test_a_container_that_the_engine_failed_to_remove_by_itself_is_gone_at_the_servers_end(
    gateway: GatewayFactory, deployed: Deployed
) -> None:
    async with anyio.create_task_group() as group, gateway(deployed.toml) as gw:
        await terminal(gw, "true")
        (container,) = deployed.ids
        stuck = Undeletable(deployed.api, container)
        group.start_soon(anyio.to_thread.run_sync, stuck.release_when_removal_has_failed)
    assert deployed.ids == deployed.volumes == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can reach the engine's own files")
async def test_a_container_that_the_engine_cannot_remove_is_named_at_the_servers_end_and_keeps_no_other(
    gateway: GatewayFactory, deployed: Deployed
) -> None:
    with capture_logs() as logs:
        async with gateway(deployed.toml, warm=1) as gw:
            await terminal(gw, "true", "other")
            await terminal(gw, "true", "stuck")
            await becomes(lambda: len(deployed.warm) == 1)
            status = await gw.call(ToolCall("local", "sandbox", {"action": "status", "task_id": "stuck"}))
            name = status.sandboxes[0].container
            container = deployed.api.inspect_container(name)["Id"]
            stuck = Undeletable(deployed.api, container)
    try:
        assert deployed.ids == [container]
        (said,) = [line for line in logs if "not every sandbox" in line["event"]]
        assert said["names"] == [name]
    finally:
        stuck.release()
        deployed.api.remove_container(container, force=True)
