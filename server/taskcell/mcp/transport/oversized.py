"""The id of a message that is too large to be kept: a look at both ends of its line, and no more.

Clients write the id near the beginning (`{"jsonrpc":"2.0","id":7,"method":…`) or at the very end (`…},"id":7}`, as the
SDKs in TypeScript and Python do), so both ends are enough.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from mcp_types import RequestId

#: Bytes of each end of a line that are kept and looked at. An id is a few dozen bytes, and so is what stands before it.
WINDOW = 1024

_STRING = rb'"(?:[^"\\]|\\.)*"'
_START = re.compile(rb"\s*\{")
_KEY = re.compile(rb'\s*"([^"\\]*)"\s*:\s*')
_SCALAR = re.compile(rb"(" + _STRING + rb"|-?\d+|true|false|null)\s*[,}]")
#: An unescaped quote after a comma or a brace begins a key, and the brace at the end of the line closes the message:
#: so this id is the message's own, and not one from its params.
_LAST = re.compile(
    rb'[,{]\s*"id"\s*:\s*(' + _STRING + rb'|-?\d+)\s*(?:,\s*"(?:jsonrpc|method)"\s*:\s*' + _STRING + rb"\s*)*\}\s*$"
)


class Oversized(NamedTuple):
    """A line that was thrown away, but for WINDOW bytes of each end."""

    head: bytes
    tail: bytes

    @property
    def identity(self) -> RequestId | None:
        """The id of the request; None where there is none, or where it cannot be found for sure."""
        members, following = _first_members(self.head)
        if following in (b"result", b"error"):  # an answer, which gets none
            return None
        ids = {_value(text) for text in (members.get(b"id"), _last(self.tail)) if text is not None}
        return ids.pop() if len(ids) == 1 else None


def _first_members(head: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """The members before the first that holds an object or a list, and the name of that one."""
    members: dict[bytes, bytes] = {}
    found = _START.match(head)
    while found and (key := _KEY.match(head, found.end())):
        found = _SCALAR.match(head, key.end())
        if found is None:
            return members, key[1]
        members[key[1]] = found[1]
    return members, b""


def _last(tail: bytes) -> bytes | None:
    found = _LAST.search(tail)
    return None if found is None else found[1]


def _value(text: bytes) -> RequestId | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None
