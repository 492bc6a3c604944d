"""Sessions of the handshake's era, tasks of the extension and lists: of one server, and reached through any other."""

from __future__ import annotations

import anyio
import httpx2
import pytest

from http_serving import PATIENCE
from peer_requests import ACCEPT, raw
from peers import Peers, PeerServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("three_servers")]


def servers_of(fleet: Peers) -> list[PeerServer]:
    return [fleet.servers[name] for name in ("one", "two", "three")]


async def test_a_session_is_served_whichever_server_its_requests_come_to(fleet: Peers) -> None:
    one, *_ = servers = servers_of(fleet)
    async with raw(fleet) as client:
        await client.begin(one)
        assert client.session.endswith(f".{one.deployment.instance}")
        for server in servers * 2:
            call = {"name": "terminal", "arguments": {"command": "echo line >> file; wc -l < file", "task_id": "t"}}
            answer = await client.send(server, "tools/call", call)
            assert answer.headers["mcp-session-id"] == client.session
        assert (await one.run("wc -l < file"))["stdout"].strip() == "6"
        assert await client.end(servers[1]) == 200
        await client.send(servers[2], "tools/list", {}, wants=404)


async def test_a_session_that_no_living_server_has_is_not_found_and_is_begun_anew(fleet: Peers) -> None:
    one, two, _ = servers_of(fleet)
    async with raw(fleet) as client:
        await client.begin(one)
        await fleet.cut_off(one)
        await client.send(two, "tools/list", {}, wants=404)
        client.session = ""
        await client.begin(two)
        await client.send(two, "tools/list", {})


@pytest.mark.parametrize("session", ["x", ".", "x.", ".x", "x.y", "a.b.c", "x" * 300])
async def test_a_session_with_a_name_that_no_server_gave_is_not_found(fleet: Peers, session: str) -> None:
    async with raw(fleet) as client:
        client.session = session
        for server in servers_of(fleet):
            await client.send(server, "tools/list", {}, wants=404)


async def test_a_session_is_its_principals_alone_through_any_server(fleet: Peers) -> None:
    one, *_ = servers = servers_of(fleet)
    async with raw(fleet) as ann, raw(fleet, "bob") as bob:
        await ann.begin(one)
        bob.session = ann.session
        for server in servers:
            await bob.send(server, "tools/list", {}, wants=404)
        await ann.send(servers[1], "tools/list", {})


async def test_the_list_of_tasks_is_that_of_all_servers(fleet: Peers) -> None:
    names = [f"task-{number}" for number in range(6)]
    for name in names:
        await fleet.servers["one"].run("true", name)
    await fleet.servers["one"].run("true", "bobs", fleet.tokens["bob"])
    assert len({fleet.holder(name).name for name in names}) > 1
    for server in servers_of(fleet):
        assert await listed(server) == names
    assert await listed(fleet.servers["two"], fleet.tokens["bob"]) == ["bobs"]
    holder = fleet.holder("task-0")
    assert "task-0" not in await listed(fleet.other(holder), headers={"taskcell-handed-on": "here"})


async def test_the_list_of_tasks_finds_labels_wherever_they_are(fleet: Peers) -> None:
    one = fleet.servers["one"]
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {one.token}"}, timeout=PATIENCE) as http:
        for name in ("a", "b", "c"):
            answer = await http.put(f"{one.url}/tasks/{name}", json={"labels": {"team": "x", "name": name}})
            assert answer.is_success, answer.text
    for server in servers_of(fleet):
        assert await listed(server, query="label=team%3Dx") == ["a", "b", "c"]
        assert await listed(server, query="label=name%3Db") == ["b"]


async def listed(
    server: PeerServer, token: str = "", *, query: str = "", headers: dict[str, str] | None = None
) -> list[str]:
    sent = {"authorization": f"Bearer {token or server.token}"} | (headers or {})
    async with httpx2.AsyncClient(headers=sent, timeout=PATIENCE) as http:
        answer = await http.get(f"{server.url}/tasks?{query}")
        assert answer.is_success, answer.text
        return [one["task_id"] for one in answer.json()["tasks"]]


async def test_a_task_of_the_extension_is_found_and_cancelled_through_any_server(fleet: Peers) -> None:
    lead = fleet.lead("t")
    async with raw(fleet) as client, raw(fleet, "bob") as bob:
        arguments = {"command": "sleep 1000", "task_id": "t", "background": True, "timeout": 900}
        begun = await client.ask(lead, "tools/call", name="terminal", arguments=arguments)
        identity = begun["result"]["taskId"]
        for server in servers_of(fleet):
            assert (await client.ask(server, "tasks/get", taskId=identity))["result"]["status"] == "working"
            assert "There is no such task" in (await bob.ask(server, "tasks/get", taskId=identity))["error"]["message"]
        others = [server for server in servers_of(fleet) if server is not lead]
        assert "result" in await client.ask(others[0], "tasks/cancel", taskId=identity)
        assert (await client.ask(others[1], "tasks/get", taskId=identity))["result"]["status"] == "cancelled"
        for odd in ("x", "=", "x" * 3000):
            assert "error" in await client.ask(others[0], "tasks/get", taskId=odd)


async def test_a_request_without_a_body_to_read_names_no_task(fleet: Peers) -> None:
    one, *_ = servers_of(fleet)
    length = 1 << 40  # would be too long
    head = f"GET /mcp HTTP/1.1\r\nHost: {one.url.removeprefix('http://')}\r\nAuthorization: Bearer {one.token}\r\n"
    head += f"Accept: {ACCEPT}\r\nMcp-Method: tasks/get\r\nContent-Length: {length}\r\n\r\n"
    with anyio.fail_after(PATIENCE):
        async with await anyio.connect_tcp("127.0.0.1", int(one.url.rpartition(":")[2])) as stream:
            await stream.send(head.encode())
            assert int((await stream.receive()).split()[1]) in range(400, 500)
