"""Every tool of a server: taskcell's own, which this module finds in its package, and those of skills."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable, Mapping
from importlib import import_module

from taskcell import tools as package
from taskcell.config.settings import Settings
from taskcell.errors import ConfigError
from taskcell.model import Profile
from taskcell.schema.arguments import nearest
from taskcell.skills.manifest import Skill
from taskcell.tools.skill import skill_tools
from taskcell.tools.tool import BuiltIn, Tool

#: What makes a rule's `tool` a pattern (fnmatch), which may match nothing yet.
_WILDCARD = re.compile(r"[*?\[]")


def built_in() -> list[BuiltIn]:
    """taskcell's own tools: the `BUILT_IN` of every module of this package that has one, by rank."""
    modules = (import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__))
    declared = [module.BUILT_IN for module in modules if hasattr(module, "BUILT_IN")]
    return sorted(declared, key=lambda tools: (tools.rank, tools.names))


def built_in_names() -> frozenset[str]:
    """The names of taskcell's own tools, which no skill may take."""
    return frozenset(name for tools in built_in() for name in tools.names)


def build_tools(settings: Settings, skills: Iterable[Skill]) -> dict[str, Tool]:
    """Every tool by name, in the order of `tools/list`: taskcell's own, then those of skills by name.

    Raises ConfigError.
    """
    own = [tool for tools in built_in() for tool in tools.make(settings)]
    of_skills = [tool for skill in skills for tool in skill_tools(skill, settings)]
    tools = {tool.name: tool for tool in (*own, *sorted(of_skills, key=lambda tool: tool.name))}
    _check_rules(settings, tools)
    return tools


def profiles(tools: Mapping[str, Tool]) -> dict[str, Profile]:
    """The profiles of the sandboxes that these tools' calls run in, by name."""
    return {tool.profile.name: tool.profile for tool in tools.values() if tool.profile is not None}


def _check_rules(settings: Settings, tools: Mapping[str, Tool]) -> None:
    """A rule about a tool that is not there would never decide anything: a mistyped name must not go unnoticed."""
    names = {*tools, *profiles(tools)}
    for rule in settings.policy.rules:
        if not _WILDCARD.search(rule.tool) and rule.tool not in names:
            raise ConfigError(
                f"The policy's rule '{rule.name}' is about the tool '{rule.tool}', which neither the server nor a "
                f"manifest has{nearest(rule.tool, names)}; correct its 'tool', or use a pattern such as '*'."
            )
