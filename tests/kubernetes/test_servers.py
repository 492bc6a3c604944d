"""Several servers of one deployment, as pods of a real cluster: whichever is asked, and whatever becomes of one."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

import cluster
from server_pods import ServerPod, ServerPods, server_pods

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[ServerPods]:
    async with server_pods(tmp_path, "tc-servers") as made:
        yield made


# --- handing on -------------------------------------------------------------------------------------------------------

SERVE = "exec python3 -um http.server --bind 127.0.0.1 8000"


async def test_a_task_is_the_same_whichever_server_is_asked(fleet: ServerPods) -> None:
    servers = await fleet.three()
    await servers[0].run("echo mine > file; cd /tmp; export SEEN=yes")
    for server in servers:
        assert (await server.run("cat ~/file; pwd; echo $SEEN"))["stdout"] == "mine\n/tmp\nyes\n"
    assert len(await fleet.sandboxes()) == 1
    await servers[0].run(f"cd; {SERVE} >served 2>&1", background=True)
    await servers[0].run("until grep -q Serving ~/served; do sleep 0.1; done")
    for number, server in enumerate(servers):
        async with server.http() as http:
            assert (await http.put(f"/files/t/f{number}", content=b"x" * (1 << 20))).status_code == 200
            assert (await http.get("/files/t/file")).text == "mine\n"
            assert (await http.get("/ports/t/8000/file")).text == "mine\n"
            ran = await http.post("/tasks/t/processes", json={"line": f"echo out-{number}"})
            assert (ran.status_code, f"out-{number}".encode() in ran.content) == (200, True)
            labelled = await http.put("/tasks/t", json={"labels": {"by": str(number)}})
            assert labelled.json()["labels"] == {"by": str(number)}
    assert (await servers[2].run("cat ~/f? | wc -c"))["stdout"].strip() == str(3 << 20)
    assert len(await fleet.sandboxes()) == 1


# --- succession -------------------------------------------------------------------------------------------------------


async def killed(fleet: ServerPods, server: ServerPod, until: AsyncExitStack) -> None:
    server.signal(signal.SIGKILL)


async def deleted(fleet: ServerPods, server: ServerPod, until: AsyncExitStack) -> None:
    await fleet.delete(server.name)


async def cut_off(fleet: ServerPods, server: ServerPod, until: AsyncExitStack) -> None:
    until.enter_context(cluster.cut_off(server.node))


@pytest.mark.parametrize("end", [killed, deleted, cut_off])
async def test_a_server_that_dies_is_succeeded_with_files_variables_processes_and_output(
    fleet: ServerPods, end: Callable[[ServerPods, ServerPod, AsyncExitStack], Awaitable[None]]
) -> None:
    async with AsyncExitStack() as until, fleet.sandboxes_on(2):
        await fleet.three()
        task, dying = await fleet.task_at(1)
        heir = fleet.servers["two"]
        await heir.run("echo mine > file; export SEEN=yes", task)
        begun = await heir.run(
            "for i in $(seq 600); do echo line-$i; echo $i >> ran; sleep 1; done", task, background=True
        )
        await end(fleet, dying, until)
        died = time.monotonic()
        assert (await heir.run("cat file; echo $SEEN", task))["stdout"] == "mine\nyes\n"
        print(f"succeeded after {time.monotonic() - died:.1f} s")
        read = await heir.call("process", task, action="poll", cursor=0, process_id=begun["process_id"])
        lines = read["stdout"].split()
        assert lines == [f"line-{number}" for number in range(1, len(lines) + 1)]
        assert read["status"] == "running"
        assert (await heir.run("sort ran | uniq -d | wc -l", task))["stdout"].strip() == "0"
        assert len(await fleet.sandboxes(task)) == 1


# --- a rolling upgrade ------------------------------------------------------------------------------------------------


async def test_a_rolling_upgrade_loses_no_call(fleet: ServerPods) -> None:
    """Calls of tasks that are there and of new ones, short and long, all the time that every server is replaced."""
    await fleet.deploy(2)
    runs: list[tuple[str, int]] = []
    is_over = anyio.Event()

    async def calls(number: int) -> None:
        done = 0
        while not is_over.is_set():
            done += 1
            answer = await fleet.ask("terminal", command=f"echo {done} >> ran; echo out-{done}", task=f"a{number}")
            assert await fleet.output(answer, f"a{number}") == f"out-{done}\n"
            runs.append((f"a{number}", done))

    async def new_tasks() -> None:
        done = 0
        while not is_over.is_set():
            done += 1
            answer = await fleet.ask("terminal", command="echo here", task=f"new{done}")
            assert await fleet.output(answer, f"new{done}") == "here\n"
            await fleet.ask("sandbox", action="close", task=f"new{done}")

    async def long() -> None:
        done = 0
        while not is_over.is_set():
            done += 1
            answer = await fleet.ask(
                "terminal", command=f"sleep 8; echo over-{done} | tee -a ended", task="long", wait=60
            )
            assert await fleet.output(answer, "long") == f"over-{done}\n"
            runs.append(("long", done))

    async with anyio.create_task_group() as clients:
        for number in range(2):
            clients.start_soon(calls, number)
        clients.start_soon(new_tasks)
        clients.start_soon(long)
        await fleet.restarted()
        is_over.set()
    for task in ("a0", "a1"):
        most = max(done for name, done in runs if name == task)
        ran = await fleet.ask("terminal", command="cat ran", task=task)
        assert ran["stdout"].split() == [str(number) for number in range(1, most + 1)]
    print(f"{len(runs)} calls")
