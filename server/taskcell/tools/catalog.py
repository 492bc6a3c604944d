"""All tools of a server: taskcell's own, which are found in this package, and those of skills."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from importlib import import_module

from taskcell import tools as package
from taskcell.config.settings import Settings, ToolsSettings
from taskcell.errors import ConfigError
from taskcell.model import Profile
from taskcell.schema.arguments import nearest
from taskcell.skills.manifest import LeftOut, Skill
from taskcell.tools.skill import skill_tools
from taskcell.tools.tool import BuiltIn, Tool

#: Characters that make a rule's `tool` a pattern (fnmatch). A pattern may match no tool yet.
_WILDCARD = re.compile(r"[*?\[]")
#: What the policy's rules call a person's connections to ports of sandboxes. Their command is the port's number.
PORTS = "ports"


def built_in() -> list[BuiltIn]:
    """Return the `BUILT_IN` of each module of this package that has one, by rank."""
    modules = (import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__))
    declared = [module.BUILT_IN for module in modules if hasattr(module, "BUILT_IN")]
    return sorted(declared, key=lambda tools: (tools.rank, tools.names))


def built_in_names() -> frozenset[str]:
    """Return the names of taskcell's own tools."""
    return frozenset(name for tools in built_in() for name in tools.names)


def reserved_names() -> frozenset[str]:
    """Return the names that no skill may take: those of taskcell's own tools, and what rules call ports."""
    return built_in_names() | {PORTS}


def build_tools(settings: Settings, skills: Iterable[Skill], left_out: Iterable[LeftOut] = ()) -> dict[str, Tool]:
    """Create all tools, in the order of `tools/list`: taskcell's own by rank, then those of skills by name.

    Arguments:
        left_out: skills whose tools are not made, but may be named in the configuration.

    Raises:
        ConfigError: a policy rule, or `[tools]`, names a tool that does not exist.
    """
    own = [tool for tools in built_in() for tool in tools.make(settings)]
    of_skills = [tool for skill in skills for tool in skill_tools(skill, settings)]
    tools = {tool.name: tool for tool in (*own, *sorted(of_skills, key=lambda tool: tool.name))}
    absent = {name for skill in left_out for name in (skill.name, *skill.tool_names)}
    known = {*tools, *profiles(tools), *absent}
    _check_rules(settings, {PORTS, *known})
    _check_selection(settings.tools, known)
    return tools


def terminal_tools(settings: Settings) -> dict[str, Tool]:
    """Create the tools that depend on the terminal's profile, by name: the terminal, the file tools and `process`."""
    own = [tool for tools in built_in() for tool in tools.make(settings)]
    return {tool.name: tool for tool in own if tool.is_of_terminal}


def profiles(tools: Mapping[str, Tool]) -> dict[str, Profile]:
    """Return the profiles of these tools by the profiles' names."""
    return {tool.profile.name: tool.profile for tool in tools.values() if tool.profile is not None}


def _check_rules(settings: Settings, names: Collection[str]) -> None:
    """Raise ConfigError if a rule names a tool that does not exist: a mistyped rule would never match."""
    for rule in settings.policy.rules:
        if not _WILDCARD.search(rule.tool) and rule.tool not in names:
            raise ConfigError(
                f"The policy's rule '{rule.name}' is about the tool '{rule.tool}', which does not exist"
                f"{nearest(rule.tool, names)}; correct its 'tool', or use a pattern such as '*'."
            )


def _check_selection(selection: ToolsSettings, names: Collection[str]) -> None:
    """Raise ConfigError if `[tools]` names a tool that does not exist: a mistyped name would hide nothing."""
    for key in ("only", "hide"):
        for name in getattr(selection, key):
            if not _WILDCARD.search(name) and name not in names:
                raise ConfigError(
                    f"tools.{key} names the tool '{name}', which does not exist{nearest(name, names)}; correct it, or "
                    "use a pattern such as 'ffmpeg_*'."
                )


def is_selected(selection: ToolsSettings, tool: Tool) -> bool:
    """Whether `[tools]` lets clients see and call a tool. A pattern matches a tool's name, or that of its skill."""
    names = {tool.name}
    if tool.profile is not None and tool.profile.kind == "skill":
        names.add(tool.profile.name)

    def matches(patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    return (not selection.only or matches(selection.only)) and not matches(selection.hide)
