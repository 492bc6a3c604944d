"""`taskcell ps` and `taskcell rm` beside servers that run: from a process of their own, as a person uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from deployment_servers import Servers, run
from observe import alive, marker
from taskcell.client import connect
from taskcell.deployment.state_folder import DOOR

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Seconds for a command of the command line, on a busy machine.
PATIENCE = 90
FIELDS = {
    "task",
    "principal",
    "profile",
    "container",
    "state",
    "age_s",
    "idle_s",
    "processes",
    "memory_bytes",
    "labels",
    "ends_in_s",
}


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path, f"deployed-{marker()[:9]}")


async def taskcell(servers: Servers, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command about the same deployment as the servers'."""
    config = servers.folder / "taskcell.toml"
    config.write_text(servers.toml)
    argv = [sys.executable, "-m", "taskcell", *arguments, "--config", str(config)]
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            argv, env=servers.env, cwd=servers.folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    )


async def listed(servers: Servers) -> list[dict[str, Any]]:
    done = await taskcell(servers, "ps", "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


async def test_ps_shows_whose_each_sandbox_is_and_what_it_does(servers: Servers) -> None:
    assert await listed(servers) == []
    async with servers.serve() as (client, _):
        await run(client, "true", "idle one")
        await run(client, "sleep 300 > /dev/null &", "works")
        await servers.written('"processes": 1, "commands": 1')
        async with connect(door=servers.files[0].with_suffix(DOOR)) as cell:
            await cell.open("works", labels={"run": "1"}, lifetime=3600)
        busy, idle = sorted(await listed(servers), key=lambda row: str(row["state"]))
        assert set(busy) == FIELDS
        assert (busy["task"], busy["principal"], busy["profile"]) == ("works", "local", "terminal")
        assert (busy["state"], busy["processes"], busy["idle_s"]) == ("busy", 1, 0)
        assert (idle["task"], idle["state"], idle["processes"]) == ("idle one", "ready", 0)
        assert 0 <= idle["idle_s"] <= idle["age_s"] < PATIENCE
        assert idle["memory_bytes"] > 0
        assert (busy["labels"], idle["labels"], idle["ends_in_s"]) == ({"run": "1"}, {}, None)
        assert 0 < busy["ends_in_s"] <= 3600
        text = (await taskcell(servers, "ps")).stdout
        assert "idle one" in text
        assert "run=1" in text
        assert len(text.splitlines()) == 3


async def test_a_sandbox_without_a_server_is_shown_as_an_orphan(servers: Servers) -> None:
    await servers.leave_by_kill("true", task="left")
    (row,) = await listed(servers)
    assert (row["task"], row["state"]) == ("left", "orphan")
    assert (await taskcell(servers, "rm", "--all")).stdout == "1 sandbox closed.\n"
    assert await listed(servers) == []


async def test_rm_ends_a_running_servers_sandbox_and_the_server_heals(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    mark = marker()
    async with servers.serve() as (client, _):
        await run(client, f"setsid sleep {mark} > /dev/null &", "one")
        await run(client, "echo kept > file", "two")
        await servers.written('"two"')
        done = await taskcell(servers, "rm", "one", "--json")
        assert [row["task"] for row in json.loads(done.stdout)] == ["one"]
        assert alive(mark) == []
        assert len(servers.ids(docker_api)) == 1
        after = await run(client, "echo works", "one")
        assert after["stdout"] == "works\n"
        (note,) = after["notes"]
        assert note.startswith("The person who runs the server closed the task's sandbox (`taskcell rm`)")
        assert note.endswith("are lost.")
        assert (await run(client, "cat file", "two"))["stdout"] == "kept\n"


async def test_rm_of_nothing_says_so_and_fails(servers: Servers) -> None:
    done = await taskcell(servers, "rm", "nobody's")
    assert (done.returncode, done.stdout) == (1, "0 sandboxes closed.\n")
    assert "taskcell ps" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("root", [False, True])
async def test_what_a_living_server_makes_after_a_purge_can_be_purged_too(
    servers: Servers, docker_api: docker.APIClient, root: bool
) -> None:
    folder = servers.folder / "work"
    servers.toml += "[workspace]\npersistent = true\n" + (f'root = "{folder}"\n' if root else "")
    async with servers.serve() as (client, _):
        for note in ([], ["files that were in the workspace are lost"]):
            ran = await run(client, "ls -A; touch file", "files")
            assert ran["stdout"] == ""
            assert all(words in told for words, told in zip(note, ran["notes"], strict=True))
            await servers.written('"files"')
            done = await taskcell(servers, "rm", "files", "--purge")
            assert done.stdout == "1 sandbox closed, 1 persistent workspace deleted.\n"
    assert servers.volumes(docker_api) == []


@pytest.mark.parametrize("root", [False, True])
async def test_only_purge_deletes_persistent_files(servers: Servers, docker_api: docker.APIClient, root: bool) -> None:
    folder = servers.folder / "work"
    servers.toml += "[workspace]\npersistent = true\n" + (f'root = "{folder}"\n' if root else "")
    async with servers.serve() as (client, _):
        await run(client, "mkdir sub; echo kept > sub/file", "files")
    assert (await taskcell(servers, "rm", "files")).returncode == 1
    async with servers.serve() as (client, _):
        assert (await run(client, "cat sub/file", "files"))["stdout"] == "kept\n"
        await servers.written('"files"')
        done = await taskcell(servers, "rm", "files", "--purge")
        assert done.stdout == "1 sandbox closed, 1 persistent workspace deleted.\n"
    assert servers.volumes(docker_api) == []
    assert not root or list(folder.iterdir()) == []
    async with servers.serve() as (client, _):
        assert (await run(client, "ls -A", "files"))["stdout"] == ""
    await taskcell(servers, "rm", "--all", "--purge")
    assert servers.volumes(docker_api) == []
