"""Check the typed tools of a manifest, `[skills.NAME.tools.TOOL]`, each as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from taskcell.config.fields import Prose, Table, Word, faults, fully_visible
from taskcell.config.toml_source import Fault, suggestion
from taskcell.skills.parameters import Parameter, read_parameters
from taskcell.skills.template import Group, Template, parse_template

#: The names that MCP clients accept.
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: Characters. OpenAI refuses a tool, and with it the whole list, whose description has more than 1,024; taskcell adds
#: what every tool's says.
MAX_DESCRIPTION = 800
_STDIN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

#: Parameters by name; None for one that is declared and faulty, so that it causes no further faults.
Declared = Mapping[str, Parameter | None]


def check_description(value: str) -> str:
    """Return a description as it is. Raises ValueError if it says nothing, or more than every client takes."""
    if not value.strip():
        raise ValueError("must say in a sentence what this does: it is all that a model knows about it")
    if len(value) > MAX_DESCRIPTION:
        raise ValueError(f"is longer than {MAX_DESCRIPTION} characters, and some clients take no more; shorten it")
    return value


class ToolTable(Table):
    """A table `[skills.NAME.tools.TOOL]`; its template and its parameters are checked apart from it."""

    title: Annotated[Word, AfterValidator(fully_visible)] = ""
    description: Annotated[Prose, AfterValidator(check_description)]
    argv: Any = ()
    stdin: Word = ""
    read_only_hint: bool = False
    parameters: Any = Field(default={})


@dataclass(frozen=True, slots=True)
class TypedTool:
    """A typed tool without faults.

    Arguments:
        name: name of the MCP tool, `SKILL_TOOL`.
        stdin: name of the parameter whose value is the standard input; empty if there is none.
    """

    name: str
    title: str
    description: str
    template: Template
    stdin: str
    read_only: bool
    parameters: tuple[Parameter, ...]


def read_tools(skill: str, tables: object) -> tuple[tuple[TypedTool, ...], list[Fault]]:
    """Read a skill's `tools`. Returns them with every fault; the key of each begins at the skill's table."""
    if not isinstance(tables, dict):
        return (), [Fault(("tools",), "must be a table: [skills.NAME.tools.TOOL]")]
    tools, wrong = [], []
    for name, data in tables.items():
        tool, faulty = _read(skill, name, data)
        wrong += [Fault(("tools", name, *fault.key), fault.sentence) for fault in faulty]
        if tool is not None:
            tools.append(tool)
    return tuple(tools), wrong


def _read(skill: str, name: str, data: object) -> tuple[TypedTool | None, list[Fault]]:
    full = f"{skill}_{name}"
    wrong = []
    if not TOOL_NAME.fullmatch(name) or (TOOL_NAME.fullmatch(skill) and not TOOL_NAME.fullmatch(full)):
        wrong.append(Fault((), f"the tool's whole name, {full!r}, must be 1 to 64 letters, digits, '_' or '-'"))
    table = None
    try:
        table = ToolTable.model_validate(data)
    except ValidationError as error:
        wrong += faults(error, ToolTable)
    if not isinstance(data, dict):
        return None, wrong
    declared, faulty = read_parameters(data.get("parameters", {}))
    wrong += [Fault(("parameters", *fault.key), fault.sentence) for fault in faulty]
    template, faulty = parse_template(data.get("argv", ()))
    wrong += faulty
    stdin, faulty = _stdin(data.get("stdin", ""), declared)
    wrong += faulty
    # A template that could not be read may well use the parameters that seem to stand nowhere.
    wrong += _misuses(template, declared)
    if not any(fault.key[:1] == ("argv",) for fault in wrong):
        wrong += _unused(declared, template.names | {stdin})
    if table is None or wrong:
        return None, wrong
    parameters = tuple(parameter for parameter in declared.values() if parameter is not None)
    text, title = table.description.strip(), table.title or f"{skill} {name}"
    return TypedTool(full, title, text, template, stdin, table.read_only_hint, parameters), []


def _stdin(text: object, declared: Declared) -> tuple[str, list[Fault]]:
    """Return the parameter that is the standard input; empty if there is none."""
    if not isinstance(text, str) or not text:
        return "", []
    found = _STDIN.fullmatch(text)
    if found is None:
        return "", [Fault(("stdin",), "must be '{name}' of a parameter, or empty")]
    name = found[1]
    if name not in declared:
        return name, [_undeclared(("stdin",), name, declared)]
    parameter = declared[name]
    if parameter is not None and parameter.kind != "string":
        return name, [Fault(("stdin",), f"takes the text of a string, and '{name}' is of the type '{parameter.kind}'")]
    return name, []


def _undeclared(key: tuple[str | int, ...], name: str, declared: Declared) -> Fault:
    return Fault(key, f"names the parameter '{name}', which is not declared; {suggestion(name, declared)}")


def _misuses(template: Template, declared: Declared) -> Iterator[Fault]:
    """Report placeholders that cannot be where they are, and values that the program would read as options."""
    for item in template.items:
        if isinstance(item, Group):
            yield from _condition(item, declared)
        for element in item.elements if isinstance(item, Group) else (item,):
            for name in dict.fromkeys(element.names):
                if name not in declared:
                    yield _undeclared(element.key, name, declared)
                elif (parameter := declared[name]) is not None:
                    if not isinstance(item, Group) and not parameter.always:
                        way = 'put it into a group, ["{name}"], or give it a default'.replace("name", name)
                        yield Fault(element.key, f"needs '{name}', which a call may leave out: {way}")
                    if parameter.kind == "array" and not element.is_whole:
                        way = f"a list becomes one argument for each item, so '{{{name}}}' must stand alone"
                        yield Fault(element.key, way)
    leading = template.leading
    for name, parameter in declared.items():
        if parameter is None or name not in leading or not parameter.guarded:
            continue
        for key, value in parameter.fixed():
            if value.startswith("-"):
                way = "the program may read it as an option; if that is meant, say allow_dash = true"
                yield Fault(("parameters", name, *key), f"begins with '-' where it begins an argument: {way}")


def _condition(group: Group, declared: Declared) -> Iterator[Fault]:
    if group.condition is None:
        return
    key, parameter = (*group.key, 0), declared.get(group.condition)
    if group.condition not in declared:
        yield _undeclared(key, group.condition, declared)
    elif parameter is not None and parameter.kind != "boolean":
        way = f"a group with '{{{group.condition}}}' in it is left out when that is absent, without a condition"
        yield Fault(key, f"asks whether '{group.condition}' is true, and it is of the type '{parameter.kind}'; {way}")


def _unused(declared: Declared, used: frozenset[str] | set[str]) -> Iterator[Fault]:
    for name in declared:
        if name not in used:
            yield Fault(("parameters", name), f"is used nowhere; put '{{{name}}}' into argv or stdin, or leave it out")
