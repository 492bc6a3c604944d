"""The tools of skills: one free-form tool, or the typed tools that the manifest declares."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from taskcell.config.settings import LimitSettings, Settings
from taskcell.images.skills import CATALOG, WRITE_OUTPUT
from taskcell.model import WORKSPACE, Command, Profile
from taskcell.profile.build import skill_profile
from taskcell.schema.arguments import encoded
from taskcell.schema.forms import EMPTY_COUNTS
from taskcell.schema.properties import MAX_ARGS, STDIN, TASK_ID, object_schema
from taskcell.skills.manifest import Skill
from taskcell.skills.parameters import Parameter
from taskcell.skills.template import Template
from taskcell.skills.typed_tool import TypedTool
from taskcell.tools.binding import ProgramTool, check_sizes, program_hints, stdin_of, timeout_of, workdir_of
from taskcell.tools.describe import RUN_SCHEMA, skill_facts, timeout_property


def skill_tools(skill: Skill, settings: Settings) -> Iterator[ProgramTool]:
    """Create the tools of one skill."""
    profile, limits = skill_profile(skill, settings), settings.limits
    timeout = min(limits.timeout if skill.docker.timeout is None else skill.docker.timeout, limits.max_timeout)
    if skill.tools:
        yield from (_typed(tool, profile, timeout, limits.wait) for tool in skill.tools)
    else:
        yield _free_form(skill, profile, timeout, limits)


def _free_form(skill: Skill, profile: Profile, timeout: float, limits: LimitSettings) -> ProgramTool:
    return ProgramTool(
        name=skill.name,
        title=skill.name,
        description=f"{skill.description} {skill_facts(profile)}",
        input_schema=_free_form_schema(profile, timeout),
        output_schema=RUN_SCHEMA,
        annotations=program_hints(profile),
        profile=profile,
        programs=declared_programs(skill.name, profile),
        timeout=timeout,
        wait=limits.wait,
        binding=FreeArguments(_prefix(profile), limits.max_timeout),
    )


def _typed(tool: TypedTool, profile: Profile, timeout: float, wait: float) -> ProgramTool:
    properties = {parameter.name: dict(parameter.schema) for parameter in tool.parameters}
    if tool.stdin:
        properties[tool.stdin][EMPTY_COUNTS] = True
    required = [parameter.name for parameter in tool.parameters if parameter.required]
    return ProgramTool(
        name=tool.name,
        title=tool.title,
        description=f"{tool.description} {skill_facts(profile, timeout)}",
        input_schema=object_schema({**properties, "task_id": TASK_ID}, required),
        output_schema=RUN_SCHEMA,
        annotations=program_hints(profile, read_only=tool.read_only),
        profile=profile,
        programs=declared_programs(profile.name, profile, tool.template),
        timeout=timeout,
        wait=wait,
        binding=FilledTemplate(_prefix(profile), tool.template, tool.stdin, tool.parameters),
    )


def declared_programs(skill: str, profile: Profile, template: Template | None = None) -> frozenset[str]:
    """Return the programs and Python modules that the image of a skill's tool must have, by what is declared of it."""
    words = [*(profile.entrypoint or ()), *(profile.command or ())]
    if profile.entrypoint is None and template is None:
        words = [skill]
    elif not words and template is not None:
        words = [
            element.parts[0] for element in template.elements if element.parts and isinstance(element.parts[0], str)
        ]
        words = words[1:] if words[:1] == [WRITE_OUTPUT] else words
    built = next((image for image in CATALOG.values() if image.reference == profile.image), None)
    modules = built.modules if built is not None else ()
    return frozenset((*(posixpath.basename(word) for word in words[:1]), *modules))


def _prefix(profile: Profile) -> tuple[str, ...]:
    """Return the words that precede a call's arguments in the text that policy rules read."""
    entrypoint = (profile.name,) if profile.entrypoint is None else profile.entrypoint
    return entrypoint + (profile.command or ())


def _free_form_schema(profile: Profile, timeout: float) -> dict[str, Any]:
    """Return the input schema of a free-form tool. `timeout` in seconds."""
    return object_schema(
        {
            "args": {
                "type": "array",
                "maxItems": MAX_ARGS,
                "items": {"type": "string", "description": "One argument."},
                "default": [],
                "description": "Arguments, one per element. No shell reads them: do not quote.",
            },
            "task_id": TASK_ID,
            "workdir": {
                "type": "string",
                "minLength": 1,
                "description": f"Default: {profile.working_dir or WORKSPACE}.",
            },
            "timeout": timeout_property(timeout),
            "stdin": STDIN,
        },
        [],
    )


@dataclass(frozen=True, slots=True)
class FreeArguments:
    """Passes `args` unchanged to the program of a skill without typed tools.

    Arguments:
        prefix: the words that precede them in the text that policy rules read.
        max_timeout: seconds.
    """

    prefix: tuple[str, ...]
    max_timeout: float

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        words = tuple(values.get("args", ()))
        for index, word in enumerate(words):
            encoded(f"args[{index}]", word)
        check_sizes(((f"args[{index}]", word) for index, word in enumerate(words)), "'args' are")
        timeout, notes = timeout_of(values, blank.timeout, self.max_timeout)
        return replace(
            blank,
            argv=words,
            text=shlex.join((*self.prefix, *words)),
            stdin=stdin_of("stdin", values.get("stdin")),
            workdir=workdir_of(values),
            timeout=timeout,
            notes=notes,
        )


@dataclass(frozen=True, slots=True)
class FilledTemplate:
    """Fills a typed tool's template with the arguments.

    Arguments:
        prefix: the words that precede the arguments in the text that policy rules read.
        stdin: the parameter whose value becomes the standard input; empty if there is none.
    """

    prefix: tuple[str, ...]
    template: Template
    stdin: str
    parameters: tuple[Parameter, ...]

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        given = {parameter.name: values.get(parameter.name, parameter.default) for parameter in self.parameters}
        used = self.template.names
        words = {
            parameter.name: parameter.words(given[parameter.name])
            for parameter in self.parameters
            if parameter.name in used and given[parameter.name] is not None
        }
        guarded = {parameter.name for parameter in self.parameters if parameter.guarded}
        filled = list(self.template.fill(words, guarded))
        check_sizes(filled, "The arguments are")
        argv = tuple(word for _, word in filled)
        text = shlex.join((*self.prefix, *argv))
        if not self.stdin:
            return replace(blank, argv=argv, text=text)
        # The text on stdin may be the program itself, such as a script: rules must see it.
        given_text = given[self.stdin]
        shown_too = "" if given_text is None else f"\n{given_text}"
        return replace(blank, argv=argv, text=text + shown_too, stdin=stdin_of(self.stdin, given_text))
