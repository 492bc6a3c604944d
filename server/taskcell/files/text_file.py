"""A file's text as people and models see it: lines that end in LF, whatever ends them in the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from taskcell.files.encodings import Encoding, recognise

_LINE_END = re.compile(r"\r?\n")


@dataclass(slots=True)
class TextFile:
    """The decoded text of a file.

    Arguments:
        text: with LF for each CRLF. A CR that no LF follows is a character as any other.
        ends: for each LF of `text`, 1 if the file has CRLF there, else 0.
        usual: what most of the lines ended in when the file was read.
    """

    text: str
    ends: bytearray
    encoding: Encoding
    usual: int = 0

    @classmethod
    def parse(cls, data: bytes, encoding: Encoding | None = None) -> TextFile:
        """Decode a file. Raises UnicodeDecodeError if it does not have the encoding that was given."""
        encoding = recognise(data) if encoding is None else encoding
        raw = encoding.decode(data)
        crlf = raw.count("\r\n")
        if not crlf:
            return cls(raw, bytearray(raw.count("\n")), encoding)
        if crlf == raw.count("\n"):
            ends = bytearray(b"\x01") * crlf
        else:
            ends = bytearray(len(found[0]) - 1 for found in _LINE_END.finditer(raw))
        return cls(raw.replace("\r\n", "\n"), ends, encoding, int(2 * crlf > len(ends)))

    def raw(self) -> str:
        """Return the text with its own line ends."""
        if not any(self.ends):
            return self.text
        if all(self.ends):
            return self.text.replace("\n", "\r\n")
        lines = self.text.split("\n")
        return "".join(
            line + ("\r\n" if end else "\n") for line, end in zip(lines, self.ends, strict=False)
        ) + lines[-1]  # fmt: skip

    def to_bytes(self) -> bytes:
        """Return the file. Raises UnicodeEncodeError if its encoding cannot hold a character."""
        return self.encoding.encode(self.raw())

    def line_ends(self) -> str:
        """Say what ends the lines: empty for LF."""
        crlf = sum(self.ends)
        if not crlf:
            return ""
        return "CRLF" if crlf == len(self.ends) else f"mixed ({crlf} CRLF, {len(self.ends) - crlf} LF)"

    def replace(self, starts: Sequence[int], size: int, new: str) -> None:
        """Put `new` (with LF) in the place of `size` characters at each start, with line ends as they are there.

        Arguments:
            starts: in order; the places do not overlap.
        """
        wanted, line, at = new.count("\n"), 0, 0
        pieces: list[str] = []
        ends = bytearray()
        for start in starts:
            pieces += (self.text[at:start], new)
            first = line + self.text.count("\n", at, start)
            last = first + self.text.count("\n", start, start + size)
            ends += self.ends[line:first] + self._ends_for(wanted, first, last)
            line, at = last, start + size
        self.text = "".join((*pieces, self.text[at:]))
        self.ends = ends + self.ends[line:]

    def _ends_for(self, wanted: int, first: int, last: int) -> bytearray:
        """Return the ends of new lines: those of the lines they replace, then that of the line where they stand."""
        here = self.ends[first:last]
        around = self.ends[last : last + 1] or here[-1:] or self.ends[first - 1 : first] or bytes([self.usual])
        return (here + around * (wanted - len(here)))[:wanted]


def unified(text: str) -> str:
    """Return a text with LF for each CRLF."""
    return text.replace("\r\n", "\n")
