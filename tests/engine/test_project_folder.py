"""A person's own folder as the workspace, in real sandboxes: written as its owner, read-only, moved away, exchanged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways import GatewayFactory
from taskcell.errors import Denied, FileRefused, SandboxLost
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Of the person who owns the project: nobody on this machine, and not the sandbox's usual user.
OWNER, GROUP = 12345, 12346


@pytest.fixture
def project() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="taskcell-project-"))
    made.chmod(0o700)
    (made / "main.py").write_text("print('mine')\n")
    for path in (made / "main.py", made):
        os.chown(path, OWNER, GROUP)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def toml(project: Path, more: str = "") -> str:
    return f'deployment = "project-test"\n[workspace]\nfolder = "{project}"\n{more}'


async def run(gw: Gateway, command: str, tool: str = "terminal", task: str = "default") -> str:
    name = "command" if tool == "terminal" else "args"
    value: object = command if tool == "terminal" else command.split()
    return (await gw.call(ToolCall("local", tool, {name: value, "task_id": task}))).stdout


SKILLS = """
[skills.cat]
source = "docker:taskcell/base:latest"
[skills.cat.docker]
entrypoint = "/bin/cat"
[skills.touch]
source = "docker:taskcell/base:latest"
[skills.touch.docker]
entrypoint = "/bin/touch"
workspace = "ro"
"""


async def test_every_tool_works_in_the_persons_folder_as_its_owner(
    gateway: GatewayFactory, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "skills.toml").write_text(SKILLS)
    async with gateway(f'manifests = ["skills.toml"]\n{toml(project)}') as gw:
        assert await run(gw, "id -u; id -g; cat main.py; stat -c %u .") == f"{OWNER}\n{GROUP}\nprint('mine')\n{OWNER}\n"
        await gw.call(ToolCall("local", "write_file", {"path": "new/notes.txt", "content": "by a file tool"}))
        await run(gw, "echo by a command > made.txt; chmod 640 made.txt")
        assert await run(gw, "new/notes.txt made.txt", "cat") == "by a file toolby a command\n"
        assert await run(gw, "cat made.txt", task="another") == "by a command\n"
        refused = await gw.call(ToolCall("local", "touch", {"args": ["by-a-reader"]}))
        assert "Read-only file system" in refused.stderr
    found = {path.relative_to(project): path.stat() for path in project.rglob("*")}
    assert {str(path) for path in found} == {"main.py", "new", "new/notes.txt", "made.txt"}
    assert {(one.st_uid, one.st_gid) for one in found.values()} == {(OWNER, GROUP)}


async def test_files_stay_when_the_task_is_closed_and_a_ready_sandbox_has_them(
    gateway: GatewayFactory, project: Path
) -> None:
    async with gateway(toml(project), warm=1) as gw:
        await run(gw, "echo kept > kept.txt")
        await gw.call(ToolCall("local", "sandbox", {"action": "close"}))
        assert await run(gw, "cat kept.txt") == "kept\n"


async def test_a_terminal_that_may_only_read_says_so_and_cannot_write(gateway: GatewayFactory, project: Path) -> None:
    async with gateway(toml(project, '[terminal]\nworkspace = "ro"')) as gw:
        assert "Read-only file system" in await run(gw, "cat main.py; touch x; mkdir /tmp/y && echo tmp")
        with pytest.raises(FileRefused, match=r"read-only file system; write below /tmp\."):
            await gw.call(ToolCall("local", "write_file", {"path": "x", "content": ""}))
    assert sorted(os.listdir(project)) == ["main.py"]


async def test_a_folder_that_is_moved_away_is_not_worked_in_and_one_in_its_place_is(
    gateway: GatewayFactory, project: Path
) -> None:
    away = project.with_name(f"{project.name}-away")
    async with gateway(toml(project)) as gw:
        await run(gw, "true")
        project.rename(away)
        try:
            with pytest.raises((Denied, SandboxLost), match="does not exist; make it"):
                await run(gw, "touch lost.txt")
            project.mkdir(mode=0o700)
            os.chown(project, OWNER, GROUP)
            assert await run(gw, "ls; touch here.txt") == ""
        finally:
            files = sorted(os.listdir(away)), sorted(os.listdir(project))
            shutil.rmtree(away)
    assert files == (["main.py"], ["here.txt"])


async def test_a_folder_with_another_owner_since_is_refused_at_the_next_sandbox(
    gateway: GatewayFactory, project: Path
) -> None:
    async with gateway(toml(project)) as gw:
        await run(gw, "true")
        os.chown(project, OWNER + 1, GROUP)
        with pytest.raises(Denied, match="belongs to another user or group since the server was started"):
            await gw.call(ToolCall("local", "sandbox", {"action": "reset"}))
