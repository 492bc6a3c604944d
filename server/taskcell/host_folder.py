"""A folder of the host that is the workspace of every task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostFolder:
    """A folder of the host that is the workspace of every task, and who owns it.

    Arguments:
        path: absolute, without links.
        owner: uid and gid; None if it could not be looked at.
    """

    path: str
    owner: tuple[int, int] | None
