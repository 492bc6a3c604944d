"""Several servers behind one Service: whichever a request comes to, its task is in one of them, and outlives it."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest

from asking import fields, text_of
from http_serving import PATIENCE
from observe import alive, eventually, marker
from peers import Peers, PeerServer
from taskcell.caller import Caller
from taskcell.deployment.cluster.members import TERM
from taskcell.deployment.key import caller_of_peer, peer_token
from taskcell.errors import SandboxLost
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio


async def three(fleet: Peers) -> list[PeerServer]:
    return [await fleet.start(name) for name in ("one", "two", "three")]


async def test_a_task_is_the_same_whichever_server_is_asked(fleet: Peers) -> None:
    servers = await three(fleet)
    await servers[0].run("echo mine > file; cd /tmp; export SEEN=yes")
    for server in servers:
        assert (await server.run("cat ~/file; pwd; echo $SEEN"))["stdout"] == "mine\n/tmp\nyes\n"
    assert [server.tasks for server in servers].count({"t"}) == 1


async def test_tasks_go_to_the_servers_that_a_hash_names_and_are_spread(fleet: Peers) -> None:
    servers = await three(fleet)
    names = [f"task-{number}" for number in range(9)]
    for name in names:
        await servers[0].run("true", name)
    assert {name: fleet.holder(name) for name in names} == {name: fleet.lead(name) for name in names}
    assert len({fleet.lead("task", f"principal-{number}").name for number in range(100)}) > 1


async def test_when_all_are_asked_for_a_new_task_at_once_one_of_them_has_it(fleet: Peers) -> None:
    servers = await three(fleet)
    async with anyio.create_task_group() as calls:
        for server in servers * 3:
            calls.start_soon(server.run, "echo line >> file")
    assert (await servers[1].run("wc -l < file"))["stdout"].strip() == "9"
    assert [server.tasks for server in servers].count({"t"}) == 1


async def test_nothing_moves_when_a_server_joins(fleet: Peers) -> None:
    first = second = await fleet.start("one")
    names = [f"task-{number}" for number in range(9)]
    for name in names:
        await first.run(f"echo {name} > file", name)
    # One that is to lead for some of them: a hash of its name says so, and that is drawn.
    while {fleet.lead(name).name for name in names} == {"one"}:
        second = await fleet.start(f"another-{len(fleet.servers)}")
    for name in names:
        assert (await second.run("cat file", name))["stdout"] == f"{name}\n"
    assert second.tasks == set()


async def test_principals_see_their_own_tasks_alone_whichever_server_hands_the_call_on(fleet: Peers) -> None:
    servers, bob = await three(fleet), fleet.tokens["bob"]
    for server in servers:
        await server.run("echo ann > file")
        await server.run("echo bob > file", token=bob)
    assert {(await server.run("cat file"))["stdout"] for server in servers} == {"ann\n"}
    assert {(await server.run("cat file", token=bob))["stdout"] for server in servers} == {"bob\n"}


async def test_a_token_of_a_peer_that_no_server_has_made_opens_nothing(fleet: Peers) -> None:
    one, two = await fleet.start("one"), await fleet.start("two")
    good = peer_token(one.deployment.key, two.deployment.instance, Caller("ann"))
    strangers = peer_token(b"k" * 32, two.deployment.instance, Caller("ann"))
    for bad in (good[:-1] + "x", good.replace("tcp_", "tcp_x"), "tcp_", "tcp_.", strangers):
        assert await status_of(two, bad) == 401
    assert await status_of(one, good) == 401  # it is for one server
    assert await status_of(two, good) != 401


@pytest.mark.parametrize(("key", "instance"), [(b"", ""), (b"", "a"), (b"k" * 32, "")])
def test_a_server_that_has_not_joined_trusts_no_peer(key: bytes, instance: str) -> None:
    assert caller_of_peer(key, instance, peer_token(key, instance, Caller("ann"))) is None


async def status_of(server: PeerServer, token: str) -> int:
    async with httpx2.AsyncClient() as http:
        headers = {"authorization": f"Bearer {token}"}
        return (await http.post(f"{server.url}/mcp", headers=headers, json={})).status_code


async def test_a_call_that_its_client_gives_up_is_killed_where_it_runs(fleet: Peers) -> None:
    await three(fleet)
    mark, asked = marker(), fleet.other(fleet.lead("t"))
    async with asked.client() as client, anyio.create_task_group() as calls:
        calls.start_soon(lambda: client.call_tool("terminal", {"command": f"sleep {mark}", "task_id": "t"}))
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
        calls.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


# --- succession ------------------------------------------------------------------------------------------------------


async def test_a_server_that_dies_is_succeeded_with_files_processes_and_output(fleet: Peers) -> None:
    servers = await three(fleet)
    await servers[0].run("echo mine > file; cd /tmp; export SEEN=yes")
    mark, dying = marker(), fleet.holder("t")
    begun = await dying.run(f"echo begun; sleep {mark}; echo over", background=True)
    await dying.deployment.write(*dying.gateway.pool._upkeep.own())
    await fleet.cut_off(dying)
    heir = fleet.other(dying)
    assert (await heir.run("cat ~/file; pwd; echo $SEEN"))["stdout"] == "mine\n/tmp\nyes\n"
    async with heir.client() as client:
        listed = await fields(client, "process", {"action": "list", "task_id": "t"})
        assert [one["process_id"] for one in listed["processes"] if one["status"] == "running"] == [begun["process_id"]]
    assert alive(mark)


async def test_a_call_waits_for_what_its_server_is_just_taking_over(fleet: Peers) -> None:
    await three(fleet)
    dying = fleet.lead("t")
    await dying.run("echo mine > file")
    held = fleet.cluster.server.held["PATCH pods"] = anyio.Event()
    await fleet.cut_off(dying)
    heir, task, answers = fleet.lead("t"), TaskKey("ann", "t"), []
    assert heir.deployment.claims is not None
    own = heir.deployment.claims.own
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: task in own))  # its own look does that
    before = fleet.cluster.server.requests["POST pods"]

    async def call() -> None:
        answers.append((await heir.run("cat file"))["stdout"])

    async with anyio.create_task_group() as calls:
        calls.start_soon(call)
        await anyio.sleep(0.3)  # the call has come; a sandbox of its own would be begun by now
        held.set()
    assert (answers, fleet.cluster.server.requests["POST pods"]) == (["mine\n"], before)


async def test_a_look_at_a_task_waits_too_where_its_servers_own_look_was_faster_to_claim_it(fleet: Peers) -> None:
    await three(fleet)
    dying = fleet.lead("t")
    begun = await dying.run(f"sleep {marker()}", background=True)
    held = fleet.cluster.server.held["PATCH pods"] = anyio.Event()
    await fleet.cut_off(dying)
    heir, task, listed = fleet.lead("t"), TaskKey("ann", "t"), []
    assert heir.deployment.claims is not None
    own = heir.deployment.claims.own
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: task in own))
    own.discard(task)  # as at a call that has asked for the task a moment before that

    async def look() -> None:
        async with heir.client() as client:
            listed.append(await fields(client, "process", {"action": "list", "task_id": "t"}))

    async with anyio.create_task_group() as calls:
        calls.start_soon(look)
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: task in own))
        held.set()
    assert [one["process_id"] for one in listed[0]["processes"]] == [begun["process_id"]]


async def test_a_server_that_comes_back_gives_up_what_others_have_taken_and_ends_nothing_of_it(fleet: Peers) -> None:
    await three(fleet)
    mark, lead = marker(), fleet.lead("t")
    await lead.run(f"echo mine > file; sleep {mark} &", background=True)
    await lead.run("true")
    await fleet.cut_off(lead)
    heir = fleet.other(lead)
    assert (await heir.run("cat file"))["stdout"] == "mine\n"
    holder = next(one for one in fleet.servers.values() if "t" in one.tasks and one is not lead)
    await fleet.reach_again(lead)
    assert (await lead.run("cat file; echo more >> file"))["stdout"] == "mine\n"
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: "t" not in lead.tasks))
    assert (await holder.run("cat file"))["stdout"] == "mine\nmore\n"
    assert alive(mark)


async def test_what_a_task_was_opened_with_outlives_its_server(fleet: Peers) -> None:
    servers = await three(fleet)
    async with servers[0].client() as client:
        await fields(client, "sandbox", {"action": "open", "task_id": "t", "environment": "e"})
    async with program(servers[0]) as http:
        await http.put("/tasks/t", json={"labels": {"by": "me"}})
    await servers[0].run("echo mine > file")
    dying = fleet.holder("t")
    await dying.deployment.renew()
    assert dying.deployment.claims is not None
    await dying.deployment.claims.note_opened()
    await fleet.cut_off(dying)
    heir = fleet.other(dying)
    assert (await heir.run("cat file; echo $OF"))["stdout"] == "mine\nthe environment\n"
    async with program(heir) as http:
        assert (await http.put("/tasks/t", json={})).json()["labels"] == {"by": "me"}


async def test_the_tasks_of_a_server_that_is_stopped_go_on_at_another_at_once(fleet: Peers) -> None:
    await three(fleet)
    lead = fleet.lead("t")
    await lead.run("echo mine > file")
    del fleet.cluster.living[lead.deployment.instance]
    ended = lead.deployment
    lead.stop.cancel()
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not ended.is_shared))
    assert (await fleet.other(lead).run("cat file"))["stdout"] == "mine\n"


async def test_a_server_that_does_not_see_the_cluster_serves_no_task_that_it_may_have_lost(
    fleet: Peers,
) -> None:
    await three(fleet)
    lead = fleet.lead("t")
    await lead.run("true")
    await fleet.cut_off(lead)
    async with lead.client() as client:
        answer = await client.call_tool("terminal", {"command": "true", "task_id": "t"})
    assert answer.is_error
    assert "Unauthorized" in text_of(answer)


async def test_a_call_that_is_past_the_look_for_its_tasks_server_makes_no_second_sandbox(fleet: Peers) -> None:
    await three(fleet)
    lead, task = fleet.lead("t"), TaskKey("ann", "t")
    await lead.run("echo mine > file")
    (slot,) = lead.gateway.pool.slots
    await fleet.cut_off(lead)
    assert (await fleet.other(lead).run("cat file"))["stdout"] == "mine\n"
    await fleet.reach_again(lead)
    before = fleet.cluster.server.requests["POST pods"]
    with pytest.raises(SandboxLost, match="moves to another server"):
        async with lead.gateway.pool.lease(task, slot.profile):
            pass
    assert fleet.cluster.server.requests["POST pods"] == before
    assert lead.tasks == set()


async def test_a_server_that_stood_still_while_it_made_a_pod_runs_nothing_in_it(fleet: Peers) -> None:
    await three(fleet)
    lead, server = fleet.lead("t"), fleet.cluster.server
    held = server.held["POST pods"] = anyio.Event()
    answers: list[dict[str, Any]] = []

    async def call() -> None:
        answers.append(await lead.run("echo mine >> file; cat file"))

    async with anyio.create_task_group() as calls:
        calls.start_soon(call)
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: server.requests["POST pods"] == 1))
        del server.held["POST pods"], fleet.cluster.living[lead.deployment.instance]
        await fleet.cluster.pass_time(2 * TERM)
        heir = fleet.other(lead)
        assert (await heir.run("echo theirs >> file; cat file"))["stdout"] == "theirs\n"
        held.set()
    assert [answer["stdout"] for answer in answers] == ["theirs\nmine\n"]
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: lead.tasks == set()))


async def test_a_command_under_way_goes_on_when_its_server_is_stopped(fleet: Peers) -> None:
    await three(fleet)
    mark, lead = marker(), fleet.lead("t")
    answers: list[dict[str, Any]] = []

    async def call() -> None:
        answers.append(await lead.run(f"echo begun; sleep {mark}"))

    async with anyio.create_task_group() as calls:
        calls.start_soon(call)
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
        await lead.deployment.begin_to_leave()
        await lead.gateway.end_calls()
    (answer,) = answers
    assert (answer["status"], answer["stdout"]) == ("running", "begun\n")
    del fleet.cluster.living[lead.deployment.instance]
    lead.stop.cancel()
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not lead.deployment.is_shared))
    async with fleet.other(lead).client() as client:
        listed = await fields(client, "process", {"action": "list", "task_id": "t"})
    assert [one["process_id"] for one in listed["processes"]] == [answer["process_id"]]
    assert alive(mark)


async def begin_to_end(server: PeerServer, calls: anyio.abc.TaskGroup) -> None:
    """As at SIGTERM: it hands on what still comes, as long as the group runs."""
    await server.deployment.begin_to_leave()
    assert server.gateway.pool.leaving.begin()
    calls.start_soon(server.hand_over, math.inf)


async def test_a_server_that_ends_hands_on_what_still_comes_to_it(fleet: Peers) -> None:
    await three(fleet)
    lead = fleet.lead("t")
    await lead.run("echo mine > file; export SEEN=yes")
    async with anyio.create_task_group() as calls:
        await begin_to_end(lead, calls)
        assert (await lead.run("cat file; echo $SEEN"))["stdout"] == "mine\nyes\n"
        assert (await lead.run("echo new", "new"))["stdout"] == "new\n"
        async with program(lead) as http:
            answer = await http.get("/files/t/file")
            assert (answer.text, answer.headers["connection"]) == ("mine\n", "close")
        assert fleet.holder("new") is not lead
        calls.cancel_scope.cancel()


async def test_a_call_that_was_handed_on_is_answered_when_the_server_that_did_ends(fleet: Peers) -> None:
    await three(fleet)
    mark, asked = marker(), fleet.other(fleet.lead("t"))
    answers: list[dict[str, Any]] = []

    async def call() -> None:
        answers.append(await asked.run(f"echo begun; sleep {mark}"))

    async with anyio.create_task_group() as calls:
        calls.start_soon(call)
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
        await asked.deployment.begin_to_leave()
        assert asked.gateway.pool.leaving.begin()
        await asked.hand_over(0)
    (answer,) = answers
    assert (answer["status"], answer["stdout"]) == ("running", "begun\n")
    assert alive(mark)


# --- programs and files ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def program(server: PeerServer, token: str = "") -> AsyncIterator[httpx2.AsyncClient]:
    """A client of one server's routes for programs."""
    headers = {"authorization": f"Bearer {token or server.token}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE) as http:
        yield http


async def test_files_are_read_and_written_through_any_server(fleet: Peers) -> None:
    servers = await three(fleet)
    large = os.urandom(3 << 20)
    for number, server in enumerate(servers):
        async with program(server) as http:
            assert (await http.put(f"/files/t/f{number}", content=large)).status_code == 200
    for server in servers:
        async with program(server) as http:
            for number in range(3):
                answer = await http.get(f"/files/t/f{number}", headers={"range": "bytes=10-99"})
                assert (answer.status_code, answer.content) == (206, large[10:100])
            assert (await http.get("/files/t/f0")).content == large
            assert (await http.get("/files/t/none")).status_code == 404
    async with program(servers[0], fleet.tokens["bob"]) as http:
        assert (await http.get("/files/t/f0")).status_code == 404


async def test_programs_run_commands_and_tools_through_any_server(fleet: Peers) -> None:
    servers = await three(fleet)
    for number, server in enumerate(servers):
        async with program(server) as http:
            ran = await http.post("/tasks/t/processes", json={"line": f"echo out-{number}; echo {number} >> seen"})
            assert (ran.status_code, f"out-{number}".encode() in ran.content) == (200, True)
            read = await http.post("/tools/read_file", json={"task_id": "t", "path": "seen"})
            assert read.json()["result"]["text"] == "".join(f"{one}\n" for one in range(number + 1))
            labelled = await http.put("/tasks/t", json={"labels": {"by": str(number)}})
            assert labelled.json()["labels"] == {"by": str(number)}
    assert [server.tasks for server in servers].count({"t"}) == 1


async def test_a_name_that_no_task_can_have_is_refused_and_claims_nothing(fleet: Peers) -> None:
    servers = await three(fleet)
    for server in servers:
        async with program(server) as http:
            for name in ("", "x" * 5000):
                assert (await http.get(f"/files/{name}/f")).status_code == 400
            body = {"task_id": "x" * 5000, "path": "f"}
            assert (await http.post("/tools/read_file", json=body)).status_code == 400
            assert (await http.post("/tools/read_file", content=b"{")).status_code == 400
    assert not [name for name in fleet.cluster.server.all("leases") if "-task-" in name]


async def test_a_request_that_says_the_task_is_here_goes_no_further(fleet: Peers) -> None:
    await three(fleet)
    await fleet.lead("t").run("echo mine > file")
    asked = fleet.other(fleet.lead("t"))
    async with program(asked) as http:
        answer = await http.get("/files/t/file", headers={"taskcell-handed-on": "here"})
        assert (answer.status_code, "moved" in answer.text) == (502, True)
        answer = await http.get("/files/t/file", headers={"taskcell-handed-on": "ask"})
        assert (answer.status_code, answer.text) == (200, "mine\n")


async def test_a_command_of_a_program_that_goes_is_killed_where_it_runs(fleet: Peers) -> None:
    await three(fleet)
    mark, asked = marker(), fleet.other(fleet.lead("t"))
    body = {"line": f"echo begun; sleep {mark}"}
    async with program(asked) as http, http.stream("POST", "/tasks/t/processes", json=body) as answer:
        assert answer.status_code == 200
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def test_a_request_that_was_handed_on_ends_when_its_server_counts_as_dead(fleet: Peers) -> None:
    await three(fleet)
    mark, holder = marker(), fleet.lead("t")
    asked, body = fleet.other(holder), {"line": f"echo begun; sleep {mark}"}
    with anyio.fail_after(PATIENCE):
        async with program(asked) as http, http.stream("POST", "/tasks/t/processes", json=body) as answer:
            assert answer.status_code == 200
            assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
            await fleet.cut_off(holder)  # and would go on answering
            with pytest.raises(httpx2.TransportError):
                await answer.aread()


async def test_a_port_of_a_task_is_reached_through_any_server(fleet: Peers) -> None:
    servers = await three(fleet)
    await servers[0].run("echo page > index.html")
    serve = f"exec {sys.executable} -um http.server --bind 127.0.0.1 0"
    await servers[0].run(f"{serve} > where 2>&1", background=True)
    where = ""
    with anyio.fail_after(PATIENCE):
        while " port " not in where:
            where = (await servers[0].run("cat where"))["stdout"]
    port = where.partition(" port ")[2].split()[0]
    for server in servers:
        async with program(server) as http:
            page = await http.get(f"/ports/t/{port}/index.html")
            assert (page.status_code, page.text) == (200, "page\n")
            assert page.headers["content-security-policy"].startswith("sandbox")
