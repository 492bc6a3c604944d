"""Sends a process's standard input, as fast as its supervisor makes room."""

from __future__ import annotations

import anyio

from taskcell.errors import SandboxLost
from taskcell.supervisor import protocol, requests
from taskcell.supervisor.channel import Channel


class Input:
    """One process's standard input: the first bytes come with its start, more by `write` while it `is_open`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number = 0
        self._window = protocol.STDIN_WINDOW
        self._rest = b""
        self._ended = False
        self._room: anyio.Event | None = None
        self._lock: anyio.Lock | None = None
        self.is_open = False

    @property
    def is_fed(self) -> bool:
        """All bytes of the start are sent."""
        return not self._rest

    def begin(self, number: int, data: bytes = b"", *, is_open: bool, window: int = protocol.STDIN_WINDOW) -> bytes:
        """Return the frames to send with the start: the first bytes of `data`, and their end if nothing follows.

        Arguments:
            window: bytes that may be on their way to the process, as its SPAWN's flags say.
        """
        self._number, self._window, self.is_open = number, window, is_open
        first, self._rest = data[: protocol.STDIN_CHUNK], data[protocol.STDIN_CHUNK :]
        if not data:
            return b""
        self._window -= len(first)
        at_end = not self._rest and not is_open
        return requests.stdin(number, first) + (requests.stdin_eof(number) if at_end else b"")

    def acknowledged(self, count: int) -> None:
        """The process consumed `count` bytes."""
        self._window += count
        self._wake()

    def stop(self) -> None:
        """The process has ended or is lost: send no more."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    async def _make_room(self) -> None:
        if self._room is None:
            self._room = anyio.Event()
        await self._room.wait()

    @property
    def _sending(self) -> anyio.Lock:
        # Made on demand: most processes get no input.
        if self._lock is None:
            self._lock = anyio.Lock()
        return self._lock

    async def feed(self) -> None:
        """Send the rest of the first bytes. It waits while the process does not read."""
        try:
            async with self._sending:
                while self._rest and not self._ended:
                    if self._window <= 0:
                        await self._make_room()
                        continue
                    size = min(self._window, protocol.STDIN_CHUNK)
                    chunk, self._rest = self._rest[:size], self._rest[size:]
                    await self._send(chunk)
                if not self.is_open:
                    await self._channel.send(requests.stdin_eof(self._number))
        except SandboxLost:
            return

    async def write(self, data: bytes, seconds: float) -> int:
        """Send what there is room for within `seconds`, and return how many bytes that was. Raises SandboxLost."""
        sent, view = 0, memoryview(data)
        with anyio.move_on_after(seconds):
            async with self._sending:
                while sent < len(data) and not self._ended:
                    if self._window <= 0:
                        await self._make_room()
                        continue
                    chunk = view[sent : sent + min(self._window, protocol.STDIN_CHUNK)]
                    sent += len(chunk)
                    await self._send(chunk)
        return sent

    async def _send(self, chunk: bytes | memoryview) -> None:
        # Counted before it is sent: a cancelled caller does not stop a send.
        self._window -= len(chunk)
        await self._channel.send(requests.stdin(self._number, chunk))

    async def close(self, seconds: float, *, is_terminal: bool) -> bool:
        """Close it behind what is being sent; a terminal gets its end-of-file character and stays open.

        Returns False, and leaves it open, if that takes longer than `seconds`: the process does not read. Raises
        SandboxLost.
        """
        self.is_open = is_terminal
        with anyio.move_on_after(seconds) as bound:
            async with self._sending:
                await self._channel.send(requests.stdin_eof(self._number))
        if bound.cancelled_caught:
            self.is_open = True
        return not bound.cancelled_caught
