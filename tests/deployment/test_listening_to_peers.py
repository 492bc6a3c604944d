"""Clients that listen to resources hear of them whichever server has their tasks, also when that is another one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest

from http_serving import PATIENCE
from peer_requests import ACCEPT, META, raw
from peers import Peers, PeerServer
from taskcell.mcp.subscriptions import MAX_FOLLOWED

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("three_servers")]


def uri_of(task: str) -> str:
    return f"taskcell://tasks/{task}/files/file"


async def spread(fleet: Peers) -> list[str]:
    """Tasks, one at each server."""
    found: dict[str, str] = {}
    for number in range(100):
        found.setdefault(fleet.lead(f"task-{number}").name, f"task-{number}")
        if len(found) == len({id(server) for server in fleet.servers.values()}):
            break
    for task in found.values():
        await fleet.lead(task).run("echo begun > file", task)
    return sorted(found.values())


class Heard:
    """What a client hears, by addresses."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self, method: str) -> str:
        """The address that the next such message names; empty where it names none."""
        with anyio.fail_after(PATIENCE):
            async for line in self._lines:
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") and line != "data:" else {}
                if method in str(message.get("method")):
                    return str(message["params"].get("uri", ""))
        raise AssertionError("the stream has ended")

    async def of(self, uris: Sequence[str]) -> None:
        """Wait until it has heard of each."""
        missing = set(uris)
        while missing:
            missing.discard(await self.next("resources/updated"))


@asynccontextmanager
async def listening(server: PeerServer, uris: Sequence[str]) -> AsyncIterator[Heard]:
    headers = {"authorization": f"Bearer {server.token}", "accept": ACCEPT}
    headers |= {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
    params = {"notifications": {"resourceSubscriptions": list(uris)}, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
        http.stream("POST", f"{server.url}/mcp", json=body) as stream,
    ):
        assert stream.status_code == 200
        heard = Heard(stream.aiter_lines())
        await heard.next("acknowledged")
        yield heard


@asynccontextmanager
async def subscribed(fleet: Peers, server: PeerServer, uris: Sequence[str]) -> AsyncIterator[Heard]:
    """The same in a session of the handshake's era."""
    async with raw(fleet) as client:
        await client.begin(server)
        headers = {"accept": "text/event-stream", "mcp-session-id": client.session}
        async with client.http.stream("GET", f"{server.url}/mcp", headers=headers) as stream:
            assert stream.status_code == 200
            for uri in uris:
                await client.send(server, "resources/subscribe", {"uri": uri})
            yield Heard(stream.aiter_lines())


@pytest.mark.parametrize("era", ["the handshake's", "the later one"])
async def test_who_listens_hears_of_the_tasks_of_all_servers(fleet: Peers, era: str) -> None:
    tasks, asked = await spread(fleet), fleet.servers["one"]
    uris = [uri_of(task) for task in tasks]
    opened = listening(asked, uris) if era == "the later one" else subscribed(fleet, asked, uris)
    async with opened as heard:
        for task in tasks:
            await asked.run("echo more >> file", task)
        await heard.of(uris)


@pytest.mark.parametrize("end", ["dies", "ends"])
async def test_who_listens_hears_from_the_heir_of_a_task(fleet: Peers, end: str) -> None:
    ending = fleet.lead("t")
    asked = fleet.other(ending)
    await asked.run("echo one > file", "t")
    async with listening(asked, [uri_of("t")]) as heard, anyio.create_task_group() as group:
        if end == "dies":
            await ending.deployment.write(*ending.gateway.pool._upkeep.own())
            await fleet.cut_off(ending)
        else:
            await ending.deployment.begin_to_leave()
            assert ending.gateway.pool.leaving.begin()
            group.start_soon(ending.hand_over, 0)
        await asked.run("echo two >> file", "t")
        await heard.of([uri_of("t")])
        for _ in range(2):  # the first notice may be of what may have changed meanwhile
            await asked.run("echo three >> file", "t")
            await heard.of([uri_of("t")])
        group.cancel_scope.cancel()


async def test_the_end_of_a_process_elsewhere_is_heard_and_not_asked_for_again(fleet: Peers) -> None:
    lead = fleet.lead("t")
    asked = fleet.other(lead)
    begun = await lead.run("until [ -e go ]; do sleep 0.05; done; echo over", background=True)
    uri = f"taskcell://tasks/t/processes/{begun['process_id']}/output"
    async with listening(asked, [uri, uri_of("t")]) as heard:
        await asked.run("touch go; echo one > file")
        await heard.of([uri, uri_of("t")])
        await asked.run("echo two > file")
        await heard.of([uri_of("t")])


async def test_the_bound_of_what_is_followed_is_that_of_the_server_that_is_asked(fleet: Peers) -> None:
    one, two, three = (fleet.servers[name] for name in ("one", "two", "three"))
    task = next(f"task-{number}" for number in range(100) if fleet.lead(f"task-{number}") is three)
    await three.run("echo begun > file; mkdir many", task)
    uris = [f"taskcell://tasks/{task}/files/many/{number}" for number in range(MAX_FOLLOWED - 1)]
    async with listening(one, [*uris, uri_of(task)]) as ones, listening(two, [*uris, uri_of(task)]) as twos:
        await one.run("echo more >> file", task)
        for heard in (ones, twos):
            await heard.of([uri_of(task)])
