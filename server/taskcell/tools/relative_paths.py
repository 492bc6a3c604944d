"""What a relative path of a file tool would have named if it began where the terminal is."""

from __future__ import annotations

from dataclasses import replace

from taskcell.errors import BadArgument, Denied, ErrorCode, FileRefused
from taskcell.files.reply import parse_read
from taskcell.files.run import run_file_command
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
    try:
        found = target(whole)
        look = replace(command, argv=("fetch", "1", found.inner), text=found.shown, stdin=None)
        parse_read("fetch", found.shown, await run_file_command(sandbox, gateway.authorize(look)))
    except FileRefused as refused:  # a folder, or more than one byte
        return [] if refused.code is ErrorCode.NOT_FOUND else [relative_hint(whole)]
    except (Denied, BadArgument):
        return []
    return [relative_hint(whole)]
