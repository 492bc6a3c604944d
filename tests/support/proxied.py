"""A sandbox's proxy without a sandbox: a supervisor, its channel, and what serves the proxy; and servers to reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import anyio
import anyio.abc

from supervisor_driver import PATIENCE, TOKEN, Supervisor
from taskcell.audit.log import AuditLog
from taskcell.config.egress_table import EgressSettings
from taskcell.destinations import Address
from taskcell.egress.egress import Egress, SandboxEgress
from taskcell.model import Profile, TaskKey
from taskcell.supervisor import binary
from taskcell.supervisor.channel import Channel

TASK = TaskKey("local", "t")


@dataclass
class Names:
    """A resolver for tests: what it does not know has no address. `asked` are the names that were looked up."""

    known: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError(-2, "Name or service not known")
        return [ip_address(address) for address in self.known[host]]


@dataclass
class Proxied:
    """A proxy at `port` of loopback."""

    channel: Channel
    egress: Egress
    names: Names
    sandbox: SandboxEgress
    supervisor: Supervisor

    @property
    def port(self) -> int:
        return self.sandbox.port

    async def dial(self, host: str = "127.0.0.1") -> anyio.abc.SocketStream:
        return await anyio.connect_tcp(host, self.port)


@asynccontextmanager
async def connected(supervisor: Supervisor) -> AsyncIterator[anyio.abc.ByteStream]:
    async with await anyio.connect_unix(supervisor.path) as stream:
        yield stream


async def never() -> bool:
    return False


@asynccontextmanager
async def proxied(
    folder: Path, *allowed: str, names: Names | None = None, audit: AuditLog | None = None, **settings: object
) -> AsyncIterator[Proxied]:
    """Serve a proxy for what `allowed` names. `settings` are those of `[egress]`."""
    folder.mkdir(exist_ok=True)
    supervisor = Supervisor(binary.path(), folder.joinpath("run"))
    names = names or Names()
    try:
        supervisor.connect().close()  # its socket is there before it listens
        channel = Channel(TOKEN, 60.0)
        async with anyio.create_task_group() as group:
            await group.start(channel.run, lambda: connected(supervisor), never)
            egress = Egress(EgressSettings(**settings), audit, names)  # type: ignore[arg-type]
            profile = Profile("terminal", "image", "terminal", egress=allowed)
            sandbox = await egress.begin(group, channel, profile, {}, lambda: TASK, any_port=True)
            assert sandbox is not None
            yield Proxied(channel, egress, names, sandbox, supervisor)
            group.cancel_scope.cancel()
    finally:
        supervisor.stop()


@dataclass
class Seen:
    """A server on loopback, and what connections sent to it."""

    port: int
    connections: list[bytes] = field(default_factory=list)
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, wanted: bytes) -> None:
        with anyio.fail_after(PATIENCE):
            while not any(wanted in data for data in self.connections):
                await self.changed.wait()


@asynccontextmanager
async def serving(answer: bytes = b"", *, echo: bool = False, ends: bool = True, port: int = 0) -> AsyncIterator[Seen]:
    """A server that answers each connection's first bytes with `answer`, or all of them with themselves.

    Arguments:
        ends: it closes a connection after its answer.
        port: 0 for any.
    """
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    seen = Seen(listener.extra(anyio.abc.SocketAttribute.local_port))

    async def serve(stream: anyio.abc.SocketStream) -> None:
        number = len(seen.connections)
        seen.connections.append(b"")
        async with stream:
            try:
                async for data in stream:
                    seen.connections[number] += data
                    changed, seen.changed = seen.changed, anyio.Event()
                    changed.set()
                    await stream.send(data if echo else answer)
                    if ends and not echo:
                        return
            except anyio.BrokenResourceError:
                pass

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield seen
        group.cancel_scope.cancel()


async def read_all(stream: anyio.abc.ByteStream) -> bytes:
    """Everything until the end, or until it breaks."""
    data = b""
    with anyio.fail_after(PATIENCE):
        try:
            async for piece in stream:
                data += piece
        except anyio.BrokenResourceError:
            return data + b"<reset>"
    return data
