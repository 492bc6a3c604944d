"""The tools that run commands: what a model reads of them, and how its arguments become a command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from taskcell import schemas
from taskcell.arguments import Arguments, as_utf8, check_visible, encoded, nearest, seconds
from taskcell.errors import BadArgument
from taskcell.fields import check_variable_name
from taskcell.manifest import Skill
from taskcell.model import DEFAULT_TASK, MIB, Command, Profile, TaskKey, ToolCall
from taskcell.profile import TERMINAL, skill_profile, terminal_profile
from taskcell.reference import shown
from taskcell.schemas import ToolAnnotations
from taskcell.settings import Settings

__all__ = [
    "SANDBOX_TOOL",
    "CommandTool",
    "SandboxAction",
    "SandboxTool",
    "ToolAnnotations",
    "bind_sandbox_action",
    "build_tools",
    "nearest",
]

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


@dataclass(frozen=True)
class CommandTool:
    """A tool whose call is one command in one profile's sandbox.

    Arguments:
        input_schema: JSON Schema, draft 2020-12, without references.
        timeout, max_timeout: seconds; of a call that names none, and the most that one may name.
        prefix: what stands before the call's arguments in the text that policy rules read.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: ToolAnnotations
    profile: Profile
    timeout: float
    max_timeout: float
    prefix: tuple[str, ...]
    _arguments: Arguments = field(repr=False, compare=False)

    def bind(self, call: ToolCall) -> Command:
        """Check a call's arguments and make its command. Raises BadArgument, and nothing else."""
        values = self._arguments.check(self.name, call.arguments)
        terminal = self.profile.kind == "terminal"
        argv, text = self._line(values["command"]) if terminal else self._words(values.get("args", ()))
        timeout = values.get("timeout")
        return Command(
            task=_task(call, values),
            tool=self.name,
            profile=self.profile,
            argv=argv,
            text=text,
            stdin=_stdin(values.get("stdin")),
            workdir=_workdir(values.get("workdir")),
            env=_environment(values.get("env", {})),
            timeout=self.timeout if timeout is None else seconds("timeout", timeout, self.max_timeout),
        )

    def _line(self, command: str) -> tuple[tuple[str, ...], str]:
        most = MAX_ARGUMENT - WRAPPER_ROOM
        size = len(encoded("command", command))
        if size > most:
            raise BadArgument(
                f"'command' is {size} bytes long, and at most {most} can be run; "
                "write a script to a file in /workspace and run that, or give the data through 'stdin'."
            )
        return (*self.prefix, command), command

    def _words(self, args: Iterable[str]) -> tuple[tuple[str, ...], str]:
        words, total = tuple(args), 0
        for index, word in enumerate(words):
            size = len(encoded(f"args[{index}]", word)) + 1
            total += size
            if size > MAX_ARGUMENT:
                raise BadArgument(
                    f"'args[{index}]' is {size - 1} bytes long, and one argument holds at most {MAX_ARGUMENT - 1}; "
                    "put the data into a file in /workspace, or give it through 'stdin'."
                )
        if total > MAX_ARGUMENTS:
            raise BadArgument(
                f"'args' are {total} bytes long together, and at most {MAX_ARGUMENTS} can be given; "
                "put the data into a file in /workspace, or give it through 'stdin'."
            )
        return words, shlex.join((*self.prefix, *words))


@dataclass(frozen=True, slots=True)
class SandboxAction:
    """What the tool `sandbox` is asked to do, and for which task."""

    task: TaskKey
    action: Literal["status", "reset", "close"]


@dataclass(frozen=True)
class SandboxTool:
    """The tool `sandbox`, which runs nothing."""

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: ToolAnnotations
    _arguments: Arguments = field(repr=False, compare=False)

    def bind(self, call: ToolCall) -> SandboxAction:
        """Check a call's arguments. Raises BadArgument."""
        values = self._arguments.check(self.name, call.arguments)
        return SandboxAction(_task(call, values), values["action"])


SANDBOX_TOOL = SandboxTool(
    name="sandbox",
    title="Sandbox",
    description=schemas.SANDBOX_DESCRIPTION,
    input_schema=schemas.SANDBOX,
    annotations=ToolAnnotations(read_only=False, destructive=True, idempotent=True, open_world=False),
    _arguments=Arguments(schemas.SANDBOX),
)


def bind_sandbox_action(call: ToolCall) -> SandboxAction:
    """Check a call of the tool `sandbox`. Raises BadArgument."""
    return SANDBOX_TOOL.bind(call)


def build_tools(settings: Settings, skills: Iterable[Skill]) -> dict[str, CommandTool]:
    """Every tool that runs commands, by name: `terminal`, and one for each skill. Raises ConfigError."""
    tools = {TERMINAL: _terminal(settings)}
    tools.update((skill.name, _skill(skill, settings)) for skill in skills)
    return tools


def _terminal(settings: Settings) -> CommandTool:
    profile, limits = terminal_profile(settings), settings.limits
    timeout = limits.timeout if settings.terminal.timeout is None else settings.terminal.timeout
    schema = schemas.terminal(timeout, limits.max_timeout)
    return CommandTool(
        name=TERMINAL,
        title="Terminal",
        description=schemas.terminal_description(profile, timeout),
        input_schema=schema,
        annotations=_annotations(profile),
        profile=profile,
        timeout=timeout,
        max_timeout=limits.max_timeout,
        prefix=settings.terminal.shell,
        _arguments=Arguments(schema, schemas.LATER),
    )


def _skill(skill: Skill, settings: Settings) -> CommandTool:
    profile, limits = skill_profile(skill, settings), settings.limits
    timeout = min(limits.timeout if skill.docker.timeout is None else skill.docker.timeout, limits.max_timeout)
    schema = schemas.skill(profile, timeout, limits.max_timeout)
    return CommandTool(
        name=skill.name,
        title=skill.name,
        description=schemas.skill_description(skill.description, profile, timeout),
        input_schema=schema,
        annotations=_annotations(profile),
        profile=profile,
        timeout=timeout,
        max_timeout=limits.max_timeout,
        prefix=(profile.entrypoint or (skill.name,)) + (profile.command or ()),
        _arguments=Arguments(schema, schemas.LATER),
    )


def _annotations(profile: Profile) -> ToolAnnotations:
    return ToolAnnotations(read_only=False, destructive=True, idempotent=False, open_world=profile.network != "none")


def _task(call: ToolCall, values: Mapping[str, Any]) -> TaskKey:
    task = values.get("task_id", DEFAULT_TASK)
    check_visible("task_id", task)
    return TaskKey(call.principal, task)


def _stdin(text: str | None) -> bytes | None:
    if text is None:
        return None
    data = as_utf8("stdin", text)
    if len(data) > MAX_STDIN:
        raise BadArgument(
            f"'stdin' is {len(data)} bytes long, and at most {MAX_STDIN} can be given; put it in a file in /workspace."
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
