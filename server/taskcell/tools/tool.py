"""The tools that run commands: what a model reads of them, and how its arguments become a command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from taskcell.config.settings import LimitSettings, Settings
from taskcell.errors import ConfigError
from taskcell.model import Command, Profile, TaskKey, ToolCall
from taskcell.profile.build import TERMINAL, skill_profile, terminal_profile
from taskcell.schema.arguments import Arguments, nearest
from taskcell.schema.properties import ToolAnnotations
from taskcell.skills.manifest import RESERVED_NAMES, Skill
from taskcell.skills.typed_tool import TypedTool
from taskcell.tools import describe as schemas
from taskcell.tools import files as file_tools
from taskcell.tools.binding import Binding, Bound, FilledTemplate, FreeArguments, ShellLine, task_key
from taskcell.tools.files import FILE_TIMEOUT, FetchFile

__all__ = [
    "SANDBOX_TOOL",
    "CommandTool",
    "FileTool",
    "SandboxAction",
    "SandboxTool",
    "ToolAnnotations",
    "build_tools",
    "nearest",
]


#: What makes a rule's `tool` a pattern (fnmatch), which may match nothing yet.
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class CommandTool:
    """A tool whose call is one command in one profile's sandbox.

    Arguments:
        input_schema: JSON Schema, draft 2020-12, without references.
        timeout, wait: seconds, of a call that names none.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: ToolAnnotations
    profile: Profile
    timeout: float
    _binding: Binding = field(repr=False)
    _arguments: Arguments = field(repr=False, compare=False)
    wait: float | None = None

    def bind(self, call: ToolCall) -> Command:
        """Check a call's arguments and make its command. Raises BadArgument, and nothing else."""
        values = self._arguments.check(self.name, call.arguments)
        return self._command(task_key(call, values), self._binding.bind(values))

    def _command(self, task: TaskKey, bound: Bound) -> Command:
        return Command(
            task=task,
            tool=self.name,
            profile=self.profile,
            argv=bound.argv,
            text=bound.text,
            stdin=bound.stdin,
            workdir=bound.workdir,
            env=bound.env,
            timeout=self.timeout if bound.timeout is None else bound.timeout,
            wait=self.wait if bound.wait is None else bound.wait,
            background=bound.background,
            pty=bound.pty,
            strip_ansi=bound.strip_ansi,
        )


@dataclass(frozen=True)
class FileTool(CommandTool):
    """A file tool: its command is one of `supervisor file`, in the terminal's sandbox.

    Arguments:
        output_chars: characters of one answer.
    """

    output_chars: int = 0

    def fetch(self, task: TaskKey, path: str) -> Command:
        """The command that reads a whole file. Raises BadArgument."""
        return self._command(task, FetchFile().bind({"path": path}))


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
        return SandboxAction(task_key(call, values), values["action"])


SANDBOX_TOOL = SandboxTool(
    name="sandbox",
    title="Sandbox",
    description=schemas.SANDBOX_DESCRIPTION,
    input_schema=schemas.SANDBOX,
    annotations=ToolAnnotations(read_only=False, destructive=True, idempotent=True, open_world=False),
    _arguments=Arguments(schemas.SANDBOX),
)


def build_tools(settings: Settings, skills: Iterable[Skill]) -> dict[str, CommandTool]:
    """Every tool that runs in a sandbox, by name: terminal, file tools, and those of skills. Raises ConfigError."""
    tools: dict[str, CommandTool] = {TERMINAL: _terminal(settings)}
    tools.update((name, _file_tool(name, tools[TERMINAL].profile, settings)) for name in file_tools.SCHEMAS)
    tools.update((tool.name, tool) for skill in skills for tool in _of_skill(skill, settings))
    _check_rules(settings, tools)
    return tools


def _check_rules(settings: Settings, tools: Mapping[str, CommandTool]) -> None:
    """A rule about a tool that is not there would never decide anything: a mistyped name must not go unnoticed."""
    names = {*tools, *(tool.profile.name for tool in tools.values()), *RESERVED_NAMES}
    for rule in settings.policy.rules:
        if not _WILDCARD.search(rule.tool) and rule.tool not in names:
            raise ConfigError(
                f"The policy's rule '{rule.name}' is about the tool '{rule.tool}', which neither the server nor a "
                f"manifest has{nearest(rule.tool, names)}; correct its 'tool', or use a pattern such as '*'."
            )


def _terminal(settings: Settings) -> CommandTool:
    profile, limits = terminal_profile(settings), settings.limits
    timeout = limits.timeout if settings.terminal.timeout is None else settings.terminal.timeout
    schema = schemas.terminal(timeout, limits.max_timeout, limits.wait)
    return CommandTool(
        name=TERMINAL,
        title="Terminal",
        description=schemas.terminal_description(profile, timeout),
        input_schema=schema,
        annotations=_annotations(profile),
        profile=profile,
        timeout=timeout,
        wait=limits.wait,
        _binding=ShellLine(settings.terminal.shell, limits.max_timeout),
        _arguments=Arguments(schema),
    )


def _file_tool(name: str, profile: Profile, settings: Settings) -> FileTool:
    output_chars = settings.limits.output_chars
    return FileTool(
        name=name,
        title=file_tools.TITLES[name],
        description=file_tools.DESCRIPTIONS[name],
        input_schema=file_tools.SCHEMAS[name],
        annotations=file_tools.hints(name),
        profile=profile,
        timeout=FILE_TIMEOUT,
        _binding=file_tools.binding(name, output_chars),
        _arguments=Arguments(file_tools.SCHEMAS[name]),
        output_chars=output_chars,
    )


def _of_skill(skill: Skill, settings: Settings) -> Iterator[CommandTool]:
    profile, limits = skill_profile(skill, settings), settings.limits
    timeout = min(limits.timeout if skill.docker.timeout is None else skill.docker.timeout, limits.max_timeout)
    if skill.tools:
        yield from (_typed(tool, profile, timeout, limits.wait) for tool in skill.tools)
    else:
        yield _free_form(skill, profile, timeout, limits)


def _free_form(skill: Skill, profile: Profile, timeout: float, limits: LimitSettings) -> CommandTool:
    schema = schemas.skill(profile, timeout, limits.max_timeout)
    return CommandTool(
        name=skill.name,
        title=skill.name,
        description=schemas.skill_description(skill.description, profile, timeout),
        input_schema=schema,
        annotations=_annotations(profile),
        profile=profile,
        timeout=timeout,
        wait=limits.wait,
        _binding=FreeArguments(_prefix(profile), limits.max_timeout),
        _arguments=Arguments(schema),
    )


def _typed(tool: TypedTool, profile: Profile, timeout: float, wait: float) -> CommandTool:
    properties = {parameter.name: parameter.schema for parameter in tool.parameters}
    schema = schemas.typed(properties, [parameter.name for parameter in tool.parameters if parameter.required])
    return CommandTool(
        name=tool.name,
        title=tool.title,
        description=schemas.typed_description(tool.description, profile, timeout),
        input_schema=schema,
        annotations=_annotations(profile, read_only=tool.read_only),
        profile=profile,
        timeout=timeout,
        wait=wait,
        _binding=FilledTemplate(_prefix(profile), tool.template, tool.stdin, tool.parameters),
        _arguments=Arguments(schema),
    )


def _prefix(profile: Profile) -> tuple[str, ...]:
    """What stands before a call's arguments in the text that policy rules read."""
    entrypoint = (profile.name,) if profile.entrypoint is None else profile.entrypoint
    return entrypoint + (profile.command or ())


def _annotations(profile: Profile, *, read_only: bool = False) -> ToolAnnotations:
    """A tool that only reads destroys nothing, and twice is as good as once."""
    return ToolAnnotations(
        read_only=read_only, destructive=not read_only, idempotent=read_only, open_world=profile.network != "none"
    )
