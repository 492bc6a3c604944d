"""Which scope of a token lets its bearer use a tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskcell.caller import Caller, Scope
from taskcell.errors import BadArgument
from taskcell.tools.files import FileTool
from taskcell.tools.process_calls import PROCESS
from taskcell.tools.sandbox import COPIES, SANDBOX
from taskcell.tools.tool import Tool

FOR_TERMINAL = frozenset({Scope.TERMINAL})
FOR_FILES = frozenset({Scope.FILES})
FOR_PORTS = frozenset({Scope.PORTS})
FOR_SKILLS = frozenset({Scope.SKILLS})
#: For what looks after commands that either of them has started.
FOR_COMMANDS = FOR_TERMINAL | FOR_SKILLS


def scopes_of(tool: Tool) -> frozenset[Scope]:
    """Return the scopes of which a caller needs one."""
    if isinstance(tool, FileTool):
        return FOR_FILES
    if tool.profile is None:
        return FOR_COMMANDS
    return FOR_SKILLS if tool.profile.kind == "skill" else FOR_TERMINAL


def check_arguments(caller: Caller, tool: str, arguments: Mapping[str, Any]) -> None:
    """Raise BadArgument if a caller without `terminal` writes to a process, which may be a shell of the terminal, or
    copies a task's files.
    """
    if caller.may(FOR_TERMINAL):
        return
    if tool == PROCESS and arguments.get("action") == "write":
        raise BadArgument("Only a token with the scope 'terminal' may write to a process.")
    if tool == SANDBOX and arguments.get("action") in COPIES:
        raise BadArgument("Only a token with the scope 'terminal' may copy a task's files.")
