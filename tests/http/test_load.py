"""64 clients at once: nothing is lost, memory stays level, and what they have survives the server's end in the middle.

TASKCELL_LOAD_SECONDS says how long they work; `make test-load` takes a minute, and the suite `faults` a few seconds.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import docker
import pytest

from http_load import Load, LoadClient, resident
from http_serving import MUST_END, PATIENCE, HttpServer, serving_http
from observe import containers

pytestmark = pytest.mark.faults

CLIENTS = 64
SECONDS = float(os.environ.get("TASKCELL_LOAD_SECONDS", "10"))
#: Bytes that the server may grow by between the second and the last quarter of the run, with the messages that it keeps
#: for clients that come back, up to 256 of each session.
MAX_GROWTH = 24 << 20
#: Seconds between two looks at the server's memory.
INTERVAL = 0.5

HTTP = """
[pool]
warm = 0
max_sandboxes = 64
on_exit = "keep"
orphan_ttl = "60s"
[http]
tokens_file = "tokens.json"
calls_per_minute = 1000000
"""


class Unread:
    """A client that asks for much progress and reads nothing of it."""

    def __init__(self, server: HttpServer, token: str) -> None:
        session = server.initialize(token)
        self._connection = server.connect()
        body = (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"terminal","_meta":{"progressToken":"p"},'
            b'"arguments":{"task_id":"unread","timeout":600,"command":"while sleep 0.05; do seq 2000; done"}}}'
        )
        head = (
            "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"accept: application/json, text/event-stream\r\nauthorization: Bearer {token}\r\n"
            f"mcp-session-id: {session}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._connection.sendall(head.encode() + body)

    def close(self) -> None:
        self._connection.close()


@pytest.mark.anyio
async def test_64_clients_lose_nothing_and_memory_stays_level_though_one_reads_nothing(tmp_path: Path) -> None:
    load, memory = Load(tmp_path, CLIENTS, tasks=7), list[int]()
    with serving_http(tmp_path, f'manifests = []\n[engine]\nkind = "local"\n{HTTP}') as server:
        unread = Unread(server, load.clients[0].token)
        ended = anyio.Event()
        async with anyio.create_task_group() as working:
            working.start_soon(load.run, server, ended.is_set)
            await load.answered(CLIENTS)
            for _ in range(int(SECONDS / INTERVAL)):
                await anyio.sleep(INTERVAL)
                memory.append(resident(server.process.pid))
            ended.set()
        for client in load.clients:
            assert client.faults == []
            assert client.sent == client.done == await client.kept(server)
        unread.close()
        assert server.end() == 0
    quarter = len(memory) // 4
    times = ", ".join(f"p{share * 100:g} {load.quantile(share) * 1000:.0f} ms" for share in (0.5, 0.95, 0.99))
    calls = sum(len(client.done) for client in load.clients)
    print(f"\n{calls} calls of {CLIENTS} clients, most of them in {SECONDS:g} s: {times}")
    print(f"memory: {memory[quarter] >> 20} MiB after a quarter, {memory[-1] >> 20} MiB at the end")
    assert min(memory[3 * quarter :]) - max(memory[quarter : 2 * quarter]) < MAX_GROWTH


@pytest.fixture
def deployment(docker_api: docker.APIClient) -> Iterator[str]:
    name = f"load-{secrets.token_hex(4)}"
    yield name
    for identity in containers(docker_api, taskcell__deployment=name):
        docker_api.remove_container(identity, force=True, v=True)


@pytest.mark.engine
@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_what_was_answered_is_there_once_after_the_servers_end_in_the_middle(
    tmp_path: Path, deployment: str, number: signal.Signals
) -> None:
    toml = f'deployment = "{deployment}"\nmanifests = []\n{HTTP}'
    load = Load(tmp_path, CLIENTS, tasks=1)
    with serving_http(tmp_path, toml) as server:
        async with anyio.create_task_group() as working:
            working.start_soon(load.run, server, lambda: False)
            await load.answered(10 * CLIENTS)
            server.process.send_signal(number)
            code = await anyio.to_thread.run_sync(lambda: server.process.wait(MUST_END))
        assert code == (0 if number is signal.SIGTERM else -number), server.log()
    assert all(client.faults for client in load.clients)
    with serving_http(tmp_path, toml) as server:
        for client in load.clients:
            await _check(client, server)


async def _check(client: LoadClient, server: HttpServer) -> None:
    """Each answered command has left its line, and no command was run twice."""
    with anyio.fail_after(PATIENCE):
        kept = await client.kept(server)
    assert len(kept) == len(set(kept))
    assert set(client.done) <= set(kept) <= set(client.sent)
