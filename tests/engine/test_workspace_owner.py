"""Whoever a profile's commands run as can use the task's files, in memory and on disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import anyio
import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from observe import eventually, marker
from taskcell.engine.docker import image_volumes
from taskcell.engine.docker.image_users import named_in
from taskcell.errors import EngineError
from taskcell.model import TaskKey

USERS = "root:x:0:0:r:/:/bin/sh\nnode:x:998:997::/home/node:/bin/sh\nodd:x:twelve:1::/:\nshort:x\n"


@pytest.mark.parametrize(
    ("user", "numbers"), [("node", (998, 997)), ("odd", (1000, 1000)), ("short", (1000, 1000)), ("no", (1000, 1000))]
)
def test_a_name_has_the_numbers_that_the_image_gives_it(user: str, numbers: tuple[int, int]) -> None:
    assert named_in(USERS, user) == numbers


@pytest.mark.parametrize("path", ["/sys", "/sys/fs/cgroup", "/run/../sys/"])
def test_a_volume_that_would_hide_the_limits_is_refused(path: str) -> None:
    with pytest.raises(EngineError, match="which every sandbox needs for itself; build it without that VOLUME"):
        image_volumes.check({"Config": {"Volumes": {path: {}}}}, "odd:1")


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


TWO = """
deployment = "two-{where}"
manifests = ["skills.toml"]
[workspace]
persistent = {persistent}
"""
OTHERS = """
[skills.other]
source = "docker:taskcell/base:latest"
[skills.other.docker]
entrypoint = "/bin/sh"
command = ["-c"]
user = "4321:4322"
[skills.named]
source = "docker:taskcell/base:latest"
[skills.named.docker]
entrypoint = "/bin/sh"
command = ["-c"]
user = "www-data"
"""


@pytest.mark.anyio
@pytest.mark.engine
@pytest.mark.parametrize("where", ["memory", "disk"])
async def test_users_of_one_task_read_and_write_each_others_files(
    gateway: GatewayFactory, tmp_path: Path, where: str
) -> None:
    (tmp_path / "skills.toml").write_text(OTHERS)
    toml = TWO.format(where=where, persistent=str(where == "disk").lower())
    async with gateway(toml) as gw:
        task = Task(gw)
        try:
            await task.call("write_file", path="d/f", content="agent\n")
            for tool in ("other", "named"):
                result = await task.call(tool, args=[f"id -u; echo {tool} >> d/f; mkdir {tool}; echo > {tool}/x"])
                assert (result.exit_code, result.stderr) == (0, "")
            own = await task.terminal(
                "cat d/f; echo mine >> other/x; rm -r named && rm other/x && rmdir other && id -u"
            )
            assert own.stdout == "agent\nother\nnamed\n1000\n"
            await task.terminal("git init -q . && git add d")
            assert (await task.call("named", args=["git status --short"])).stdout == "A  d/f\n"
            await task.call("edit_file", path="d/f", old="other", new="edited")
            assert (await task.call("named", args=["cat d/f"])).stdout == "agent\nedited\nnamed\n"
        finally:
            await task.sandbox("close")
            if where == "disk":
                await gw.engine.remove_workspace(f"taskcell-data-two-disk-{TaskKey('local', 't').digest}")


@pytest.mark.anyio
@pytest.mark.engine
async def test_alone_a_user_makes_files_that_nobody_else_writes(gateway: GatewayFactory) -> None:
    async with gateway("manifests = []") as gw:
        task = Task(gw)
        await task.call("write_file", path="f", content="x")
        result = await task.terminal("umask; id -G; stat -c %a f .")
        assert result.stdout == "0022\n1000\n644\n755\n"


#: Its user is known by a name alone; its volume, and the folder over which a file system in memory comes to lie, belong
#: to root; nobody but root may write to its /tmp.
ODD = """FROM taskcell/base:latest
USER root
RUN useradd -u 998 -m app && mkdir -p /data /over && touch /data/file && chmod 700 /data && chmod 755 /tmp /over
VOLUME /data
"""


@pytest.fixture(scope="module")
def odd_image() -> Iterator[str]:
    client, name = docker.APIClient(version="auto"), f"odd-{marker()[:9]}:latest"
    try:
        list(client.build(fileobj=io.BytesIO(ODD.encode()), tag=name, rm=True, forcerm=True, network_mode="none"))
        client.inspect_image(name)
        yield name
    finally:
        client.remove_image(name, force=True)
        client.close()


@pytest.mark.anyio
@pytest.mark.engine
async def test_folders_in_memory_have_the_mode_and_the_owner_that_their_user_needs(
    gateway: GatewayFactory, odd_image: str
) -> None:
    options = "['--tmpfs', '/over:size=1m,mode=0700', '--tmpfs', '/open:size=1m']"
    toml = f"manifests = []\n[terminal]\nimage = '{odd_image}'\nuser = 'app'\nextra_args = {options}\n"
    async with gateway(toml) as gw:
        task = Task(gw)
        result = await task.terminal(
            "id -un; stat -c '%n %U %a' /tmp /var/tmp /run /over /open . && touch /data/x y && [ -O /data ]"
        )
        assert result.stdout.splitlines() == [
            "app",
            "/tmp root 1777",
            "/var/tmp root 1777",
            "/run root 755",
            "/over app 700",
            "/open root 1777",
            ". app 755",
        ]
        assert result.exit_code == 0
