"""Kept files and snapshots of several servers, in a folder that all of them reach; and the local door of each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from asking import fields, text_of
from deployments import OnCluster
from http_serving import PATIENCE
from peers import Peers, PeerServer
from taskcell.cli.in_task import door_of, run_in_task
from taskcell.cli.rm import ask_to_remove
from taskcell.deployment.archives import ArchiveHead
from taskcell.deployment.cluster.deployment import ClusterDeployment
from taskcell.deployment.kept import KeptFiles
from taskcell.deployment.snapshots import Snapshots
from taskcell.model import LOCAL_PRINCIPAL, MIB, TaskKey, ToolCall

pytestmark = pytest.mark.anyio

TASK = TaskKey("ann", "t")


async def join(cluster: OnCluster, name: str, store: Path) -> ClusterDeployment:
    made = cluster.make(name, f"http://{name}.test:8765", store=store)
    await made.join(name)
    cluster.living[name] = made
    for one in cluster.living.values():
        await one.members.look()
    return made


def keep(server: ClusterDeployment, words: bytes, task: TaskKey = TASK) -> None:
    files = KeptFiles(server.archives, 100.0, MIB)
    draft, file = files.draft(ArchiveHead(task.principal, task.task, time.time()))
    with file:
        file.write(words)
    files.keep(draft, task)


def taken(server: ClusterDeployment, task: TaskKey = TASK) -> bytes | None:
    found = KeptFiles(server.archives, 100.0, MIB).take(task)
    if found is None:
        return None
    with found[1] as file:
        return file.read()


async def has_now(server: ClusterDeployment, task: TaskKey = TASK) -> None:
    """The task is this server's from now on."""
    assert server.claims is not None
    assert (await server.claims.claim(task, is_sent=True)).door is None


# --- the store -------------------------------------------------------------------------------------------------------


async def test_what_one_server_has_kept_another_one_takes(cluster: OnCluster, tmp_path: Path) -> None:
    one, two = [await join(cluster, name, tmp_path / "store") for name in ("one", "two")]
    await has_now(one)
    keep(one, b"files")
    await one.claims.release([TASK])  # type: ignore[union-attr]
    await has_now(two)
    assert taken(two) == b"files"
    keep(two, b"newer")
    assert [path.name.split(".")[1] for path in (tmp_path / "store/kept").iterdir()] == ["two"]


async def test_a_server_that_has_lost_a_task_keeps_nothing_of_it(cluster: OnCluster, tmp_path: Path) -> None:
    one, two = [await join(cluster, name, tmp_path / "store") for name in ("one", "two")]
    await has_now(one)
    keep(one, b"early")
    await cluster.kill(one)
    await has_now(two)
    assert taken(two) == b"early"
    with pytest.raises(PermissionError, match="another server may have the task"):
        keep(one, b"late")
    assert taken(two) == b"early"


async def test_what_was_written_late_by_a_server_without_the_task_is_not_taken(
    cluster: OnCluster, tmp_path: Path
) -> None:
    one, two = [await join(cluster, name, tmp_path / "store") for name in ("one", "two")]
    await has_now(one)
    keep(one, b"late")  # stopped in the midst of it: `two` writes first
    late = next((tmp_path / "store/kept").iterdir())
    late.rename(tmp_path / late.name)
    await cluster.kill(one)
    await has_now(two)
    keep(two, b"true")
    (tmp_path / late.name).rename(late)
    os.utime(late)
    assert taken(two) == b"true"


async def test_one_of_the_servers_deletes_what_is_old(cluster: OnCluster, tmp_path: Path) -> None:
    servers = [await join(cluster, name, tmp_path / "store") for name in ("one", "two", "three")]
    assert [server.archives.cleans for server in servers].count(True) == 1
    cleaner = next(server for server in servers if server.archives.cleans)
    await has_now(cleaner)
    keep(cleaner, b"files")
    (archive,) = (tmp_path / "store/kept").iterdir()
    os.utime(archive, (1, 1))
    for server in servers:
        if server is not cleaner:
            KeptFiles(server.archives, 100.0, MIB).prune()
    assert archive.exists()
    KeptFiles(cleaner.archives, 100.0, MIB).prune()
    assert not archive.exists()


async def test_what_a_dead_server_had_begun_goes_and_what_a_new_one_has_begun_stays(
    cluster: OnCluster, tmp_path: Path
) -> None:
    one = await join(cluster, "one", tmp_path / "store")
    head = ArchiveHead("ann", "t", time.time(), name="s")
    begun = [KeptFiles(one.archives, 100.0, MIB).draft(head)[0], Snapshots(one.archives, 9, MIB).draft(head)[0]]
    strangers = [path.with_name(path.name.replace(".one.", ".new.")) for path in begun]
    for path, stranger in zip(begun, strangers, strict=True):
        path.rename(stranger)

    def look() -> list[bool]:
        KeptFiles(one.archives, 100.0, MIB).prune()
        Snapshots(one.archives, 9, MIB).of("ann")
        return [path.exists() for path in strangers]

    assert look() == [True, True]
    for path in strangers:
        os.utime(path, (1, 1))
    assert look() == [False, False]


async def test_a_snapshot_is_found_by_every_server_and_replaced_whole(cluster: OnCluster, tmp_path: Path) -> None:
    servers = [await join(cluster, name, tmp_path / "store") for name in ("one", "two")]
    for server, words in zip(servers, (b"first", b"second"), strict=True):
        snapshots = Snapshots(server.archives, 1, MIB)
        draft, file = snapshots.draft(ArchiveHead("ann", "t", time.time(), name="s"))
        with file:
            file.write(words)
        snapshots.keep(draft, ArchiveHead("ann", "t", time.time(), name="s"))
    for server in servers:
        found = Snapshots(server.archives, 1, MIB).open("ann", "s")
        assert found is not None
        with found[1] as file:
            assert file.read() == b"second"
        assert Snapshots(server.archives, 1, MIB).open("bob", "s") is None


async def test_a_store_that_cannot_be_written_is_none(
    cluster: OnCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").write_text("a file")
    one = await join(cluster, "one", tmp_path / "store")
    assert not one.archives.is_shared
    assert one.is_shared
    assert not KeptFiles(one.archives, 100.0, MIB).is_on


# --- whole servers ---------------------------------------------------------------------------------------------------


async def three(fleet: Peers) -> list[PeerServer]:
    return [await fleet.start(name) for name in ("one", "two", "three")]


async def closed(server: PeerServer, task: str) -> None:
    """The task's sandbox is closed and its files are kept, as when it has been idle for long."""
    pool = server.gateway.pool
    pool._upkeep._idle_ttl = 0.1
    await until(lambda: task not in server.tasks and not pool._executor.closing_tasks)


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not holds():
            await anyio.sleep(0.01)


async def test_a_task_whose_server_ends_is_opened_with_its_files_by_another_one(fleet: Peers) -> None:
    await three(fleet)
    first = fleet.lead("t")
    await first.run("echo mine > file; export SEEN=yes")
    await closed(first, "t")
    assert first.deployment.claims is not None
    await first.deployment.claims.release([TASK])
    del fleet.cluster.living[first.deployment.instance]
    await first.deployment.begin_to_leave()
    for server in fleet.cluster.living.values():
        await server.members.look()
    assert fleet.lead("t") is not first
    assert (await fleet.lead("t").run("cat file; echo $SEEN"))["stdout"] == "mine\nyes\n"


async def test_a_task_is_given_up_when_its_files_are_saved_and_not_before(fleet: Peers) -> None:
    await three(fleet)
    server = fleet.lead("t")
    await server.run("echo mine > file")
    pool, claims = server.gateway.pool, server.deployment.claims
    assert claims is not None
    kept = pool.keeper._tasks[TASK]
    async with kept.copying:  # its save waits
        pool._upkeep._idle_ttl = 0.1
        await until(lambda: TASK in pool._executor.closing_tasks)
        pool._sharing._used.clear()
        await pool._sharing.look_at_siblings()
        assert TASK in claims.own
    await until(lambda: not pool._executor.closing_tasks)
    await pool._sharing.look_at_siblings()
    assert TASK not in claims.own
    assert [path.name.split(".")[0] for path in (fleet.folder / "store/test/kept").iterdir()] == [TASK.digest]


async def sandbox(server: PeerServer, **arguments: Any) -> str:
    with anyio.fail_after(PATIENCE):
        async with server.client() as client:
            return text_of(await client.call_tool("sandbox", arguments))


async def test_a_snapshot_of_a_task_of_one_server_is_restored_in_a_task_of_another(fleet: Peers) -> None:
    servers = await three(fleet)
    others = [name for name in "abcdefgh" if fleet.lead(name) is not fleet.lead("t")]
    await servers[0].run("echo mine > file")
    assert "kept as the snapshot" in await sandbox(servers[1], action="snapshot", task_id="t", name="s")
    assert "has the files" in await sandbox(servers[2], action="restore", task_id=others[0], name="s")
    assert (await servers[0].run("cat file", others[0]))["stdout"] == "mine\n"
    assert fleet.holder(others[0]) is not fleet.holder("t")


async def test_a_fork_is_a_task_of_the_deployment_whichever_server_is_asked(fleet: Peers) -> None:
    servers = await three(fleet)
    await servers[0].run("echo mine > file")
    for number, server in enumerate(servers):
        said = await sandbox(server, action="fork", task_id="t", to=f"fork-{number}")
        assert "has the same files" in said, said
    for number in range(3):
        for server in servers:
            assert (await server.run("cat file", f"fork-{number}"))["stdout"] == "mine\n"
    assert "exists already" in await sandbox(servers[1], action="fork", task_id="t", to="fork-0")


# --- the local door --------------------------------------------------------------------------------------------------


@pytest.fixture
async def in_pods(fleet: Peers) -> dict[str, Path]:
    """The folders of three servers' local doors, by name; each has had its first call."""
    found = {server.name: fleet.folder / server.name for server in await three(fleet)}
    for name, folder in found.items():
        await fleet.servers[name].run("true", f"first-{name}")
        await until(lambda folder=folder: bool(list(folder.glob("*.sock"))))  # type: ignore[misc]
    return found


async def test_the_persons_commands_in_a_pod_find_a_task_of_any_server(fleet: Peers, in_pods: dict[str, Path]) -> None:
    task, call = TaskKey(LOCAL_PRINCIPAL, "mine"), {"task_id": "mine", "command": "echo line >> file; wc -l < file"}
    door = next(iter(in_pods["one"].glob("*.sock")))
    await run_in_task(door, ToolCall(LOCAL_PRINCIPAL, "terminal", call))
    for number, folder in enumerate(in_pods.values()):
        found = await door_of(folder, task)
        assert found is not None
        result, _ = await run_in_task(found, ToolCall(LOCAL_PRINCIPAL, "terminal", call))
        assert result.stdout.strip() == str(number + 2)
    assert [server.tasks for server in {id(s): s for s in fleet.servers.values()}.values()].count({"mine"}) <= 1


async def test_a_task_that_no_server_has_is_not_found_from_a_pod(fleet: Peers, in_pods: dict[str, Path]) -> None:
    for folder in in_pods.values():
        assert await door_of(folder, TaskKey(LOCAL_PRINCIPAL, "nobodys")) is None


async def test_the_operator_closes_a_task_of_any_server_from_a_pod(fleet: Peers, in_pods: dict[str, Path]) -> None:
    await fleet.servers["one"].run("echo mine > file")
    asked = fleet.other(fleet.holder("t"))
    (door,) = in_pods[asked.name].glob("*.sock")
    assert await ask_to_remove(door, TASK, purge=False)
    assert "t" not in set().union(*(server.tasks for server in fleet.servers.values()))
    answer = await fields_of(fleet.servers["one"], "ls")
    assert answer["stdout"] == ""
    assert any("taskcell rm" in note for note in answer["notes"])


async def fields_of(server: PeerServer, command: str) -> dict[str, Any]:
    async with server.client() as client:
        return await fields(client, "terminal", {"command": command, "task_id": "t"})
