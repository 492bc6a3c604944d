"""Carries connections of this machine's loopback to a port of a task, through its server's local door."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import anyio
import anyio.abc
import h11

from taskcell.byte_streams import BROKEN, PieceStream, splice
from taskcell.cli.in_task import door_of
from taskcell.deployment.doors import short_path
from taskcell.errors import TaskcellError
from taskcell.gateway.ports import MAX_TASK_CONNECTIONS
from taskcell.http.ports import FORWARD, PORTS_PATH
from taskcell.model import TaskKey
from taskcell.raw_stream import RawStream

#: Connections that the kernel keeps until others have ended.
BACKLOG = 128
#: Seconds for the server to open a connection: twice what it takes at most.
DOOR_TIMEOUT = 20.0
#: Seconds before the next try when a connection cannot be accepted: others end meanwhile.
ACCEPT_PAUSE = 0.1
#: Bytes of the server's answer.
_MAX_ANSWER = 64 << 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class NotForwarded(TaskcellError):
    """The server does not open a connection; the text is its sentence."""


@contextmanager
def listen_locally(port: int) -> Iterator[Sequence[socket.socket]]:
    """Listen on 127.0.0.1, and on ::1 where there is one. Raises TaskcellError.

    Arguments:
        port: 0 for a free one.
    """
    with ExitStack() as opened:
        try:
            first = opened.enter_context(socket.create_server(("127.0.0.1", port), backlog=BACKLOG))
        except OSError as error:
            raise TaskcellError(
                f"Port {port} of this machine cannot be used ({error.strerror}); name another one as in PORT:LOCAL, or "
                "PORT:0 for a free one."
            ) from None
        sockets = [first]
        with suppress(OSError):  # no IPv6, or another program has the port there
            again = ("::1", first.getsockname()[1])
            second = socket.create_server(again, family=socket.AF_INET6, backlog=BACKLOG)
            sockets.append(opened.enter_context(second))
        for listening in sockets:
            listening.setblocking(False)
        yield sockets


class Forwarding:
    """Forwards one port.

    Arguments:
        folder: the deployment's.
        say: tells the person what goes wrong.
    """

    def __init__(self, folder: Path, task: TaskKey, port: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._task = task
        self._port = port
        self._say = say
        self._said = ""
        self._door: Path | None = None
        self._places = anyio.Semaphore(MAX_TASK_CONNECTIONS)

    async def find(self) -> Path:
        """Return the door of the task's server. Raises TaskcellError."""
        self._door = await door_of(self._folder, self._task)
        if self._door is None:
            raise NotForwarded(
                f"No running server has the task {self._task.task!r}; `taskcell ps` lists what there is."
            )
        return self._door

    async def serve(self, listening: Sequence[socket.socket]) -> None:
        """Forward connections until this is cancelled. More than a task may have wait in the kernel."""
        async with anyio.create_task_group() as group:
            for one in listening:
                group.start_soon(self._accept, one, group)

    async def _accept(self, listening: socket.socket, group: anyio.abc.TaskGroup) -> None:
        while True:
            await anyio.wait_readable(listening)
            await self._places.acquire()
            try:
                program, _ = listening.accept()
            except OSError:  # it has gone meanwhile, or this process has no descriptor left for it
                self._places.release()
                await anyio.sleep(ACCEPT_PAUSE)
                continue
            program.setblocking(False)
            program.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            group.start_soon(self._carry, program)

    async def _carry(self, program: socket.socket) -> None:
        """Carry one connection; it ends as the one in the sandbox does."""
        local = RawStream(program)
        is_whole = False
        try:
            remote = await self._open()
            try:
                await splice(local, remote)
                is_whole = True
            finally:
                with anyio.CancelScope(shield=True):  # a close waits for nothing
                    await remote.aclose()
        except TaskcellError as error:
            self._tell(str(error))
        except BROKEN:
            pass
        finally:
            if not is_whole:
                with suppress(OSError):
                    program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            with anyio.CancelScope(shield=True):
                await local.aclose()
            self._places.release()

    def _tell(self, sentence: str) -> None:
        """Say what goes wrong, once for many connections alike."""
        if sentence != self._said:
            self._say(sentence)
        self._said = sentence

    async def _open(self) -> PieceStream:
        """A connection to the port. Raises TaskcellError, OSError, BrokenResourceError."""
        with anyio.move_on_after(DOOR_TIMEOUT):
            try:
                carrier = await _connect(self._door or await self.find())
            except OSError:  # the server has gone; another one may have the task by now
                carrier = await _connect(await self.find())
            try:
                opened = await self._upgraded(carrier)
                self._said = ""
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await carrier.aclose()
                raise
            return opened
        raise NotForwarded("The task's server does not answer in time; try again.")

    async def _upgraded(self, carrier: anyio.abc.ByteStream) -> PieceStream:
        """Ask the server for the port. Raises NotForwarded, OSError, BrokenResourceError."""
        http = h11.Connection(h11.CLIENT)
        target = f"{PORTS_PATH}{quote(self._task.task, safe='')}/{self._port}"
        headers = [(b"host", b"localhost"), (b"connection", b"upgrade"), (b"upgrade", FORWARD)]
        asked = http.send(h11.Request(method="GET", target=target, headers=headers)) or b""
        await carrier.send(asked + (http.send(h11.EndOfMessage()) or b""))
        body = bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                try:
                    http.receive_data(await carrier.receive())
                except anyio.EndOfStream:
                    raise NotForwarded("The task's server has closed the connection; it may be closing.") from None
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                first, _ = http.trailing_data
                return PieceStream(carrier, first)
            elif isinstance(event, h11.Data) and len(body) < _MAX_ANSWER:
                body += event.data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                raise NotForwarded(_sentence(bytes(body)))


async def _connect(door: Path) -> anyio.abc.ByteStream:
    with short_path(door) as name:
        return await anyio.connect_unix(name)


def _sentence(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "The task's server refused the connection; its log may tell why."
