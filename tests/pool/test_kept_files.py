"""A task's files outlive its sandbox, whatever ends it but a close on purpose."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import docker
import pytest
from structlog.testing import capture_logs

from agent_task import Task
from gateways import GatewayFactory
from observe import containers
from taskcell.deployment.archives import ArchiveHead
from taskcell.deployment.kept import KeptFiles
from taskcell.deployment.state_folder import StateFolder
from taskcell.errors import EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.model import TaskKey, ToolCall
from taskcell.pool import keeper, upkeep

pytestmark = pytest.mark.anyio

DEPLOYMENT = "kept-test"
TOML = f'deployment = "{DEPLOYMENT}"\nmanifests = []\n'
#: Seconds for what takes one, on a machine that is busy.
PATIENCE = 120.0
FILES = 2000
MAKE = (
    f"mkdir -p d/e && for i in $(seq {FILES}); do echo $i$RANDOM > d/e/f$i; done; ln -s d link; ln d/e/f1 hard; "
    "mkfifo pipe; chmod 750 d; chmod 600 d/e/f2; touch -d 2001-02-03 d/e/f3; printf 'a\\nb' > $'new\\nline'; "
    ": > empty; mkdir -m 500 sealed; cd d; export KEPT=one\\ two"
)
SUM = (
    "cd /workspace && { find . -printf '%P %y %m %U %G %s %n %l\\n' -type f -newermt 2020-01-01 -o -printf '%TY\\n'; "
    "find . -type f -exec sha256sum {} +; } | LC_ALL=C sort | sha256sum; find . | wc -l"
)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are saved at the first look after a call."""
    monkeypatch.setattr(keeper, "SAVE_AFTER", 0.0)
    monkeypatch.setattr(keeper, "SAVE_SHARE", 0.0)
    monkeypatch.setattr(upkeep, "TICK", 0.02)


def archives(state: Path) -> list[Path]:
    return sorted((state / "kept").glob("*.kept"))


async def eventually(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


async def saved(gw: Gateway, task: str = "t") -> None:
    """Wait until the task's files are saved as its last call left them."""
    key = TaskKey("local", task)

    def is_saved() -> bool:
        slots = [slot for slot in gw.pool.slots if slot.task == key]
        kept = gw.pool.keeper._tasks.get(key)
        return kept is not None and all(slot.changed <= kept.saved for slot in slots)

    await eventually(is_saved)


async def closed(gw: Gateway) -> None:
    """Wait until every sandbox of a task is closed."""
    await eventually(lambda: all(slot.is_warm for slot in (*gw.pool.slots, *gw.pool._closing._leaving)))


IDLE = TOML + '[pool]\nidle_ttl = "50ms"\n'


async def test_a_task_that_was_idle_has_its_files_folder_and_variables_again(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(IDLE, engine="local", state=tmp_path / "state") as gw:
        task = Task(gw)
        await task.terminal("mkdir d && cd d && echo kept > f && export KEPT='one two'")
        await closed(gw)
        result = await task.terminal('cat f; pwd | sed "s,.*/,,"; echo "$KEPT"')
        assert result.stdout == "kept\nd\none two\n"
        assert [note for note in result.notes if "folder and variables are the same" in note] == [
            "The task's sandbox was closed after 0.05 s without a call or a process and was replaced; its files, "
            "folder and variables are the same."
        ]


async def test_a_task_that_had_to_make_room_has_its_files_again(gateway: GatewayFactory, tmp_path: Path) -> None:
    toml = TOML + "[pool]\nmax_sandboxes = 1\n"
    async with gateway(toml, engine="local", state=tmp_path / "state") as gw:
        for name in ("one", "two", "one", "two"):
            await Task(gw, task=name).terminal(f"echo {name} >> f")
        assert (await Task(gw, task="one").terminal("cat f")).stdout == "one\none\n"


@pytest.mark.parametrize("on_exit", ["keep", "close"])
async def test_the_next_server_has_the_files_of_tasks_whose_sandboxes_are_gone(
    gateway: GatewayFactory, tmp_path: Path, on_exit: str
) -> None:
    toml = TOML + f'[pool]\non_exit = "{on_exit}"\n'
    async with gateway(toml, engine="local", state=tmp_path / "state") as gw:
        await Task(gw).terminal("echo kept > f; mkdir d; cd d")
    # The local engine's sandboxes end with their server, whatever it leaves behind.
    async with gateway(toml, engine="local", state=tmp_path / "state") as gw:
        result = await Task(gw).terminal('cat ../f; pwd | sed "s,.*/,,"')
        assert result.stdout == "kept\nd\n"
        assert any("files, folder and variables are the same" in note for note in result.notes), result.notes
        assert (await Task(gw).terminal("true")).notes == ()


async def test_a_ready_sandbox_serves_a_task_that_has_kept_files(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(IDLE, engine="local", state=tmp_path / "state", warm=1) as gw:
        await Task(gw).terminal("echo kept > f")
        await closed(gw)
        await eventually(lambda: any(slot.is_warm and slot.usable and slot.sandbox for slot in gw.pool.slots))
        (warm,) = [slot.sandbox for slot in gw.pool.slots]
        assert (await Task(gw).terminal("cat f")).stdout == "kept\n"
        assert warm in [slot.sandbox for slot in gw.pool.slots]


SETUP = """
[environments.e]
setup = "mkdir -p made/sealed; echo anew > made/sealed/f; chmod 500 made/sealed; echo anew > changed; echo anew > gone"
"""


@pytest.mark.parametrize("warm", [0, 1])
@pytest.mark.parametrize("leaves", ["own", ""])
async def test_what_a_setup_makes_anew_goes_before_kept_files_come_back(
    gateway: GatewayFactory, tmp_path: Path, warm: int, leaves: str
) -> None:
    """A task that has deleted what its environment's setup makes would find it again, and so its next command would."""
    async with gateway(IDLE + SETUP, engine="local", state=tmp_path / "state", warm=warm) as gw:
        task = Task(gw)
        await task.call("sandbox", action="open", environment="e")
        await closed(gw)  # the local engine's next sandbox must not meet the end of this one
        spoil = "chmod 700 made/sealed; rm -r *; echo own > changed" if leaves else "chmod 700 made/sealed; rm -r *"
        assert (await task.terminal(f"cat made/sealed/f gone; {spoil}")).stdout == "anew\nanew\n"
        await closed(gw)
        if warm:
            await eventually(lambda: any(slot.is_warm and slot.usable and slot.sandbox for slot in gw.pool.slots))
        result = await task.terminal("ls; cat changed 2>/dev/null")
        assert result.stdout == (f"changed\n{leaves}\n" if leaves else "")


async def test_what_only_reads_has_nothing_saved_again_unless_something_runs_beside_it(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        task = Task(gw)
        await task.terminal("echo there > f")
        await saved(gw)
        (slot,) = gw.pool.slots
        await task.call("read_file", path="f")
        await task.call("list_files")
        async with gw.file_call(ToolCall("local", "read_file", {"path": "f", "task_id": "t"})):
            pass
        # The end of what the tools ran is heard of a moment after their answers.
        await eventually(lambda: not gw.pool.keeper.is_due(slot, time.monotonic() + 1e6))
        since = slot.changed
        await task.terminal("sleep 300", background=True)
        await task.call("read_file", path="f")
        assert slot.changed > since
        await task.call("write_file", path="f", content="other")
        await saved(gw)


async def test_what_a_setup_has_sealed_is_named_and_the_kept_files_stay(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    setup = f"if test -e {flag}; then mkdir -p sealed/in; chmod 000 sealed; fi"
    toml = f'{IDLE}[environments.e]\nsetup = "{setup}"\n'
    async with gateway(toml, engine="local", state=tmp_path / "state") as gw:
        task = Task(gw)
        await task.call("sandbox", action="open", environment="e")
        await closed(gw)
        await task.terminal("echo kept > f")
        await closed(gw)
        flag.touch()
        with pytest.raises(
            EngineError, match=r"files stay kept: .*'terminal\.e'.* cannot be removed .*sealed.*correct"
        ):
            await task.terminal("true")
        flag.unlink()
        assert (await task.terminal("cat f")).stdout == "kept\n"


async def test_a_closed_task_begins_anew(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        task = Task(gw)
        await task.terminal("echo gone > f")
        await saved(gw)
        assert len(archives(tmp_path / "state")) == 1
        await task.sandbox("close")
        assert archives(tmp_path / "state") == []
        result = await task.terminal("ls")
        assert (result.stdout, result.notes) == ("", ())


async def test_nothing_is_kept_where_the_configuration_says_so(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(IDLE + '[workspace]\nkeep = "0"\n', engine="local", state=tmp_path / "state") as gw:
        await Task(gw).terminal("echo gone > f")
        await closed(gw)
        result = await Task(gw).terminal("ls")
        assert result.stdout == ""
        assert any("the files that were in the workspace are lost" in note for note in result.notes)
    assert archives(tmp_path / "state") == []


async def test_files_that_cannot_be_put_back_stay_kept_and_the_call_says_so(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with gateway(IDLE, engine="local", state=state) as gw:
        await Task(gw).terminal("seq 100000 > f")
        await closed(gw)
        (archive,) = archives(state)
        whole = archive.read_bytes()
        archive.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(EngineError, match="could not put the task's files back"):
            await Task(gw).terminal("ls")
        archive.write_bytes(whole)
        assert (await Task(gw).terminal("tail -1 f")).stdout == "100000\n"


# --- the archives themselves


@pytest.fixture
def deployment(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.join("a" * 16)
    return made


def kept(files: KeptFiles, task: str, content: bytes = b"x", principal: str = "ann") -> None:
    key = TaskKey(principal, task)
    draft, file = files.draft(ArchiveHead(key.principal, key.task, 1.0, "/workspace", {"A": "b"}))
    with file:
        file.write(content)
    files.keep(draft, key)


def test_archives_are_the_users_alone_and_hold_what_was_written(deployment: StateFolder, tmp_path: Path) -> None:
    files = KeptFiles(deployment, 60.0, 1 << 30)
    kept(files, "one", b"content")
    (path,) = archives(tmp_path / "state")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "one" not in path.name
    found = files.take(TaskKey("ann", "one"))
    assert found is not None
    about, file = found
    with file:
        assert (about.folder, about.env, file.read()) == ("/workspace", {"A": "b"}, b"content")
    assert files.take(TaskKey("bob", "one")) is None
    assert files.tasks() == [TaskKey("ann", "one")]


def test_a_server_takes_what_a_dead_one_left_and_nothing_of_one_that_runs(
    deployment: StateFolder, tmp_path: Path
) -> None:
    kept(KeptFiles(deployment, 60.0, 1 << 30), "one")
    other = StateFolder(tmp_path / "state")
    other.join("b" * 16)
    theirs = KeptFiles(other, 60.0, 1 << 30)
    assert theirs.take(TaskKey("ann", "one")) is None
    theirs.forget(TaskKey("ann", "one"))
    assert len(archives(tmp_path / "state")) == 1
    deployment.leave(keep=True)
    found = theirs.take(TaskKey("ann", "one"))
    assert found is not None
    found[1].close()
    assert [path.name.split(".")[1] for path in archives(tmp_path / "state")] == ["b" * 16]


def test_a_task_of_the_persons_own_goes_on_at_another_server_with_its_newest_files(
    deployment: StateFolder, tmp_path: Path
) -> None:
    other = StateFolder(tmp_path / "state")
    other.join("b" * 16)
    theirs = KeptFiles(other, 60.0, 1 << 30)
    kept(theirs, "one", b"older", "local")
    (older,) = archives(tmp_path / "state")
    os.utime(older, (1, 1))
    kept(KeptFiles(deployment, 60.0, 1 << 30), "one", b"newer", "local")
    found = theirs.take(TaskKey("local", "one"))
    assert found is not None
    with found[1] as file:
        assert file.read() == b"newer"
    assert len(archives(tmp_path / "state")) == 1


def test_a_task_that_is_closed_leaves_nothing_of_servers_that_have_ended(
    deployment: StateFolder, tmp_path: Path
) -> None:
    kept(KeptFiles(deployment, 60.0, 1 << 30), "one")
    other = StateFolder(tmp_path / "state")
    other.join("b" * 16)
    kept(KeptFiles(other, 60.0, 1 << 30), "one")
    deployment.leave(keep=True)
    assert len(archives(tmp_path / "state")) == 2
    KeptFiles(other, 60.0, 1 << 30).forget(TaskKey("ann", "one"))
    assert archives(tmp_path / "state") == []


def test_what_dead_servers_kept_of_a_task_goes_when_it_is_saved_again(deployment: StateFolder, tmp_path: Path) -> None:
    first = KeptFiles(deployment, 60.0, 1 << 30)
    for task in ("one", "two"):
        kept(first, task)
    living = StateFolder(tmp_path / "state")
    living.join("c" * 16)
    kept(KeptFiles(living, 60.0, 1 << 30), "one")
    deployment.leave(keep=True)
    other = StateFolder(tmp_path / "state")
    other.join("b" * 16)
    kept(KeptFiles(other, 60.0, 1 << 30), "one", b"newer")
    one, two = (TaskKey("ann", name).digest for name in ("one", "two"))
    left = {tuple(path.name.split(".")[:2]) for path in archives(tmp_path / "state")}
    assert left == {(one, "b" * 16), (one, "c" * 16), (two, "a" * 16)}


def test_what_is_too_old_goes_and_then_the_oldest_of_too_many(deployment: StateFolder, tmp_path: Path) -> None:
    files = KeptFiles(deployment, 1000.0, 4000)
    for number, name in enumerate(("old", "first", "second", "third")):
        kept(files, name, b"x" * 1500)
        (path,) = [one for one in archives(tmp_path / "state") if one.name.startswith(TaskKey("ann", name).digest)]
        at = path.stat().st_mtime - (2000 if name == "old" else 100 - number)
        os.utime(path, (at, at))
    files.prune()
    assert files.tasks() == [TaskKey("ann", "second"), TaskKey("ann", "third")]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]\n", b'{"principal": 1}\n', b"\xff" * 100])
def test_what_is_no_archive_is_as_if_it_were_not_there(deployment: StateFolder, tmp_path: Path, content: bytes) -> None:
    files = KeptFiles(deployment, 60.0, 1 << 30)
    kept(files, "one")
    (path,) = archives(tmp_path / "state")
    path.write_bytes(content)
    assert files.take(TaskKey("ann", "one")) is None
    assert files.tasks() == []
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert files.take(TaskKey("ann", "one")) is None


# --- in real sandboxes


@asynccontextmanager
async def opened(gateway: GatewayFactory, tmp_path: Path, more: str = "", warm: int = 0) -> AsyncIterator[Gateway]:
    async with gateway(TOML + more, state=tmp_path / "state", warm=warm) as gw:
        yield gw


How = Callable[[Gateway, docker.APIClient], Awaitable[None]]


async def idle(gw: Gateway, api: docker.APIClient) -> None:
    await closed(gw)


async def killed(gw: Gateway, api: docker.APIClient) -> None:
    await saved(gw)
    await remove_all(gw, api)


async def remove_all(gw: Gateway, api: docker.APIClient) -> None:
    for container in containers(api, taskcell__deployment=DEPLOYMENT):
        api.remove_container(container, force=True, v=True)
    await eventually(lambda: not any(slot.usable for slot in gw.pool.slots if slot.sandbox is not None))


@pytest.mark.engine
@pytest.mark.parametrize("warm", [0, 1])
@pytest.mark.parametrize("how", [idle, killed], ids=["idle", "killed"])
async def test_every_file_is_the_same_after_its_sandbox(
    gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient, how: How, warm: int
) -> None:
    ttl = '[pool]\nidle_ttl = "500ms"\n' if how is idle else ""
    async with opened(gateway, tmp_path, ttl, warm) as gw:
        task = Task(gw)
        await task.terminal(MAKE)
        before = (await task.terminal(SUM)).stdout
        await how(gw, docker_api)
        result = await task.terminal(f"pwd; echo $KEPT; {SUM}")
    assert result.stdout == f"/workspace\none two\n{before}", result.notes
    assert int(before.split()[-1]) > FILES


@pytest.mark.engine
async def test_every_file_is_the_same_for_the_next_server_when_the_sandbox_is_gone(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with opened(gateway, tmp_path) as gw:
        await Task(gw).terminal(MAKE)
        before = (await Task(gw).terminal(SUM)).stdout
    async with opened(gateway, tmp_path) as gw:
        assert (await Task(gw).terminal(SUM)).stdout == before


@pytest.mark.engine
async def test_a_killed_sandbox_costs_at_most_what_was_not_saved_yet_and_says_so(
    gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(gateway, tmp_path) as gw:
        task = Task(gw)
        await task.terminal("echo first > f")
        await killed(gw, docker_api)
        result = await task.terminal("cat f")
        assert result.stdout == "first\n"
        assert any("had died" in note and "files, folder and variables are the same" in note for note in result.notes)
        await saved(gw)
        monkeypatch.setattr(keeper, "SAVE_AFTER", 1e9)
        await task.terminal("echo second > f")
        await remove_all(gw, docker_api)
        result = await task.terminal("cat f")
        assert result.stdout == "first\n"
        assert any("s before its last command ended, when they were saved" in note for note in result.notes)


@pytest.mark.engine
async def test_a_file_with_a_hole_without_end_fills_no_disk(gateway: GatewayFactory, tmp_path: Path) -> None:
    small = '[workspace]\nsize = "1m"\n'
    with capture_logs() as logs:
        async with opened(gateway, tmp_path, small) as gw:
            await Task(gw).terminal("truncate -s 1T hole; echo kept > f")
            await eventually(lambda: any("not saved" in entry["event"] for entry in logs))
            assert (await Task(gw).terminal("cat f")).stdout == "kept\n"
    assert archives(tmp_path / "state") == []
    assert list((tmp_path / "state" / "kept").iterdir()) == []
