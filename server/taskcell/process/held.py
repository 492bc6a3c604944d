"""A process whose output is handed on whole, byte by byte, as fast as its reader takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from taskcell.errors import SandboxLost
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

    def _take_output(self, event: events.Output) -> None:
        super()._take_output(event)
        index = event.stream - 1
        if event.offset == self._came[index]:
            self._came[index] += len(event.data)
            self._pieces.append((Stream(event.stream), event.data))

    async def receive(self) -> tuple[Stream, bytes] | None:
        """The next piece; None when the process has ended and all of its output came. Raises SpawnFailed, SandboxLost.

        What its descendants write after its end does not come.
        """
        while True:
            while not self._pieces:
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
        shown = self._masked[stream].feed(data)
        return (stream, shown) if shown else None

    def _rest(self) -> tuple[Stream, bytes] | None:
        """What was held back as the beginning of a secret."""
        return next(((stream, data) for stream, masked in self._masked.items() if (data := masked.rest())), None)
