"""Masks secrets in what commands print: each byte of one becomes a `*`, so that every offset stays what it was."""

from __future__ import annotations

from dataclasses import replace

from taskcell.secret import MIN_SECRET
from taskcell.supervisor import events

_STAR = b"*"
#: Bytes of a secret that are masked where the piece before or after is not at hand: fewer are likely to be other text.
MIN_PART = 4


class Masks:
    """The secrets that commands of one sandbox have been given. A secret that was replaced is masked still."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._parts: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def reach(self) -> int:
        """How many bytes before and after a place decide whether what is there is a part of a secret."""
        return len(self._parts[0]) - 1 if self._parts else 0

    def add(self, value: str) -> None:
        """Mask a value from now on, and each of its lines: a terminal ends them otherwise."""
        if value in self._values:
            return
        self._values.add(value)
        parts = {value, *(line for line in value.splitlines() if len(line.encode()) >= MIN_SECRET)}
        self._parts = sorted({*self._parts, *(part.encode("utf-8", "surrogateescape") for part in parts)}, key=len)[
            ::-1
        ]

    def masked(self, data: bytes, *, is_begun: bool = True, is_open: bool = True) -> bytes:
        """Return a piece of output with its secrets masked.

        Arguments:
            is_begun: something stands before it that may be the beginning of a secret.
            is_open: something may follow that is the rest of one.
        """
        for part in self._parts:
            data = data.replace(part, _STAR * len(part))
        for part in self._parts:
            longest = min(len(part) - 1, len(data))
            for size in range(longest if is_begun else 0, MIN_PART - 1, -1):
                if data.startswith(part[-size:]):
                    data = _STAR * size + data[size:]
                    break
            for size in range(longest if is_open else 0, MIN_PART - 1, -1):
                if data.endswith(part[:size]):
                    data = data[: len(data) - size] + _STAR * size
                    break
        return data

    def open_end(self, data: bytes) -> int:
        """How many of the last bytes are the beginning of a secret, of which the rest may follow."""
        longest = min(self.reach, len(data))
        ends = (size for size in range(longest, 0, -1) if any(part.startswith(data[-size:]) for part in self._parts))
        return next(ends, 0)

    def holds(self, value: str) -> bool:
        """Whether a secret is in a text."""
        return any(part in value.encode("utf-8", "surrogateescape") for part in self._parts)

    def cut(self, found: events.Data, cursor: int | None, size: int) -> events.Data:
        """Return the piece that was asked for, masked, of a larger one around it.

        Arguments:
            cursor: where it begins; None: it is the end of what there is.
        """
        data = self.masked(found.data, is_begun=found.offset > 0)
        end = found.offset + len(data)
        begin = max(found.offset, end - size if cursor is None else cursor)
        # What follows but is not at hand may make the last bytes a part of a secret.
        last = end if end >= found.total else max(begin, end - self.reach)
        last = max(begin, min(last, begin + size))
        return replace(found, offset=begin, data=data[begin - found.offset : last - found.offset])


class MaskedStream:
    """Masks the secrets of one stream of output, however it is cut into pieces."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown by now; the beginning of a secret is held back until the next piece."""
        if not self._masks and not self._held:
            return data
        whole = self._masks.masked(self._held + data, is_begun=False, is_open=False)
        open_end = self._masks.open_end(whole)
        self._held = whole[len(whole) - open_end :]
        return whole[: len(whole) - open_end]

    def rest(self) -> bytes:
        """Return what is still held back: nothing follows."""
        rest, self._held = self._held, b""
        return rest
