"""Whoever a profile's commands run as can use the task's files, in memory and on disk."""

from __future__ import annotations

import pytest

from agent_task import Task
from gateways import GatewayFactory
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
