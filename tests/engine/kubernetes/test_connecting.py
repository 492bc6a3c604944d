"""How a stream to a pod is opened: through a proxy, below a path, as somebody else, and whatever is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from websockets.utils import accept_key

from observe import HOST_TIMEOUT
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.exec_stream import PROTOCOL, open_pod_exec
from taskcell.engine.kubernetes.kubeconfig import Cluster
from taskcell.errors import EngineUnavailable, SandboxLost, TaskcellError

pytestmark = pytest.mark.anyio


@dataclass
class Upgrades:
    """Answers requests for a WebSocket, one after the other, each on a connection of its own; it is a proxy as well."""

    port: int = 0
    #: What is answered next; 101 opens the WebSocket.
    statuses: list[int] = field(default_factory=list)
    subprotocol: str = PROTOCOL
    #: What a proxy answers.
    connects: str = "HTTP/1.1 200 OK"
    heads: list[str] = field(default_factory=list)
    renewed: int = 0

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            head = await self._head(stream)
            if head.startswith("CONNECT"):
                await stream.send(f"{self.connects}\r\n\r\n".encode())
                if " 200 " not in self.connects:
                    return
                head = await self._head(stream)
            status = self.statuses.pop(0)
            if status != 101:
                await stream.send(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())
                return
            key = next(line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
            lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
            lines += [f"Sec-WebSocket-Accept: {accept_key(key)}"]
            lines += [f"Sec-WebSocket-Protocol: {self.subprotocol}"] if self.subprotocol else []
            await stream.send("\r\n".join([*lines, "", ""]).encode() + b"\x82\x03\x01hi")
            await anyio.sleep_forever()

    async def _head(self, stream: anyio.abc.ByteStream) -> str:
        head = (await BufferedByteReceiveStream(stream).receive_until(b"\r\n\r\n", 1 << 16)).decode()
        self.heads.append(head)
        return head

    def renew(self) -> None:
        self.renewed += 1

    def api(self, server: str = "", proxy: str = "", headers: tuple[tuple[str, str], ...] = ()) -> Api:
        address = server or f"http://127.0.0.1:{self.port}"
        cluster = Cluster(address, "sandboxes", False, lambda: "abc", self.renew, "", proxy, headers)  # type: ignore[arg-type]
        return Api(lambda: cluster)


@pytest.fixture
async def upgrades() -> AsyncIterator[Upgrades]:
    made = Upgrades()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    made.port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, made.serve)
        with anyio.fail_after(HOST_TIMEOUT):
            yield made
        group.cancel_scope.cancel()


@asynccontextmanager
async def opened(api: Api) -> AsyncIterator[bytes]:
    """What a stream to a pod begins with."""
    stream = await open_pod_exec(api, "pod", "cell", ("a", "b c"))
    try:
        yield await stream.receive()
    finally:
        await anyio.aclose_forcefully(stream)


async def test_below_a_path_and_as_somebody_else(upgrades: Upgrades) -> None:
    upgrades.statuses = [101]
    groups = (("Impersonate-User", "ada"), ("Impersonate-Group", "x"), ("Impersonate-Group", "y"))
    api = upgrades.api(f"http://127.0.0.1:{upgrades.port}/k8s/clusters/c-1", headers=groups)
    async with opened(api) as said:
        assert said == b"hi"
    (head,) = upgrades.heads
    assert head.startswith("GET /k8s/clusters/c-1/api/v1/namespaces/sandboxes/pods/pod/exec?container=cell&")
    for line in ("Authorization: Bearer abc", "Impersonate-User: ada", "Impersonate-Group: x", "Impersonate-Group: y"):
        assert f"\r\n{line}" in head


async def test_through_the_proxy_of_the_kubeconfig(upgrades: Upgrades) -> None:
    upgrades.statuses = [101]
    api = upgrades.api("http://k.test:6443", f"http://user:pass@127.0.0.1:{upgrades.port}")
    async with opened(api) as said:
        assert said == b"hi"
    asked, head = upgrades.heads
    assert asked.startswith("CONNECT k.test:6443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in asked
    assert "Authorization: Bearer" not in asked
    assert head.startswith("GET /api/v1/namespaces/")


async def test_through_the_proxy_of_the_environment_but_not_where_that_says_no(
    upgrades: Upgrades, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{upgrades.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    upgrades.statuses = [101, 101]
    async with opened(upgrades.api("http://k.test")):
        assert upgrades.heads[0].startswith("CONNECT k.test:80 ")
    async with opened(upgrades.api()):
        assert upgrades.heads[-1].startswith("GET ")


@pytest.mark.parametrize(
    ("connects", "why"),
    [("HTTP/1.1 407 Proxy Authentication Required", r"\(it says 407\)"), ("SSH-2.0-OpenSSH", r"\(it says nothing\)")],
)
async def test_a_proxy_that_does_not_connect_is_named_without_its_password(
    upgrades: Upgrades, connects: str, why: str
) -> None:
    upgrades.connects = connects
    api = upgrades.api("http://k.test", f"http://user:secret@127.0.0.1:{upgrades.port}")
    with pytest.raises(EngineUnavailable, match=why) as caught:
        await open_pod_exec(api, "pod", "cell", ("a",))
    assert "secret" not in str(caught.value)


async def test_a_token_that_was_refused_is_fetched_anew_once(upgrades: Upgrades) -> None:
    upgrades.statuses = [401, 101, 401, 401]
    async with opened(upgrades.api()) as said:
        assert (said, upgrades.renewed) == (b"hi", 1)
    with pytest.raises(EngineUnavailable, match="refuses the token"):
        await open_pod_exec(upgrades.api(), "pod", "cell", ("a",))
    assert upgrades.renewed == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, EngineUnavailable), (503, EngineUnavailable), (404, SandboxLost), (500, SandboxLost), (200, SandboxLost)],
)
async def test_a_busy_api_server_has_lost_no_sandbox(
    upgrades: Upgrades, status: int, kind: type[TaskcellError]
) -> None:
    upgrades.statuses = [status]
    with pytest.raises(kind, match=f"HTTP {status}"):
        await open_pod_exec(upgrades.api(), "pod", "cell", ("a",))


@pytest.mark.parametrize("subprotocol", ["", "v5.channel.k8s.io"])
async def test_another_protocol_than_ours_is_one_sentence(upgrades: Upgrades, subprotocol: str) -> None:
    upgrades.statuses, upgrades.subprotocol = [101], subprotocol
    with pytest.raises(SandboxLost, match=r"does not speak"):
        await open_pod_exec(upgrades.api(), "pod", "cell", ("a",))
