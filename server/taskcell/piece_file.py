"""Pieces of bytes as a file to read."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


class PieceFile(io.RawIOBase):
    """A file of pieces that come one after another.

    Arguments:
        next_piece: returns the next piece, and None at the end.
    """

    def __init__(self, next_piece: Callable[[], bytes | None]) -> None:
        self._next_piece = next_piece
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = self._next_piece()
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
