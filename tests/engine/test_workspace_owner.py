"""Whoever a profile's commands run as can use the task's files, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import anyio
import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from observe import eventually
from taskcell.engine.docker.memory_volume import owner_of, workspace_options
from taskcell.model import MIB, Profile, TaskKey


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        ("1000:1000", (1000, 1000)),
        ("1234", (1234, 1234)),
        ("33:44", (33, 44)),
        ("node", (1000, 1000)),
        ("7:users", (7, 7)),
    ],
)
def test_a_workspace_belongs_to_the_number_that_the_profile_names(user: str, owner: tuple[int, int]) -> None:
    profile = Profile("terminal", "image", "terminal", user=user)
    assert owner_of(profile) == owner
    assert workspace_options(MIB, owner)["o"] == f"size={MIB},uid={owner[0]},gid={owner[1]},mode=0755,nosuid,nodev"


@pytest.mark.anyio
@pytest.mark.engine
@pytest.mark.parametrize("where", ["memory", "disk"])
async def test_a_terminal_of_any_number_writes_and_edits_the_tasks_files(gateway: GatewayFactory, where: str) -> None:
    more = "[workspace]\npersistent = true\n" if where == "disk" else ""
    toml = f'deployment = "owner-{where}"\nmanifests = []\n[terminal]\nuser = "4321:4322"\n{more}'
    async with gateway(toml) as gw:
        task = Task(gw)
        await task.call("write_file", path="d/f", content="one")
        result = await task.terminal("id -u; echo two >> d/f; git init -q . && git status -s; stat -c %u /workspace")
        assert result.stdout == "4321\n?? d/\n4321\n"
        await task.sandbox("close")
        await gw.engine.remove_workspace(f"taskcell-data-owner-disk-{TaskKey('local', 't').digest}")


READER = """
[skills.show]
source = "docker:taskcell/base:latest"
[skills.show.docker]
entrypoint = "/bin/sh"
command = ["-c"]
workspace = "ro"
"""


@pytest.mark.anyio
@pytest.mark.engine
async def test_a_skill_that_may_only_read_can_be_a_tasks_first_and_leaves_no_volume(
    gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient
) -> None:
    (tmp_path / "skills.toml").write_text(READER)
    async with gateway('deployment = "reader-first"\nmanifests = ["skills.toml"]') as gw:
        task = Task(gw)
        first = await task.call("show", args=["touch x; ls"])
        assert "Read-only file system" in first.stderr
        await task.terminal("echo written > y")
        assert (await task.call("show", args=["cat y"])).stdout == "written\n"
        await task.sandbox("close")
    of_it = {"label": ["taskcell.deployment=reader-first", "taskcell.kind=workspace"]}
    assert await anyio.to_thread.run_sync(eventually, lambda: not docker_api.volumes(filters=of_it)["Volumes"])
