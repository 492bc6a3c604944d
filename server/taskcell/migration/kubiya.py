"""Move a manifest of the skill engine. It also loads as it is; moved, it runs, and says what it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from taskcell.config.toml_source import dotted
from taskcell.migration.container import add_volume
from taskcell.migration.moved import Moved
from taskcell.skills.forerunner import translate


def migrate(data: Mapping[str, Any], name: str) -> Moved:
    """Return a manifest that says the same, as far as it can be said.

    Arguments:
        data: the parsed file.
        name: of the new file.
    """
    translated = translate(data)
    moved = Moved(manifest=name)
    for skill, reason in translated.left_out.items():
        moved.lost(dotted(("skills", skill)), reason.sentence)
    for note in translated.notes:
        moved.lost(dotted(note.key), note.sentence)
    defaults = translated.data.get("defaults")
    shared = defaults.get("environment", []) if isinstance(defaults, dict) else []
    tables = translated.data.get("skills")
    for skill, table in tables.items() if isinstance(tables, dict) else ():
        if isinstance(table, dict):
            moved.skills[skill] = _skill(skill, table, shared, moved)
            moved.kept(dotted(("skills", skill)), "the skill, with every key that is not named here")
    return moved


def _skill(name: str, table: Mapping[str, Any], shared: list[str], moved: Moved) -> dict[str, Any]:
    own = dict(table)
    own.pop("runtime", None)
    docker = _docker(f"skills.{name}.docker", dict(own.get("docker", {})), moved)
    docker["environment"] = [*shared, *docker.get("environment", [])]
    if not docker["environment"]:
        del docker["environment"]
    own["docker"] = docker
    for key, what in _defaults(docker):
        moved.changed(f"skills.{name}.docker.{key}", what)
    return own


def _docker(key: str, docker: dict[str, Any], moved: Moved) -> dict[str, Any]:
    volumes = docker.pop("volumes", [])
    for volume in volumes if isinstance(volumes, list) else ():
        add_volume(f"{key}.volumes {volume}", str(volume), docker, moved)
    gpus = docker.get("gpus")
    if isinstance(gpus, str) and re.fullmatch(r"\d+(?:,\d+)*", gpus) and ("," in gpus or gpus == "0"):
        docker["gpus"] = f"device={gpus}"
        moved.changed(f"{key}.gpus", "as 'device=…': a number alone is a count")
    return docker


def _defaults(docker: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is otherwise here where the table does not say."""
    if "read_only" not in docker:
        yield "read_only", "true if left out; write false where the program writes outside /workspace and /tmp"
    if "user" not in docker:
        yield "user", "an unprivileged one if left out, and not root"
    if "memory" not in docker:
        yield "memory", "2 GiB if left out, and not all of the machine's"
