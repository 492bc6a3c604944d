"""Frames on their way to a supervisor, kept until it has taken them."""

from __future__ import annotations

from collections import deque

from taskcell.errors import ProtocolError


class Outbox:
    """Keeps frames in their order. Places are counted in bytes from the session's beginning.

    `size` is how many bytes are kept.
    """

    def __init__(self) -> None:
        self._start = 0
        self.size = 0
        self._kept: deque[bytes] = deque()
        self._unsent: deque[bytes] = deque()

    def put(self, frames: bytes) -> None:
        """Keep whole frames, to be sent with the next `take`."""
        self._kept.append(frames)
        self._unsent.append(frames)
        self.size += len(frames)

    def take(self) -> bytes:
        """Return what was not sent on this stream yet."""
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        return data

    def acknowledged(self, place: int) -> None:
        """Forget what the supervisor has taken. Raises ProtocolError when that was never there."""
        count = place - self._start
        if count > self.size:
            raise ProtocolError("the supervisor acknowledges more than was sent")
        while count > 0:
            first = self._kept.popleft()
            if len(first) > count:
                self._kept.appendleft(first[count:])
            taken = min(len(first), count)
            count -= taken
            self._start += taken
            self.size -= taken

    def rewind(self, place: int) -> None:
        """Have everything from `place` on sent again, on a new stream. Raises ProtocolError."""
        if place < self._start:
            raise ProtocolError("the supervisor has forgotten what it acknowledged")
        self.acknowledged(place)
        self._unsent = deque(self._kept)
