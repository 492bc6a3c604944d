"""A person's folder that is full: nothing that is there is lost, and each door says in a sentence what to do."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_task import Task
from gateways import GatewayFactory
from served_door import served_door
from taskcell.errors import ErrorCode, FileRefused

pytestmark = pytest.mark.anyio

#: Bytes of the folder's file system; and of a file that has no room in what the first one leaves.
SIZE, LARGE = 1 << 20, 600_000
OLD = "old line\n" + "x" * LARGE
FULL = "There is no space left for"


@pytest.fixture
def folder() -> Iterator[Path]:
    """On a small file system of its own, with one file that takes more than half of it."""
    made = Path(tempfile.mkdtemp(prefix="taskcell-full-"))
    # The local engine's commands are this process's user; a folder of root's would be refused.
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=777,uid=1000,gid=1000", "small", made], check=True)
    try:
        (made / "old.txt").write_text(OLD)
        yield made
    finally:
        subprocess.run(["umount", "--lazy", made], check=True)
        made.rmdir()


def toml(folder: Path) -> str:
    return f'manifests = []\n[engine]\nkind = "local"\n[workspace]\nfolder = "{folder}"\n'


async def test_a_command_hears_it_from_the_system_and_the_task_goes_on(gateway: GatewayFactory, folder: Path) -> None:
    async with gateway(toml(folder), engine="local") as gw:
        task = Task(gw)
        result = await task.terminal("head -c 2M /dev/zero > big")
        assert (result.exit_code, "No space left on device" in result.stdout + result.stderr) == (1, True)
        assert (await task.terminal("rm big; echo works > small; cat small")).stdout == "works\n"


async def test_file_tools_leave_the_old_file_whole_and_no_half_of_the_new_one(
    gateway: GatewayFactory, folder: Path
) -> None:
    async with gateway(toml(folder), engine="local") as gw:
        task = Task(gw)
        for name, call in {
            "new.txt": ("write_file", {"content": "x" * LARGE}),
            "old.txt": ("write_file", {"content": "x" * LARGE}),
            "./old.txt": ("edit_file", {"old": "old line", "new": "new, longer line"}),
        }.items():
            with pytest.raises(FileRefused) as caught:
                await task.call(call[0], path=name, **call[1])
            assert (caught.value.code, FULL in str(caught.value)) == (ErrorCode.NO_CAPACITY, True)
            assert {path.name: path.read_text() for path in folder.iterdir()} == {"old.txt": OLD}
        await task.terminal("truncate -s 9 old.txt")
        await task.call("edit_file", path="old.txt", old="old", new="new")
        assert (folder / "old.txt").read_text() == "new line\n"


async def test_a_file_that_is_sent_is_refused_with_507_and_the_old_one_stays(
    gateway: GatewayFactory, folder: Path, tmp_path: Path
) -> None:
    async with served_door(gateway, tmp_path / "state", toml(folder)) as (_, _, http):
        for name in ("new.bin", "old.txt"):
            refused = await http.put(f"/files/t/{name}", content=b"x" * LARGE)
            assert (refused.status_code, FULL in refused.text) == (507, True), refused.text
            assert {path.name: path.read_text() for path in folder.iterdir()} == {"old.txt": OLD}
        assert (await http.put("/files/t/small.bin", content=b"x")).status_code < 300
        assert (await http.get("/files/t/old.txt")).text == OLD
