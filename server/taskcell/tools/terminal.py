"""The tool `terminal`: runs a shell line in the task's own container."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from taskcell.config.fields import check_variable_name
from taskcell.config.settings import Settings
from taskcell.engine.kinds import kind_of
from taskcell.environment import TERMINAL
from taskcell.errors import BadArgument, ErrorCode
from taskcell.model import WORKSPACE, Command, Profile
from taskcell.profile.build import terminal_profile
from taskcell.sandbox.shell import is_bash
from taskcell.schema.arguments import encoded, seconds
from taskcell.schema.forms import ONLY_WHEN
from taskcell.schema.properties import COLS, ROWS, STDIN, STRIP_ANSI, TASK_ID, object_schema, plain_number, value_schema
from taskcell.schema.published import INSTEAD
from taskcell.text import shown
from taskcell.tools.binding import MAX_ARGUMENT, ProgramTool, program_hints, stdin_of, timeout_of, workdir_of
from taskcell.tools.describe import (
    RUN_SCHEMA,
    facts,
    open_timeout_property,
    shared_files,
)
from taskcell.tools.tool import BuiltIn

#: Bytes that the sandbox may add around a command, in the same argument, to learn the state in which it ended.
WRAPPER_ROOM = 1024
#: Bytes of all variables of one call: together with the arguments they must fit one frame to the supervisor.
MAX_ENVIRONMENT = 256 * 1024
MAX_VARIABLES = 1000
#: Seconds; the longest timeout in the background, where none is the default. Ten years.
LONGEST = 315_360_000.0

_IN_A_TERMINAL = {ONLY_WHEN: {"pty": [True]}}
#: Published as a list: strict clients take no object whose names are not known beforehand.
_ENV = {
    "type": "object",
    "description": "Environment variables for this command only.",
    "maxProperties": MAX_VARIABLES,
    "additionalProperties": {"type": "string"},
    INSTEAD: {
        "type": "array",
        "items": {"type": "string"},
        "description": "Environment variables for this command only, each as NAME=value.",
    },
}


def terminal_tool(settings: Settings) -> ProgramTool:
    """Create the tool with the profile and the limits of the configuration."""
    profile, limits = terminal_profile(settings), settings.limits
    timeout = limits.timeout if settings.terminal.timeout is None else settings.terminal.timeout
    return ProgramTool(
        name=TERMINAL,
        title="Terminal",
        description=description(profile, settings.terminal.shell, isolates=kind_of(settings.engine).isolates),
        input_schema=schema(timeout, limits.wait),
        output_schema=RUN_SCHEMA,
        annotations=program_hints(profile),
        profile=profile,
        timeout=timeout,
        wait=limits.wait,
        binding=ShellLine(settings.terminal.shell, limits.max_timeout),
    )


def _make(settings: Settings) -> Iterator[ProgramTool]:
    yield terminal_tool(settings)


BUILT_IN = BuiltIn(names=(TERMINAL,), make=_make, rank=1)


def description(profile: Profile, shell: Sequence[str], *, isolates: bool = True) -> str:
    """Describe the terminal in a few sentences; its schema says the rest.

    All of it is known before there is a sandbox, so that the list of tools never changes because one was looked at: a
    changed list makes a model's provider read the whole conversation anew.

    Arguments:
        shell: what runs a command line. Of the shells, bash alone can export functions.
        isolates: the engine runs commands in containers.
    """
    exported = "exported variables and functions" if is_bash(shell) else "exported variables"
    carried = f"Working directory and {exported} carry over to the next command; nothing else of the shell does."
    if isolates:
        own = f"{shared_files(profile, 'all skills')} {facts(profile)}"
        what = "Run a shell command in the task's own Linux container."
    else:
        what = "Run a shell command as a process of the server's own machine: this engine has no container."
        own = f"Its working directory is what other tools call {WORKSPACE}."
    return f"{what} {carried} {own} Output includes stderr. A non-zero exit code is not a tool error."


def schema(timeout: float, wait: float) -> dict[str, Any]:
    """Return the input schema. Times in seconds."""
    return object_schema(
        {
            "command": value_schema("string", "Shell command line or script.", minLength=1),
            "task_id": TASK_ID,
            "workdir": value_schema(
                "string",
                f"Absolute or relative to {WORKSPACE}. Default: where the last command ended.",
                minLength=1,
            ),
            "timeout": open_timeout_property(timeout),
            "wait": value_schema(
                "number",
                "Seconds until the call returns; a command still running goes on under `process`.",
                minimum=0,
                default=plain_number(wait),
            ),
            "stdin": STDIN,
            "env": _ENV,
            "background": value_schema(
                "boolean",
                "Return once started. Without `stdin`, `process` can write to it. Nothing carries over from it.",
                default=False,
            ),
            "pty": value_schema("boolean", "Run in a terminal, for interactive programs.", default=False),
            "rows": ROWS | _IN_A_TERMINAL,
            "cols": COLS | _IN_A_TERMINAL,
            "strip_ansi": STRIP_ANSI,
        },
        ["command"],
    )


@dataclass(frozen=True, slots=True)
class ShellLine:
    """Runs `command` as one line of a shell. `max_timeout` in seconds."""

    shell: tuple[str, ...]
    max_timeout: float

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        line = values["command"]
        most = MAX_ARGUMENT - WRAPPER_ROOM
        size = len(encoded("command", line))
        if size > most:
            raise BadArgument(
                f"'command' is {size} bytes long; the limit is {most}. "
                "Instead, write a script to a file in /workspace and run that, or pass the data through 'stdin'.",
                code=ErrorCode.TOO_LARGE,
            )
        background = values.get("background", False)
        if background:
            timeout, cut = timeout_of(values, math.inf, LONGEST)
        else:
            timeout, cut = timeout_of(values, blank.timeout, self.max_timeout)
        wait, wait_cut = _wait(values, blank.wait, self.max_timeout)
        return replace(
            blank,
            argv=(*self.shell, line),
            text=line,
            stdin=stdin_of("stdin", values.get("stdin")),
            workdir=workdir_of(values),
            env=environment_of(values.get("env", {})),
            timeout=timeout,
            wait=wait,
            background=background,
            pty=_terminal_size(values),
            strip_ansi=values.get("strip_ansi", False),
            notes=(*cut, *wait_cut),
        )


def _wait(values: Mapping[str, Any], usual: float | None, most: float) -> tuple[float | None, tuple[str, ...]]:
    wait = values.get("wait")
    return (usual, ()) if wait is None else seconds("wait", wait, most)


def _terminal_size(values: Mapping[str, Any]) -> tuple[int, int] | None:
    if not values.get("pty", False):
        return None
    return values.get("rows", ROWS["default"]), values.get("cols", COLS["default"])


def environment_of(variables: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the argument `env`. Raises BadArgument."""
    total = 0
    for name, value in variables.items():
        if not isinstance(name, str):
            raise BadArgument("The names in 'env' must be text.")
        try:
            check_variable_name(name)
        except ValueError as error:
            raise BadArgument(f"In 'env', {shown(name)} {error}.") from None
        size = len(name) + len(encoded(f"env.{name}", value)) + 2
        total += size
        if size > MAX_ARGUMENT or total > MAX_ENVIRONMENT:
            raise BadArgument(
                f"'env' is too large: one variable may have at most {MAX_ARGUMENT} bytes, all of them together "
                f"{MAX_ENVIRONMENT}. Pass larger data through 'stdin' or a file.",
                code=ErrorCode.TOO_LARGE,
            )
    return MappingProxyType(dict(variables))
