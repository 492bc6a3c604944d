"""Servers of a deployment hand requests on over TLS, and know each other by what stands in their Leases alone."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.abc
import anyio.streams.tls
import httpx2
import pytest

from http_serving import PATIENCE
from peers import Peers, PeerServer, peers
from taskcell.cli.rm import ask_to_remove
from taskcell.deployment.base import Peer
from taskcell.deployment.cluster.certificate import make_certificate
from taskcell.errors import ConfigError
from taskcell.http.peer_listener import listen_to_peers
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Peers]:
    async with peers(tmp_path) as made:
        made.over_tls = True
        for name in ("one", "two"):
            await made.start(name)
        yield made


def peer_of(fleet: Peers, of: PeerServer) -> Peer:
    (found,) = [one for one in fleet.other(of).deployment.peers() if one.instance == of.deployment.instance]
    return found


async def test_calls_files_lists_and_removals_are_handed_on_over_tls(fleet: Peers) -> None:
    servers = (fleet.servers["one"], fleet.servers["two"])
    names = [next(name for name in map(str, range(10, 99)) if fleet.lead(name) is server) for server in servers]
    for name in names:
        for server in servers:
            assert (await server.run("echo line >> file; wc -l < file", name))["status"] == "exited"
    assert [fleet.holder(name) for name in names] == [*servers]
    for server in servers:
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {server.token}"}, timeout=PATIENCE) as http:
            for name in names:
                assert (await http.get(f"{server.url}/files/{name}/file")).text == "line\nline\n"
            assert [one["task_id"] for one in (await http.get(f"{server.url}/tasks")).json()["tasks"]] == sorted(names)
        (door,) = (fleet.folder / server.name).glob("*.sock")
        other = next(name for name in names if fleet.holder(name) is not server)
        assert await ask_to_remove(door, TaskKey("ann", other), purge=False)
        await server.run("echo line > file; echo line >> file", other)


async def test_a_server_with_another_certificate_is_sent_nothing(fleet: Peers) -> None:
    one = fleet.servers["one"]
    peer = peer_of(fleet, one)
    stranger = make_certificate("127.0.0.1").pem
    with pytest.raises(ssl.SSLError):
        await replace(peer, certificate=stranger).connect(PATIENCE)
    for unknown in ("", " "):
        with pytest.raises(ConnectionRefusedError):
            await replace(peer, certificate=unknown).connect(PATIENCE)
    await (await peer.connect(PATIENCE)).aclose()


async def test_a_certificate_is_for_its_own_address() -> None:
    own = make_certificate("127.0.0.2")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def served(stream: anyio.abc.ByteStream) -> None:
        with pytest.raises((OSError, anyio.BrokenResourceError, anyio.EndOfStream)):
            await anyio.streams.tls.TLSStream.wrap(stream, ssl_context=own.tls, server_side=True)

    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, served)
        with pytest.raises(ssl.SSLCertVerificationError):
            await Peer(f"https://127.0.0.1:{port}", "x", own.pem).connect(PATIENCE)
        group.cancel_scope.cancel()


async def test_plain_http_is_not_served_to_peers(fleet: Peers) -> None:
    address = peer_of(fleet, fleet.servers["one"]).url.replace("https:", "http:")
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        with pytest.raises(httpx2.HTTPError):
            await http.get(f"{address}/healthz")


async def test_the_key_is_nowhere_but_in_the_server(fleet: Peers) -> None:
    for lease in fleet.cluster.server.all("leases").values():
        assert "PRIVATE KEY" not in str(lease)
    assert not list(fleet.folder.rglob("*.pem"))
    assert "PRIVATE" not in repr(make_certificate("10.0.0.1"))


def test_an_address_for_peers_names_its_port() -> None:
    assert listen_to_peers("127.0.0.1", "http://10.0.0.1:8765") is None
    for url in ("https://10.0.0.1", "http://10.0.0.1"):
        with pytest.raises(ConfigError, match="name the port"):
            listen_to_peers("127.0.0.1", url)


def test_a_port_that_is_taken_is_said() -> None:
    taken = listen_to_peers("127.0.0.1", "https://10.0.0.1:0")
    assert taken is not None
    with taken, pytest.raises(ConfigError, match="cannot be used"):
        listen_to_peers("127.0.0.1", f"https://10.0.0.1:{taken.getsockname()[1]}")
