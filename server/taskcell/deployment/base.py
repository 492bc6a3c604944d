"""What the servers of one deployment know about each other, kept in a folder of one machine, or on a cluster."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from taskcell.deployment.archives import ArchiveStore
from taskcell.deployment.opened import Opening
from taskcell.deployment.records import NoteRecord, SandboxRecord, ServerRecord
from taskcell.deployment.state_folder import StateFolder
from taskcell.model import TaskKey

if TYPE_CHECKING:
    import httpx2

#: The route of servers among themselves (`http/handed_calls.py`), and what it answers.
HANDED_CALLS, _NO_CONTENT = "/handed-on", 204
_NO_ANSWER = (OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream)
#: Bytes of a status line.
_MAX_LINE = 1 << 10


class _Tls(TLSStream):
    """A connection that ends both ways at once, as TLS of servers in Python does: one half alone cannot."""

    async def send_eof(self) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of the deployment that is reached over the network.

    Arguments:
        url: where it serves HTTP, without a path.
        instance: its own name among those of its deployment.
        certificate: the only one that it is known by, where its `url` is `https`.
    """

    url: str
    instance: str
    certificate: str = ""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For a connection to it; None where there is no TLS. Raises OSError: it is known by no certificate."""
        if not self.url.startswith("https:"):
            return None
        if not self.certificate.strip() or not self.certificate.isascii():
            raise ConnectionRefusedError("the server has no certificate")
        return ssl.create_default_context(cadata=self.certificate)

    async def connect(self, seconds: float) -> ByteStream:
        """A connection to it. Raises OSError, TimeoutError."""
        parts = urlsplit(self.url)
        with anyio.fail_after(seconds):
            host, port, tls = str(parts.hostname), parts.port or 0, self.tls
            if tls is None:
                return await anyio.connect_tcp(host, port)
            return await _Tls.wrap(
                await anyio.connect_tcp(host, port), hostname=host, ssl_context=tls, standard_compatible=False
            )

    def http(self, token: str, seconds: float | None, *, connect: float, **headers: str) -> httpx2.AsyncClient:
        """A client of it. Raises OSError: it is known by no certificate.

        Arguments:
            token: stands for a caller at that server, and at no other.
            seconds: for each step of a request; None: without end.
            connect: seconds to connect.
        """
        import httpx2  # a server that has no others does not load it for this

        timeout = httpx2.Timeout(seconds, connect=connect)
        headers = {"authorization": f"Bearer {token}", **headers}
        return httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False, verify=self.tls or False)

    async def opens(self, token: str, seconds: float) -> bool:
        """Whether it is this server that answers at its address, and not one that was started in its place.

        Arguments:
            token: stands for a caller at that server, and at no other.
        """
        return await self.asked(HANDED_CALLS, token, b"", seconds) == _NO_CONTENT

    async def asked(self, path: str, token: str, body: bytes, seconds: float) -> int:
        """The status of its answer to a request of servers; 0 where none comes in time.

        Arguments:
            body: empty for GET.
        """
        head = (
            f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        answer = b""
        with anyio.move_on_after(seconds), suppress(*_NO_ANSWER):
            async with await self.connect(seconds) as stream:
                await stream.send(head.encode() + body)
                while (end := answer.find(b"\r\n")) < 0 and len(answer) < _MAX_LINE:
                    answer += await stream.receive()
                words = answer[:end].split()
                return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        return 0


#: How a server is reached: by the socket of its local door, or over the network.
Door = Path | Peer


@dataclass(frozen=True, slots=True)
class Claimed:
    """What became of a wish to have a task.

    Arguments:
        door: of the living server that has the task; None if the task is this server's now.
        dead: the server that had it before and does not live any more; empty if there is none.
        is_certain: the server behind the door has the task. Otherwise it is the one that is to say who has it.
    """

    door: Door | None = None
    dead: str = ""
    is_certain: bool = True

    @property
    def socket(self) -> str:
        """The path of the door's socket; empty where it has none."""
        return str(self.door) if isinstance(self.door, Path) else ""


class Claims(Protocol):
    """Which server has a task. Two servers that live never have the same one.

    Every method but `covers` may raise OSError, or TaskcellError, where the state cannot be reached; what it was to do
    may have been done.
    """

    @property
    def own(self) -> set[TaskKey]:
        """The tasks that this server has claimed."""

    def covers(self, task: TaskKey) -> bool:
        """Whether servers share tasks of this principal at all."""

    async def claim(self, task: TaskKey, *, is_sent: bool = False) -> Claimed:
        """Take a task unless a server that lives has it, or is to have it.

        Arguments:
            is_sent: another server says that this one is to say who has the task.
        """

    async def take(self, tasks: Collection[TaskKey]) -> None:
        """Claim tasks that this server has sandboxes of already, unless another one that lives has claimed them."""

    async def release(self, tasks: Collection[TaskKey]) -> None:
        """Give up tasks of which nothing is here any more."""

    async def sweep(self) -> None:
        """Remove the claims of servers that have ended and left nothing."""


class Deployment(Protocol):
    """The servers of one deployment, as one of them sees them. It has joined once `join` has returned.

    A state that cannot be written costs a line in the log, and nothing else: other servers know less then.
    """

    @property
    def state(self) -> StateFolder:
        """Where this machine keeps files of the deployment; without a folder where there is none."""

    @property
    def archives(self) -> ArchiveStore:
        """Where kept files and snapshots are."""

    @property
    def door(self) -> Path | None:
        """The socket of this server's local door; None where there is no place for it."""

    @property
    def key(self) -> bytes:
        """What only the deployment's servers know, from which tokens are derived; its own where none is shared."""

    @property
    def instance(self) -> str:
        """This server's name."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For a listener of this server, at which the others know it; None where they reach it without TLS."""

    @property
    def opened(self) -> dict[TaskKey, Opening]:
        """What this server's tasks were opened with, where that is in no file; it goes to the next server with them."""

    @property
    def left_alone(self) -> float:
        """The part of `orphan_ttl` for which a dead server's sandboxes are left to one that is started in its place."""

    @property
    def marks_owners(self) -> bool:
        """Of each container it is known which server has it, and one that has lost it must leave it alone."""

    @property
    def is_current(self) -> bool:
        """No other server counts this one as dead. Otherwise nothing is surely its own."""

    @property
    def claims(self) -> Claims | None:
        """None while no other server knows of this one."""

    # --- this server

    async def join(self, instance: str) -> None:
        """Be one of its servers from now on, under this name, and learn the key.

        Raises TaskcellError: the state cannot be reached now. One that can never be is left alone, and is not shared.
        """

    @property
    def is_shared(self) -> bool:
        """Other servers find what this one writes."""

    async def run(self) -> None:
        """Have others see that this server lives, until this is cancelled or `leave` is called."""

    async def write(self, sandboxes: Sequence[SandboxRecord], notes: Sequence[NoteRecord] = ()) -> None:
        """Replace what others find of this server."""

    def lives(self, instance: str) -> bool:
        """Whether another server may still answer what it was asked, as far as this one knows."""

    @property
    def has_heirs(self) -> bool:
        """Another server lives that takes this one's tasks at once when this one ends."""

    async def hand_over(self) -> None:
        """Leave everything to the others, and live on only to hand requests on to them. Raises TaskcellError."""

    async def begin_to_leave(self) -> None:
        """Get no further task that nobody has; those that this server has stay. A failure is a line in the log."""

    async def leave(self, *, keep: bool) -> None:
        """Be none of its servers any more. `keep` leaves what was written to the next server."""

    # --- the others

    def peers(self) -> Sequence[Peer]:
        """The other servers that live and are reached over the network, as they were seen last."""

    async def peer(self, instance: str) -> Peer | None:
        """One of them; None where it does not live. Raises TaskcellError."""

    async def servers(self) -> Sequence[ServerRecord]:
        """Every server that has written something and not taken it back, dead or alive."""

    async def dead(self) -> Collection[str]:
        """The servers that have ended and left something."""

    def bequeathed(self, chosen: Collection[str] | None = None) -> AsyncIterator[ServerRecord]:
        """Yield what this server takes over of each dead one: no other one has or gets that.

        It is to be in this server's own record before the next is asked for.

        Arguments:
            chosen: only what these instances left. None: what any left.
        """

    async def elsewhere(self) -> frozenset[TaskKey]:
        """Tasks whose sandboxes another living server has taken over, which has to be said of them."""
