"""What a relative path of a file tool would have named if it began where the terminal is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from taskcell.errors import BadArgument, Denied, ErrorCode, FileRefused
from taskcell.files.run import run_file_command
from taskcell.files.store import FileStore
from taskcell.model import Command
from taskcell.sandbox.hints import beside_the_terminal, relative_hint
from taskcell.sandbox.sandbox import Sandbox
from taskcell.tools.file_commands import target
from taskcell.tools.tool import Access


async def relative_hints(gateway: Access, sandbox: Sandbox, command: Command, path: str) -> list[str]:
    """Say whether a relative path names something where the terminal is. Raises SandboxLost, SpawnFailed.

    Arguments:
        command: the call's own.
        path: as the call has it.
    """
    whole = beside_the_terminal(sandbox, path)
    if not whole:
        return []

    async def run(words: Sequence[str], stdin: bytes | None) -> bytes:
        look = replace(command, argv=tuple(words), text=found.shown, stdin=stdin)
        return await run_file_command(sandbox, gateway.authorize(look))

    try:
        found = target(whole)
        await FileStore(run).fetch(found, 1)
    except FileRefused as refused:  # a folder, or more than one byte
        return [] if refused.code is ErrorCode.NOT_FOUND else [relative_hint(whole)]
    except (Denied, BadArgument):
        return []
    return [relative_hint(whole)]
