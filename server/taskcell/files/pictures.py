"""Looks at a picture's header and end before it is shown to a model: one that a provider refuses ends a session.

Nothing is decoded: the parts of the file are walked by their lengths, which bounds the work by the file's size.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from taskcell.files.limits import MAX_PICTURE, MAX_SIDE

PNG, JPEG, GIF, WEBP = "image/png", "image/jpeg", "image/gif", "image/webp"
_FRONTS = ((b"\x89PNG\r\n\x1a\n", PNG), (b"\xff\xd8\xff", JPEG), (b"GIF87a", GIF), (b"GIF89a", GIF))
#: How a picture must be turned to be upright, by EXIF's orientation (Exif 2.3, tag 0x0112).
_TURNS = {
    2: "mirrored", 3: "upside down", 4: "upside down and mirrored", 5: "mirrored, and turned by 90° anticlockwise",
    6: "turned by 90° anticlockwise", 7: "mirrored, and turned by 90° clockwise", 8: "turned by 90° clockwise",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture as its header says: sides in pixels, and how its camera was held, from 1 (upright) to 8."""

    mime: str
    width: int
    height: int
    orientation: int = 1

    @property
    def turn(self) -> str:
        """How it lies, in words; empty for upright."""
        return _TURNS.get(self.orientation, "")


class BrokenPicture(Exception):
    """The file begins as a picture does and is not a whole one; `str` says what is wrong."""


def picture_type(data: bytes) -> str | None:
    """Return a picture's MIME type, judged by its first bytes; None if it is not a picture that models can see."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    return next((mime for front, mime in _FRONTS if data.startswith(front)), None)


def look_at_picture(data: bytes, mime: str) -> Looked:
    """Walk the parts of a picture from its header to its end. Raises BrokenPicture."""
    try:
        found = {PNG: _png, JPEG: _jpeg, GIF: _gif, WEBP: _webp}[mime](data)
    except (struct.error, IndexError):
        raise BrokenPicture("it is cut off") from None
    if not found.width or not found.height:
        raise BrokenPicture("it has no pixels")
    return found


def too_large(picture: Looked, size: int) -> str:
    """Say why a model cannot be shown it; empty if it can."""
    if size > MAX_PICTURE:
        return f"{size} bytes, and at most {MAX_PICTURE} can be shown"
    if max(picture.width, picture.height) > MAX_SIDE:
        return f"{picture.width}x{picture.height} pixels, and at most {MAX_SIDE} on a side can be shown"
    return ""


def _png(data: bytes) -> Looked:
    """PNG specification (ISO/IEC 15948), section 5: chunks of length, type, data and CRC; IHDR first, IEND last."""
    at, seen = 8, b""
    width = height = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        (crc,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != crc:
            raise BrokenPicture("a checksum in it is wrong")
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, at + 8)
        elif not width:
            raise BrokenPicture("its header is missing")
        seen = b"IDAT" if kind == b"IDAT" else seen
        if kind == b"IEND":
            break
        at += 12 + length
    if not seen:
        raise BrokenPicture("it has no pixels")
    return Looked(PNG, width, height)


#: Markers without a length (ISO/IEC 10918-1, table B.1), and those of a frame's header, which has the sides.
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(data: bytes) -> Looked:
    at, width, height, orientation, scans = 2, 0, 0, 1, False
    while True:
        if data[at] != 0xFF:
            raise BrokenPicture("a marker in it is missing")
        marker = data[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
        if marker == 0xDA:
            scans = True
            at = _after_scan(data, at)
    if not scans:
        raise BrokenPicture("it has no pixels")
    return Looked(JPEG, width, height, orientation)


def _after_scan(data: bytes, at: int) -> int:
    """Return where the marker after coded pixels is; in them FF is followed by 00 or a restart marker."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise BrokenPicture("it is cut off")
        if data[at + 1] and data[at + 1] not in _ALONE and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _orientation(tiff: bytes) -> int:
    """Read the tag from the first directory of EXIF's TIFF; 1 if it has none, or is not readable."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return 1
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x0112 and kind == 3 and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass
    return 1


def _gif(data: bytes) -> Looked:
    """GIF89a specification, sections 17 to 27: blocks up to the trailer; one image at least."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, images = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0), 0
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            flags, images = data[at + 9], images + 1
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif data[at] == 0x21:
            at += 2
        else:
            raise BrokenPicture("a block in it is not one of GIF")
        while data[at]:
            at += data[at] + 1
        at += 1
    if not images:
        raise BrokenPicture("it has no pixels")
    return Looked(GIF, width, height)


def _webp(data: bytes) -> Looked:
    """WebP container specification (RFC 9649): a RIFF file whose first chunk tells the sides."""
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8:
        raise BrokenPicture("it is cut off")
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
    else:
        raise BrokenPicture("its first chunk is not one of WebP")
    at = 12
    while at < size + 8:
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + (length & 1)
    if at > size + 9:
        raise BrokenPicture("a chunk in it is cut off")
    return Looked(WEBP, width, height)
