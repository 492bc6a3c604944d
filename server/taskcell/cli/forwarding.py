"""Carries connections of this machine's loopback to a port of a task, through its server."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import anyio
import anyio.abc

from taskcell.byte_streams import BROKEN, MAX_TASK_CONNECTIONS, PieceStream, splice_pieces
from taskcell.cli.port_servers import DOOR_TIMEOUT, NotForwarded, PortServer
from taskcell.errors import TaskcellError
from taskcell.raw_stream import RawStream, notice_a_vanished_peer

#: Connections that the kernel keeps until others have ended.
BACKLOG = 128
#: Seconds before the next try when a connection cannot be accepted: others end meanwhile.
ACCEPT_PAUSE = 0.1
#: Seconds between two looks for programs that have gone without an answer to what they sent last.
GONE_INTERVAL = 15.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


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
        server: that opens the connections.
        say: tells the person what goes wrong.
    """

    def __init__(self, server: PortServer, task: str, port: int, say: Callable[[str], None]) -> None:
        self._server = server
        self._task = task
        self._port = port
        self._say = say
        self._said = ""
        self._places = anyio.Semaphore(MAX_TASK_CONNECTIONS)
        self._carried: dict[socket.socket, anyio.CancelScope] = {}

    async def serve(self, listening: Sequence[socket.socket]) -> None:
        """Forward connections until this is cancelled. More than a task may have wait in the kernel."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_those_of_gone_programs)
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
            notice_a_vanished_peer(program)
            group.start_soon(self._carry, program)

    async def _end_those_of_gone_programs(self) -> None:
        """End connections whose program has closed its socket, while the other end in the sandbox keeps its own open.

        A program that has sent its end may still want an answer. One that has gone refuses the kernel's question
        whether it is there, and nobody else would notice that: each would keep one of the task's places for good.
        """
        while True:
            await anyio.sleep(GONE_INTERVAL)
            for program, scope in self._carried.items():
                if has_gone(program):
                    scope.cancel()

    async def _carry(self, program: socket.socket) -> None:
        """Carry one connection; it ends as the one in the sandbox does."""
        local = RawStream(program)
        is_whole = False
        try:
            remote = await self._open()
            try:
                with anyio.CancelScope() as self._carried[program]:
                    await splice_pieces(remote, local)
                    is_whole = True
            finally:
                with anyio.CancelScope(shield=True):  # a close waits for nothing
                    await remote.aclose()
        except TaskcellError as error:
            self._tell(str(error))
        except BROKEN:
            pass
        finally:
            self._carried.pop(program, None)
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
            opened = await self._server.open(self._task, self._port)
            self._said = ""
            return opened
        raise NotForwarded("The task's server does not answer in time; try again.")


def has_gone(program: socket.socket) -> bool:
    """Whether a connection is broken, which is no event for whoever has read its end already.

    That both sides have ended is no error: what came before may still be on its way to the sandbox.
    """
    poll = select.poll()
    poll.register(program, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
