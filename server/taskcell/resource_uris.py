"""Make the addresses of a task's resources: `taskcell://tasks/{task_id}/{kind}/{rest}`."""

from __future__ import annotations

from urllib.parse import quote, urlencode

#: What every resource's address begins with.
PREFIX = "taskcell://tasks/"


def address(task_id: str, kind: str, rest: str) -> str:
    """Return the address of a resource. `rest` may hold slashes, and is percent-encoded where it must be."""
    return f"{PREFIX}{quote(task_id, safe='', errors='replace')}/{kind}/{quote(rest, errors='surrogateescape')}"


def output_address(task_id: str, process_id: str, **query: str | int) -> str:
    """Return the address of a process's kept output. `query` fills the variables of the resource's template."""
    return address(task_id, "processes", f"{process_id}/output") + (f"?{urlencode(query)}" if query else "")
