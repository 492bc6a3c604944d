"""A large file on a stream of its own, beside the sandbox's channel."""

from __future__ import annotations

import time

import anyio
import anyio.abc

from taskcell.model import MIB

#: Seconds for one transfer: a day's work of a slow line is more than a sandbox should be kept busy for.
TRANSFER_TIMEOUT = 3600.0
#: Seconds for the sandbox to take a piece: its files are in memory or on a local disk.
STALL_TIMEOUT = 60.0
#: Bytes of a file that is worth a stream of its own: that takes a tenth of a second to open, and then half the time.
LARGE = 32 * MIB
#: Bytes that are received at once from such a stream.
_RECEIVE_SIZE = 1 << 18
#: More output than there is: what is on its way is bounded by the pieces.
NO_LIMIT = 1 << 62


class ApartStream:
    """A file that comes by a stream of its own."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._ends = time.monotonic() + TRANSFER_TIMEOUT
        #: Bytes that are still to come; not known before its head.
        self.left = NO_LIMIT

    async def receive(self) -> bytes:
        if not self.left or time.monotonic() > self._ends:
            return b""
        try:
            with anyio.fail_after(STALL_TIMEOUT):
                data = await self._stream.receive(_RECEIVE_SIZE)
        except (TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError, OSError):
            return b""
        data = data[: self.left]  # whatever stands in the sandbox: the answer has so many bytes
        self.left -= len(data)
        return data

    @property
    def is_whole(self) -> bool:
        return self.left == 0
