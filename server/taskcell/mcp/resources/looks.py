"""Looks into a workspace by sandboxes that are there: no sandbox is started for a look, or kept from being closed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from taskcell.errors import Denied, ErrorCode, FileRefused, SandboxLost, SpawnFailed
from taskcell.files.reply import ListedEntry
from taskcell.files.run import run_file_command
from taskcell.files.store import FileStore
from taskcell.gateway.gateway import Gateway
from taskcell.model import WORKSPACE, TaskKey
from taskcell.sandbox.sandbox import Sandbox
from taskcell.text import is_visible
from taskcell.tools.file_commands import FileCommand, target
from taskcell.tools.files import FileTool

#: Seconds. A change that is older cannot have the same time as a later one: times are whole seconds, and there is a
#: second between two looks, and a difference between two clocks.
RECENT = 5.0
#: Times that a file is looked at which changes meanwhile.
LOOK_TRIES = 3


@dataclass(frozen=True, slots=True)
class Look:
    """How a path was: its own entry, or those of a folder; none if nothing is there.

    Arguments:
        digest: of a file that had changed recently.
    """

    entries: tuple[ListedEntry, ...]
    digest: bytes | None = None

    def differs(self, later: Look) -> bool:
        known = self.digest is not None and later.digest is not None
        return self.entries != later.entries or (known and self.digest != later.digest)


async def look_at(gateway: Gateway, sandboxes: Sequence[Sandbox], task: TaskKey, path: str) -> Look | None:
    """Look at a path; None where that is not possible now."""
    try:
        store = _store(gateway, sandboxes, task, path)
        if store is None:
            return None
        for _ in range(LOOK_TRIES):
            entries = (await store.list(target(path), ("*",), usual=False)).entries
            is_file = len(entries) == 1 and entries[0].kind == "f"
            if not is_file or entries[0].changed < time.time() - RECENT:
                return Look(entries)
            digest = hashlib.sha256((await store.fetch(target(path))).data).digest()
            # A file that is replaced between the two would count as changed now, and at the next look again.
            if (await store.list(target(path), ("*",), usual=False)).entries == entries:
                return Look(entries, digest)
        return Look(entries)
    except FileRefused as refused:
        return Look(()) if refused.code is ErrorCode.NOT_FOUND else None
    except (Denied, SandboxLost, SpawnFailed):
        return None


async def newest(gateway: Gateway, task: TaskKey, sandboxes: Sequence[Sandbox]) -> list[ListedEntry]:
    """The files of a task's workspace that changed last, the newest first, without what is seldom wanted."""
    try:
        store = _store(gateway, sandboxes, task, WORKSPACE)
        if store is None:
            return []
        listed = await store.list(target(WORKSPACE), ("**/*",), newest_first=True)
    except (FileRefused, Denied, SandboxLost, SpawnFailed):
        return []
    return [entry for entry in listed.entries if entry.kind == "f" and is_visible(entry.path)]


def ends(sandboxes: Sequence[Sandbox]) -> list[tuple[int, float]]:
    """When the last process of each sandbox ended."""
    return [(id(sandbox), sandbox.channel.quiet_since) for sandbox in sandboxes]


def _store(gateway: Gateway, sandboxes: Sequence[Sandbox], task: TaskKey, path: str) -> FileStore | None:
    """The files as a sandbox that is there has them; None if there is none.

    Without a lease, so that the sandbox may be closed meanwhile. The policy judges it as it judges `read_file`.
    """
    tool = gateway.tools.get("read_file")
    if not sandboxes or not isinstance(tool, FileTool):
        return None
    command = FileCommand().bind(tool.blank(task), {"path": path})

    async def run(words: Sequence[str], stdin: bytes | None) -> bytes:
        return await run_file_command(sandboxes[0], gateway.authorize(replace(command, argv=tuple(words), stdin=stdin)))

    return FileStore(run)
