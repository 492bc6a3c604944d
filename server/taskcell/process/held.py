"""A process whose output is handed on whole, byte by byte, as fast as its reader takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from taskcell.errors import BadArgument, OutputLost, SandboxLost
from taskcell.model import MIB
from taskcell.process.masks import MaskedStream, Masks
from taskcell.process.process import Process, Totals
from taskcell.supervisor import events, requests
from taskcell.supervisor.channel import Channel
from taskcell.supervisor.protocol import FROM_THE_END, Stream

#: Bytes of each stream that the supervisor keeps while the reader is slow, and that may be on their way to it.
HELD_WINDOW = MIB
#: Bytes that were taken before the supervisor hears of it: a request for each piece would cost more than the piece.
HELD_TURN = HELD_WINDOW // 4
#: Bytes of each stream for a reader that may come back: the supervisor keeps three quarters of them after it has sent
#: them, more than a server and a proxy before it hold on the way to the reader.
LINGERING_SPOOL = 8 * HELD_WINDOW


class HeldProcess(Process):
    """A process that was started with `SpawnFlag.HOLD`, and with HELD_WINDOW as its credit.

    Arguments:
        on_end, masks: as in `Listener`.
    """

    def __init__(
        self,
        channel: Channel,
        output_chars: int,
        on_end: Callable[[], None] | None = None,
        masks: Masks | None = None,
    ) -> None:
        super().__init__(channel, output_chars, on_end, masks)
        super().let_go()
        self._masked = {stream: MaskedStream(self.masks) for stream in (Stream.STDOUT, Stream.STDERR)}
        self._pieces: deque[tuple[Stream, bytes]] = deque()
        self._came = [0, 0]
        self._taken = [0, 0]
        #: Bytes that come before those that its reader has not got: they show what of those belongs to a secret.
        self._skipped = [0, 0]
        self._has_gap = False
        #: Set when its reader has gone; None without one.
        self._reading: anyio.Event | None = None
        #: An earlier server started it.
        self.is_inherited = False

    def take_up(self, listed: events.ListedProcess, *, stdin_open: bool) -> None:
        self.is_inherited = True
        super().take_up(listed, stdin_open=stdin_open)

    def _take_output(self, event: events.Output) -> None:
        super()._take_output(event)
        index = event.stream - 1
        had = self._came[index] - event.offset
        if had < 0:
            self._has_gap = True
        elif had < len(event.data):  # what it begins with may have come before, when its reader came back
            self._came[index] += len(event.data) - had
            self._pieces.append((Stream(event.stream), event.data[had:]))

    # --- its readers -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[anyio.CancelScope]:
        """Be its only reader: the one before is ended, and so is this one when another comes, or by `patience`."""
        while self._reading is not None:
            self.patience.cancel()
            await self._reading.wait()
        gone = self._reading = anyio.Event()
        self.patience = anyio.CancelScope()
        self._wake()
        try:
            with self.patience as patience:
                yield patience
        finally:
            self._reading = None
            gone.set()
            self._wake()

    async def unread(self, seconds: float) -> None:
        """Wait until it had no reader for so long, or has ended."""
        while not self.has_ended:
            with anyio.move_on_after(seconds):
                while self._reading is None and not self.has_ended:
                    await self._change().wait()
            if self._reading is None:
                return
            while self._reading is not None and not self.has_ended:
                await self._change().wait()

    async def begin_at(self, offsets: Totals) -> None:
        """Have `receive` go on there, for a reader that has got so many bytes of each stream.

        Raises BadArgument: it has not written so many; OutputLost: what follows is not kept any more; SandboxLost.
        """
        self._pieces.clear()
        self._has_gap = False
        reach, wires, totals = self.masks.reach, b"", [0, 0]
        for index, stream in enumerate(Stream):
            first = max(0, offsets[index] - reach)
            found = await self.read(stream, first, 0)
            if found.stream is None or found.offset > first:
                raise OutputLost
            if offsets[index] > found.total:
                raise BadArgument(f"The process has written {found.total} bytes of {stream.name.lower()} so far.")
            totals[index] = found.total
            self._came[index], self._skipped[index], self._taken[index] = first, offsets[index] - first, 0
            self._masked[stream] = MaskedStream(self.masks)
            self._credit[index] = HELD_WINDOW
            wires += requests.attach(self.number, stream, first, HELD_WINDOW)
        if self.is_inherited and self.exit is not None:  # a list does not count what waits in the pipe
            self.exit = replace(self.exit, stdout_total=totals[0], stderr_total=totals[1])
            if self.killed is not None:
                self.killed = replace(self.killed, stdout_total=totals[0], stderr_total=totals[1])
        await self._channel.send(wires)

    # --- its output --------------------------------------------------------------------------------------------

    async def receive(self) -> tuple[Stream, bytes] | None:
        """The next piece; None when the process has ended and all of its output came. Raises SpawnFailed, SandboxLost.

        What its descendants write after its end does not come.
        """
        while True:
            while not self._pieces:
                if self._has_gap:
                    raise OutputLost
                if self.exit is None:
                    self._check_started()
                elif self.has_ended and self._has_come(self.totals()):
                    return self._rest()
                elif self.lost is not None:
                    raise SandboxLost(f"The sandbox is gone: {self.lost}; the end of the output is lost with it.")
                await self._change().wait()
            if piece := await self._next():
                return piece

    async def written_so_far(self) -> tuple[int, int]:
        """The bytes of each stream that it and its descendants have written by now. Raises SandboxLost."""
        return (
            (await self.read(Stream.STDOUT, FROM_THE_END, 0)).total,
            (await self.read(Stream.STDERR, FROM_THE_END, 0)).total,
        )

    def wake(self) -> None:
        """Have `receive_until` ask again."""
        self._wake()

    async def receive_until(self, told: Callable[[], Totals | None]) -> tuple[Stream, bytes] | None:
        """The next piece; None when so many bytes of each stream came as `told` says, or the process has ended.

        Raises SandboxLost.
        """
        while True:
            while not self._pieces:
                totals = self.totals() if self.has_ended else told()
                if totals is not None and self._has_come(totals):
                    return self._rest()
                self._check_heard()
                await self._change().wait()
            if piece := await self._next():
                return piece

    def _has_come(self, totals: tuple[int, int]) -> bool:
        return all(came >= total for came, total in zip(self._came, totals, strict=True))

    async def _next(self) -> tuple[Stream, bytes] | None:
        """The next piece; None if all of it may be the beginning of a secret."""
        stream, data = self._pieces.popleft()
        index = stream - 1
        self._taken[index] += len(data)
        if self._taken[index] >= HELD_TURN and self.lost is None:
            amount, self._taken[index] = self._taken[index], 0
            self._credit[index] += amount
            await self._channel.send(requests.credit(self.number, stream, amount))
        shown = self._new(stream, self._masked[stream].feed(data))
        return (stream, shown) if shown else None

    def _new(self, stream: Stream, data: bytes) -> bytes:
        """Of what comes next, what its reader has not got."""
        had = min(self._skipped[stream - 1], len(data))
        self._skipped[stream - 1] -= had
        return data[had:]

    def _rest(self) -> tuple[Stream, bytes] | None:
        """What was held back as the beginning of a secret."""
        for stream, masked in self._masked.items():
            if data := self._new(stream, masked.rest()):
                return stream, data
        return None
