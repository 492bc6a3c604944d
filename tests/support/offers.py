"""The tools that taskcell has: as a new installation has them, and what configurations make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skill_task import MANIFESTS
from taskcell.config.settings import Settings
from taskcell.skills import manifest
from taskcell.tools.catalog import build_tools, built_in_names
from taskcell.tools.tool import Tool

#: Three environments, and images that a task may choose itself.
ENVIRONMENTS: Mapping[str, Any] = {
    "environments": {"swe": {"image": "swe:1"}, "node": {"image": "node:22"}, "go": {"image": "golang:1.25"}},
    "policy": {"task_images": ["swebench/*"]},
}
#: What else changes which arguments a tool has, or what it says.
CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    "environments": ENVIRONMENTS,
    "files on disk": {"workspace": {"persistent": True}},
    "files on disk, environments": {"workspace": {"persistent": True}, **ENVIRONMENTS},
    "another terminal": {"terminal": {"image": "golang:1.25", "user": "1234"}},
}


def shipped(configuration: Mapping[str, Any] | None = None) -> dict[str, Tool]:
    """All tools with the shipped skills: as a new installation has them, or as a configuration makes them."""
    settings = Settings.model_validate(configuration or {})
    return build_tools(settings, manifest.load([MANIFESTS], {}, built_in_names()))


def every_offer() -> dict[str, Tool]:
    """The tools of a new installation by name, and those that a configuration changes, by name and configuration."""
    tools = shipped()
    return tools | {
        f"{name}, {title}": tool
        for title, configuration in CONFIGURATIONS.items()
        for name, tool in shipped(configuration).items()
        if tool.input_schema != tools[name].input_schema or tool.description != tools[name].description
    }
