"""The end of a command's output, for a framework that bounds what it takes."""

from __future__ import annotations

from dataclasses import replace

from taskcell.client.process import Done, OutputPiece

#: Bytes that are held over the bound before the first ones are dropped, so that not every piece moves what is held.
SLACK = 1 << 20


class OutputTail:
    """Keeps the last bytes of each stream.

    Arguments:
        limit: bytes of each.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = {"stdout": bytearray(), "stderr": bytearray()}
        self.has_dropped = False

    def add(self, piece: OutputPiece) -> None:
        held = self._held[piece.stream]
        held += piece.data
        if len(held) > self._limit:
            self.has_dropped = True
        if len(held) > self._limit + SLACK:
            del held[: -self._limit]

    def with_output(self, done: Done) -> Done:
        """Return how a command ended, with what is kept."""
        out, err = (bytes(memoryview(held)[-self._limit :]) for held in self._held.values())
        return replace(done, stdout=out, stderr=err)
