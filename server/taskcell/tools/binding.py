"""From a call's checked arguments to the words of its command: a shell line, free arguments, or a filled template."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from taskcell.config.fields import check_variable_name
from taskcell.errors import BadArgument
from taskcell.model import DEFAULT_TASK, MIB, TaskKey, ToolCall
from taskcell.schema.arguments import as_utf8, check_visible, encoded, seconds
from taskcell.schema.properties import COLS, ROWS
from taskcell.skills.parameters import Parameter
from taskcell.skills.template import Template
from taskcell.text import shown

#: Bytes, with the closing NUL: MAX_ARG_STRLEN, Linux include/uapi/linux/binfmts.h.
MAX_ARGUMENT = 131_072
#: Bytes that the terminal may put around a command, in the same argument, to learn where it ended.
WRAPPER_ROOM = 1024
#: Bytes of all arguments of one call: with the environment they must fit one frame to the supervisor, 1 MiB.
MAX_ARGUMENTS = 512 * 1024
MAX_ENVIRONMENT = 256 * 1024
#: Bytes; what is larger belongs into a file of the workspace.
MAX_STDIN = 4 * MIB
#: Bytes, with the closing NUL: PATH_MAX, Linux include/uapi/linux/limits.h.
MAX_PATH = 4096

_ELSEWHERE = "put the data into a file in /workspace"


@dataclass(frozen=True, slots=True)
class Bound:
    """What a call's own arguments say of its command; the fields are those of `Command`.

    `timeout` and `wait` None mean the tool's.
    """

    argv: tuple[str, ...]
    text: str
    stdin: bytes | None = field(default=None, repr=False)
    workdir: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    wait: float | None = None
    background: bool = False
    pty: tuple[int, int] | None = None
    strip_ansi: bool = False


class Binding(Protocol):
    """How a tool's arguments, which its schema allows, become a command."""

    def bind(self, values: Mapping[str, Any]) -> Bound:
        """Raises BadArgument where Linux, or the tool's author, would not have it."""


@dataclass(frozen=True, slots=True)
class ShellLine:
    """`terminal`: one line for a shell. `max_timeout` in seconds."""

    shell: tuple[str, ...]
    max_timeout: float

    def bind(self, values: Mapping[str, Any]) -> Bound:
        line = values["command"]
        most = MAX_ARGUMENT - WRAPPER_ROOM
        size = len(encoded("command", line))
        if size > most:
            raise BadArgument(
                f"'command' is {size} bytes long, and at most {most} can be run; "
                "write a script to a file in /workspace and run that, or give the data through 'stdin'."
            )
        return Bound(
            argv=(*self.shell, line),
            text=line,
            stdin=_stdin("stdin", values.get("stdin")),
            workdir=_workdir(values.get("workdir")),
            env=_environment(values.get("env", {})),
            timeout=_timeout(values, self.max_timeout),
            wait=_wait(values),
            background=values.get("background", False),
            pty=_terminal_size(values),
            strip_ansi=values.get("strip_ansi", False),
        )


@dataclass(frozen=True, slots=True)
class FreeArguments:
    """A skill without typed tools: `args` as they are.

    Arguments:
        prefix: what stands before them in the text that policy rules read.
        max_timeout: seconds.
    """

    prefix: tuple[str, ...]
    max_timeout: float

    def bind(self, values: Mapping[str, Any]) -> Bound:
        words = tuple(values.get("args", ()))
        for index, word in enumerate(words):
            encoded(f"args[{index}]", word)
        _check_sizes(((f"args[{index}]", word) for index, word in enumerate(words)), "'args' are")
        return Bound(
            argv=words,
            text=shlex.join((*self.prefix, *words)),
            stdin=_stdin("stdin", values.get("stdin")),
            workdir=_workdir(values.get("workdir")),
            timeout=_timeout(values, self.max_timeout),
        )


@dataclass(frozen=True, slots=True)
class FilledTemplate:
    """A typed tool: its template, filled.

    Arguments:
        prefix: what stands before the arguments in the text that policy rules read.
        stdin: the parameter whose value is the standard input; empty: none.
    """

    prefix: tuple[str, ...]
    template: Template
    stdin: str
    parameters: tuple[Parameter, ...]

    def bind(self, values: Mapping[str, Any]) -> Bound:
        given = {parameter.name: values.get(parameter.name, parameter.default) for parameter in self.parameters}
        used = self.template.names
        words = {
            parameter.name: parameter.words(given[parameter.name])
            for parameter in self.parameters
            if parameter.name in used and given[parameter.name] is not None
        }
        guarded = {parameter.name for parameter in self.parameters if parameter.guarded}
        filled = list(self.template.fill(words, guarded))
        _check_sizes(filled, "The arguments are")
        argv = tuple(word for _, word in filled)
        text = shlex.join((*self.prefix, *argv))
        if not self.stdin:
            return Bound(argv=argv, text=text)
        # What the tool's author sends through stdin may be the program itself: rules must see it.
        given_text = given[self.stdin]
        shown_too = "" if given_text is None else f"\n{given_text}"
        return Bound(argv=argv, text=text + shown_too, stdin=_stdin(self.stdin, given_text))


def _check_sizes(named: Iterable[tuple[str, str]], all_of_them: str) -> None:
    """Raise BadArgument if Linux, or a frame to the supervisor, cannot take the arguments."""
    total = 0
    for name, word in named:
        size = len(word.encode("utf-8")) + 1
        total += size
        if size > MAX_ARGUMENT:
            raise BadArgument(
                f"'{name}' is {size - 1} bytes long, and one argument holds at most {MAX_ARGUMENT - 1}; {_ELSEWHERE}."
            )
    if total > MAX_ARGUMENTS:
        raise BadArgument(
            f"{all_of_them} {total} bytes long together, and at most {MAX_ARGUMENTS} can be given; {_ELSEWHERE}."
        )


def task_key(call: ToolCall, values: Mapping[str, Any]) -> TaskKey:
    """The task that a call names. Raises BadArgument."""
    task = values.get("task_id", DEFAULT_TASK)
    check_visible("task_id", task)
    return TaskKey(call.principal, task)


def _timeout(values: Mapping[str, Any], most: float) -> float | None:
    timeout = values.get("timeout")
    return None if timeout is None else seconds("timeout", timeout, most)


def _wait(values: Mapping[str, Any]) -> float | None:
    wait = values.get("wait")
    if wait is None:
        return None
    if not math.isfinite(wait):
        raise BadArgument("'wait' must be a finite number of seconds.")
    return float(wait)


def _terminal_size(values: Mapping[str, Any]) -> tuple[int, int] | None:
    if values.get("pty", False):
        return values.get("rows", ROWS["default"]), values.get("cols", COLS["default"])
    if "rows" in values or "cols" in values:
        raise BadArgument("'rows' and 'cols' are the size of a terminal: give 'pty' too, or leave them out.")
    return None


def _stdin(name: str, text: str | None) -> bytes | None:
    if text is None:
        return None
    data = as_utf8(name, text)
    if len(data) > MAX_STDIN:
        raise BadArgument(
            f"'{name}' is {len(data)} bytes long, and at most {MAX_STDIN} can be given; put it in a file in /workspace."
        )
    return data


def _workdir(path: str | None) -> str | None:
    if path is not None and len(encoded("workdir", path)) >= MAX_PATH:
        raise BadArgument(f"'workdir' is longer than the {MAX_PATH - 1} bytes that a path may have.")
    return path


def _environment(variables: Mapping[str, str]) -> Mapping[str, str]:
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
                f"'env' is too large: a variable holds at most {MAX_ARGUMENT} bytes, all together {MAX_ENVIRONMENT}."
            )
    return MappingProxyType(dict(variables))
