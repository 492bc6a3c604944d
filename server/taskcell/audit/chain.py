"""The lines of the audit log, each sealed with a hash over itself and the hash of the line before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: What the first line of a log names as the hash before it.
NOTHING = "0" * 64


@dataclass(frozen=True, slots=True)
class Link:
    """Where a chain stands: how many lines it has, and the hash of the last one."""

    number: int = 0
    hash: str = NOTHING

    def add(self, entry: Mapping[str, Any]) -> tuple[bytes, Link]:
        """Return the line of an entry, and where the chain stands after it."""
        number = self.number + 1
        document = {"number": number, **entry, "before": self.hash}
        sealed = _hash(document)
        line = _json({**document, "hash": sealed})
        return line.encode("ascii") + b"\n", Link(number, sealed)


class Broken(Exception):
    """A line is not what was written: changed, moved, or the one before it is missing. The text says which."""


def read_line(line: bytes) -> tuple[dict[str, Any], Link]:
    """Return a line's document, and where the chain stands after it. Raises Broken."""
    try:
        document = json.loads(line)
        number, sealed = document["number"], document["hash"]
        rest = {name: value for name, value in document.items() if name != "hash"}
        if isinstance(number, int) and isinstance(document["before"], str) and _hash(rest) == sealed:
            return document, Link(number, sealed)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Broken("it is not a line of the audit log") from None
    raise Broken("it was changed after it was written")


def follow(lines: Iterable[bytes], before: Link | None = None) -> Iterator[tuple[dict[str, Any], Link]]:
    """Return each document of a chain. Raises Broken at the first line that does not continue it.

    Arguments:
        before: where the chain stands before the lines; None takes what the first line says.
    """
    for line in lines:
        document, after = read_line(line)
        if before is not None and (document["before"], document["number"]) != (before.hash, before.number + 1):
            raise Broken(f"the line before it is missing or another one (it follows number {after.number - 1})")
        before = after
        yield document, after


def _hash(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(document).encode("ascii")).hexdigest()


def _json(document: Mapping[str, Any]) -> str:
    # ASCII alone: lone surrogates of a client's text stay what they were.
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True)
