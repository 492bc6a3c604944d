"""The header Range of a request for a file (RFC 9110, 14.2): one range of bytes; several are answered by the whole."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from taskcell.files.transfer import FileHead

#: In the place of the first byte: no byte of the file is in the range.
UNSATISFIABLE = -1
#: More digits than a size has.
_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*")


def wanted_range(headers: Headers, head: FileHead, tag: str) -> tuple[int, int | None]:
    """Return the first and the last byte; (0, None) for all, and UNSATISFIABLE where there is nothing to send.

    Arguments:
        tag: of the file as it is now; a range of another version is answered by the whole.
    """
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or head.is_folder or found[1] == found[2] == "" or headers.get("if-range", tag) != tag:
        return 0, None
    if not found[1]:
        first, last = max(0, head.size - int(found[2])), head.size - 1
        return (first, last) if first <= last else (UNSATISFIABLE, None)
    first, last = int(found[1]), int(found[2]) if found[2] else head.size - 1
    if found[2] and last < first:
        return 0, None  # not valid, so ignored
    return (first, min(last, head.size - 1)) if first < head.size else (UNSATISFIABLE, None)
