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
from cluster import Program
from server_pods import ServerPod, ServerPods, server_pods
from taskcell.deployment.cluster.members import RENEW_EVERY, TERM

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
    process = Path(f"/proc/{server.pid()}")
    await fleet.delete(server.name)
    with anyio.fail_after(cluster.CLUSTER_TIMEOUT):
        while process.exists():  # a call that it takes before it is killed is lost with it
            await anyio.sleep(0.05)


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


# --- two that believe to have a task, an API that is away, clocks that jump -------------------------------------------


async def test_of_two_servers_that_believe_to_have_a_task_one_serves_it(fleet: ServerPods) -> None:
    """One is stopped for longer than its Lease holds, with a call on its way to it, and goes on then."""
    await fleet.three()
    one = fleet.servers["one"]
    await one.run("echo mine > file; export SEEN=yes")
    begun = await one.run("sleep 1000", background=True)
    holder = await fleet.holder()
    heir = fleet.other(holder)
    answers: list[str] = []

    async def call() -> None:
        answers.append((await holder.run("echo once >> ran; cat file; echo $SEEN"))["stdout"])

    async with anyio.create_task_group() as calls:
        holder.signal(signal.SIGSTOP)
        calls.start_soon(call)
        assert (await heir.run("echo theirs >> ran; cat file; echo $SEEN"))["stdout"] == "mine\nyes\n"
        assert await fleet.holder() is not holder
        holder.signal(signal.SIGCONT)
    assert answers == ["mine\nyes\n"]
    for server in fleet.servers.values():
        assert (await server.run("cat ran"))["stdout"] == "theirs\nonce\n"
        listed = await server.call("process", action="list")
        assert [one["process_id"] for one in listed["processes"] if one["status"] == "running"] == [begun["process_id"]]
    assert len(await fleet.sandboxes("t")) == 1


async def test_an_api_server_that_is_killed_and_clocks_that_jump_move_no_task(fleet: ServerPods) -> None:
    await fleet.three()
    one, two, _ = fleet.servers.values()
    tasks = [f"t{number}" for number in range(6)]
    for task in tasks:
        await one.run(f"echo {task} > file", task)
    before = {task: (await fleet.holder(task)).name for task in tasks}
    answers: list[str] = []

    async def long(task: str) -> None:
        answers.append((await two.run("sleep 20; cat file", task, wait=60))["stdout"])

    async with anyio.create_task_group() as calls:
        for task in tasks:
            calls.start_soon(long, task)
        api_server = Program("apiserver")
        api_server.kill()
        try:
            await anyio.sleep(TERM + 2)  # every server's Lease runs out
        finally:
            api_server.start()
        for written in ("1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"):
            await fleet.write_times(written)
            await anyio.sleep(RENEW_EVERY)
    assert sorted(answers) == [f"{task}\n" for task in tasks]
    assert {task: (await fleet.holder(task)).name for task in tasks} == before
    for task in tasks:
        assert (await two.run("cat file", task))["stdout"] == f"{task}\n"


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
        clients.start_soon(streamed, fleet)
        for number in range(2):
            clients.start_soon(calls, number)
        clients.start_soon(new_tasks)
        clients.start_soon(long)
        await fleet.restarted()
        is_over.set()
        await fleet.ask("terminal", command="touch over", task="program")
    for task in ("a0", "a1"):
        most = max(done for name, done in runs if name == task)
        ran = await fleet.ask("terminal", command="cat ran", task=task)
        assert ran["stdout"].split() == [str(number) for number in range(1, most + 1)]


async def streamed(fleet: ServerPods) -> None:
    """A command of a program that writes all the time, until there is a file `over`."""
    async with fleet.program("program") as task:
        done = await task.run("i=0; until [ -e over ]; do echo line-$((i += 1)); sleep 0.2; done; exit 7")
    lines = done.stdout.decode().split()
    assert lines == [f"line-{number}" for number in range(1, len(lines) + 1)]
    assert (done.status, done.exit_code) == ("exited", 7)
