"""Runs one command in a task that a server has, through the server's local door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskcell.errors import TaskcellError
from taskcell.model import ProcessResult, Status, TaskKey, ToolCall

if TYPE_CHECKING:
    from taskcell.mcp.local_client import LocalClient
    from taskcell.process.kept_output import Piece

#: Seconds for a server to say whether it has a task: one that is busy takes milliseconds.
FIND_TIMEOUT = 5.0
#: Bytes of output that are read at once, the most that a server gives.
PAGE = 1 << 20


async def door_of(folder: Path, task: TaskKey) -> Path | None:
    """Return the socket of the server that has sandboxes of a task, or None if no server of the deployment has.

    Arguments:
        folder: the deployment's.
    """
    import anyio
    import httpx2

    from taskcell.deployment.claim_files import holder_of
    from taskcell.deployment.doors import open_doors
    from taskcell.mcp.local_client import local_client

    doors, holder = open_doors(folder), holder_of(folder, task)
    for door in doors:
        if door.stem == holder:
            return door
    for door in doors:
        found: Mapping[str, Any] = {}
        try:
            with anyio.move_on_after(FIND_TIMEOUT):
                async with local_client(door) as client:
                    found = await client.call("sandbox", {"action": "status", "task_id": task.task})
        except* (OSError, httpx2.HTTPError, TaskcellError):
            pass  # it ends at this moment
        if found.get("sandboxes"):
            return door
    return None


async def run_in_task(door: Path, call: ToolCall) -> tuple[ProcessResult, Mapping[str, Piece]]:
    """Run a command to its end; return its result, and the bytes of both streams by name.

    Raises TaskcellError if it did not run.
    """
    from taskcell.mcp.local_client import local_client

    async with local_client(door) as client:
        fields = await client.call(call.tool, call.arguments)
        kind = "terminal" if call.tool == "terminal" else "skill"
        known = {**fields, "status": Status(fields["status"]), "notes": tuple(fields["notes"]), "kind": kind}
        result = ProcessResult(**known)
        return result, {name.upper(): await _output(client, result, name) for name in ("stdout", "stderr")}


async def _output(client: LocalClient, result: ProcessResult, stream: str) -> Piece:
    """All that is kept of a stream; what the answer has of it, where its sandbox has gone."""
    from taskcell.process.kept_output import Piece

    try:
        return await read_stream(client, result.task_id, result.process_id, stream)
    except TaskcellError:
        text = (result.stdout if stream == "stdout" else result.stderr).encode("utf-8", "replace")
        return Piece(text, 0, len(text), 0)


async def read_stream(client: LocalClient, task: str, process: str, stream: str, cursor: int = 0) -> Piece:
    """Read what is kept of a stream from a cursor on. Raises TaskcellError if there is no such process."""
    from taskcell.process.kept_output import Piece
    from taskcell.resource_uris import output_address

    data, first, lost = bytearray(), -1, 0
    while True:
        address = f"{output_address(task, process)}?stream={stream}&cursor={cursor}&limit={PAGE}"
        (meta, page), *_ = await client.read(address)
        lost += meta["taskcell/lost_bytes"]
        first = meta["taskcell/cursor"] if first < 0 else first
        data += page
        cursor, total = meta["taskcell/next_cursor"], meta["taskcell/total_bytes"]
        if cursor >= total or not page:
            return Piece(bytes(data), first, total, lost)
