"""What the sources have in common: variables, volumes and options of `docker run`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from taskcell.config.fields import check_variable_name
from taskcell.config.volumes import NotAVolume
from taskcell.migration.moved import Moved, literal
from taskcell.model import WORKSPACE, Profile
from taskcell.policy.target_rules import is_needed
from taskcell.profile import extra_args
from taskcell.profile.docker_flags import parse

_FILES = "${SKILL_WORKDIR}"
#: The folder that the other program was started in: of its own, or below it.
_HERE = re.compile(r"(?:\.|\$PWD|\$\(pwd\)|`pwd`|\$\{PWD(?::[-?][^{}]*)?\}|\$\{cwd\})(?P<below>/[^:]*)?")
_SEPARATOR = re.compile(r":(?![^{}]*\})")
_TABLE = dict[str, Any]


def set_variables(key: str, values: Mapping[str, Any], table: _TABLE, moved: Moved) -> None:
    """Move a table of variables into `environment`."""
    for name, value in values.items():
        try:
            check_variable_name(str(name))
            text = literal(value)
        except (TypeError, ValueError) as error:
            moved.lost(f"{key}.{name}", f"{error}")
            continue
        if re.search(r"\$(?!\{[A-Za-z_]\w*(?::[-?][^{}]*)?\})[A-Za-z_({$]", text):
            moved.lost(f"{key}.{name}", "has a '$' that is not ${VAR}; write its value by hand")
            continue
        table.setdefault("environment", []).append(f"{name}={text}")
        moved.kept(f"{key}.{name}", "environment")


def pass_on(key: str, names: Sequence[str], table: _TABLE, moved: Moved) -> None:
    """Move names of the other program's own variables into `environment`."""
    for name in names:
        try:
            check_variable_name(name)
        except ValueError as error:
            moved.lost(f"{key}.{name}", f"{error}")
            continue
        table.setdefault("environment", []).append(f"{name}?=${{{name}}}")
        moved.kept(f"{key}.{name}", "environment, from the environment of the server, where it is set")


def add_volume(key: str, volume: str, table: _TABLE, moved: Moved) -> None:
    """Move a volume, written as for `docker run`."""
    source, *rest = _SEPARATOR.split(volume, 2)
    target = rest[0] if rest else ""
    options = rest[1] if len(rest) > 1 else ""
    suffix = ":ro" if "ro" in options.split(",") else ""
    if here := _HERE.fullmatch(source):
        below = (here["below"] or "").strip("/")
        what = "the task's files, in the place of the folder that docker was started in"
        if target == WORKSPACE:
            moved.changed(key, f"{what}: they are at {WORKSPACE} anyway")
            return
        if below:
            what += f"; '{below}' is not a folder of its own any more"
        source, say = _FILES, moved.changed
    elif not target or not source.startswith(("/", "~", "${")):
        moved.lost(key, str(NotAVolume(volume)))
        return
    else:
        what, say = f"volumes, at {target}", moved.kept
        if is_needed(target):
            target = f"/mnt/{PurePosixPath(source).name or 'host'}"
            what, say = f"volumes, at {target}: nothing can be mounted at {rest[0]}", moved.changed
    table.setdefault("volumes", []).append(f"{source}:{target}{suffix}")
    say(key, what + (f"; only 'ro' is kept of ':{options}'" if options.strip("ro,w") else ""))


def move_options(key: str, words: Sequence[str], table: _TABLE, moved: Moved) -> None:
    """Move options of `docker run`: into keys what has to be written otherwise, the rest into `extra_args`."""
    words = list(words)
    while words:
        taken = _first(words)
        _move_option(key, words[:taken], table, moved)
        words = words[taken:]


def _first(words: list[str]) -> int:
    """How many words the first option takes; 1 for what is not one."""
    return 2 if parse(words[:1])[1] and not parse(words[:2])[1] else 1


def _move_option(key: str, option: list[str], table: _TABLE, moved: Moved) -> None:
    given, refused = parse(option)
    name = f"{key} {option[0].partition('=')[0]}".strip()
    if refused:
        moved.lost(name, refused[0].reason.rstrip("."))
        return
    for one in given:
        if one.name == "volume":
            add_volume(f"{name} {one.value}", one.value, table, moved)
            return
        if one.name == "env":
            variable, equals, value = one.value.partition("=")
            if equals:
                set_variables(name, {variable: value}, table, moved)
            else:
                pass_on(name, [variable], table, moved)
            return
        if one.name == "user" and not re.fullmatch(r"[1-9]\d*(?::[1-9]\d*)?|(?!root)[a-z_][\w-]*", one.value):
            moved.lost(name, "no command runs as root, or as a user that only a shell finds out")
            return
    made = extra_args.apply(Profile("import", "image", "skill"), option, {})
    if made.refused:
        moved.lost(name, made.refused[0].reason.rstrip("."))
        return
    table.setdefault("extra_args", []).extend(option)
    moved.kept(name, "extra_args")
