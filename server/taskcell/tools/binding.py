"""Tools whose call is one command, and the arguments that several of them share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from taskcell.errors import BadArgument, ErrorCode
from taskcell.files.limits import MAX_PATH
from taskcell.model import DEFAULT_TASK, MIB, Command, Profile, TaskKey, ToolCall
from taskcell.schema.arguments import as_utf8, check_visible, encoded, seconds
from taskcell.tools.tool import Access, Tool, ToolAnnotations, ToolReport, Watch

#: Bytes, including the closing NUL: MAX_ARG_STRLEN, Linux include/uapi/linux/binfmts.h.
MAX_ARGUMENT = 131_072
#: Bytes of all arguments of one call of a tool: a model that writes more has a file in mind.
MAX_ARGUMENTS = 512 * 1024
#: Bytes; larger input belongs in a file of the workspace.
MAX_STDIN = 4 * MIB

_INSTEAD = "put the data in a file in /workspace"


class Binding(Protocol):
    """Turns a tool's arguments, already checked against its schema, into a command."""

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        """Fill in what is executed. Raises BadArgument if Linux or the tool's author does not allow the arguments.

        Arguments:
            blank: a command with the tool's defaults and nothing to execute yet.
        """


@dataclass(frozen=True, kw_only=True)
class CommandTool(Tool):
    """A tool whose call is one command in its profile's sandbox.

    Arguments:
        timeout, wait: seconds, for a call that does not give them.
    """

    profile: Profile = field()
    timeout: float
    wait: float | None = None
    binding: Binding = field(repr=False)

    def bind(self, call: ToolCall) -> Command:
        """Check a call's arguments and build its command. Raises BadArgument and nothing else."""
        values = self.check(call)
        command = self.binding.bind(self.blank(task_key(call, values)), values)
        if call.confirmed:
            command = replace(command, confirmed=call.confirmed)
        return command if call.hand_off else replace(command, wait=None)

    def blank(self, task: TaskKey) -> Command:
        """Return a command of this tool that has nothing to execute yet."""
        return Command(task, self.name, self.profile, (), "", timeout=self.timeout, wait=self.wait)

    def commands(self, call: ToolCall) -> Sequence[Command]:
        return (self.bind(call),)

    @abstractmethod
    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport: ...


@dataclass(frozen=True, kw_only=True)
class ProgramTool(CommandTool):
    """A tool that runs a program: the terminal, or a skill's tool."""

    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        return await gateway.run(self.bind(call), watch)


def program_hints(profile: Profile, *, read_only: bool = False) -> ToolAnnotations:
    """Return the hints for a tool that runs a program. A tool that only reads is idempotent and destroys nothing."""
    return ToolAnnotations(
        read_only=read_only, destructive=not read_only, idempotent=read_only, open_world=profile.network != "none"
    )


def task_key(call: ToolCall, values: Mapping[str, Any]) -> TaskKey:
    """Return the task that a call names. Raises BadArgument."""
    task = values.get("task_id", DEFAULT_TASK)
    check_visible("task_id", task)
    return TaskKey(call.principal, task)


def timeout_of(values: Mapping[str, Any], usual: float, most: float) -> tuple[float, tuple[str, ...]]:
    """Return the argument `timeout` in seconds, or `usual` if it is missing, and a note if it was cut to `most`.

    Raises BadArgument.
    """
    timeout = values.get("timeout")
    if timeout is None:
        return usual, ()
    if timeout == 0:
        raise BadArgument("'timeout' must be more than 0 seconds; leave it out for the default.")
    return seconds("timeout", timeout, most)


def stdin_of(name: str, text: str | None) -> bytes | None:
    """Encode text for standard input; None stays None. Raises BadArgument."""
    if text is None:
        return None
    data = as_utf8(name, text)
    if len(data) > MAX_STDIN:
        raise BadArgument(
            f"'{name}' is {len(data)} bytes long, and the limit is {MAX_STDIN}; put it in a file in /workspace.",
            code=ErrorCode.TOO_LARGE,
        )
    return data


def from_home(path: str) -> str:
    """Return a path that begins with `~` as one relative to the workspace, which is the user's home in a sandbox."""
    if path == "~":
        return "."
    return path[2:].lstrip("/") or "." if path.startswith("~/") else path


def workdir_of(values: Mapping[str, Any]) -> str | None:
    """Return the argument `workdir`, or None if it is missing. Raises BadArgument."""
    path: str | None = values.get("workdir")
    if path is not None and len(encoded("workdir", path)) >= MAX_PATH:
        raise BadArgument(
            f"'workdir' is longer than the {MAX_PATH - 1} bytes that a path may have; use a shorter path."
        )
    return None if path is None else from_home(path)


def check_sizes(named: Iterable[tuple[str, str]], all_of_them: str) -> None:
    """Raise BadArgument if the arguments are too large for Linux or for a frame to the supervisor."""
    total = 0
    for name, word in named:
        size = len(word.encode("utf-8")) + 1
        total += size
        if size > MAX_ARGUMENT:
            raise BadArgument(
                f"'{name}' is {size - 1} bytes long, and one argument holds at most {MAX_ARGUMENT - 1}; {_INSTEAD}.",
                code=ErrorCode.TOO_LARGE,
            )
    if total > MAX_ARGUMENTS:
        raise BadArgument(
            f"{all_of_them} {total} bytes long together; the limit is {MAX_ARGUMENTS}. Instead, {_INSTEAD}.",
            code=ErrorCode.TOO_LARGE,
        )
