"""Move a line of `docker run`: it becomes a skill."""

from __future__ import annotations

import re
import shlex
from typing import Any

from taskcell.errors import ConfigError
from taskcell.migration.container import move_options
from taskcell.migration.moved import Moved
from taskcell.profile.docker_flags import split
from taskcell.skills.mcp_server import mcp_server_faults

#: What may be before the options: `sudo docker container run`.
_BEFORE = frozenset({"sudo", "docker", "podman", "container", "run", "$"})


def migrate(line: str, name: str = "") -> Moved:
    """Return a manifest with the skill that the line is.

    Arguments:
        name: of the skill; empty: from the image's.

    Raises:
        ConfigError: the line has no image, cannot be split into words, or starts an MCP server.
    """
    try:
        words = shlex.split(line.replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError(f"The line cannot be split into words ({error}); close its quotes.") from None
    while words and words[0] in _BEFORE:
        words = words[1:]
    options, rest = split(words)
    if not rest:
        raise ConfigError("The line names no image; write it as in 'docker run --rm -v $(pwd):/w alpine ls /w'.")
    image, command = rest[0], rest[1:]
    found = next(mcp_server_faults(image, None, command, options), None)
    if found is not None:
        raise ConfigError(f"{found.sentence}.")
    docker: dict[str, Any] = {"image": image}
    moved = Moved()
    moved.kept(image, "docker.image")
    if command:
        docker["command"] = command
        moved.kept(shlex.join(command), "docker.command: a call's arguments come after it")
    move_options("", options, docker, moved)
    name = name or _name(image)
    moved.manifest = f"{name}.toml"
    moved.skills = {name: {"description": f"Run the image {image}.", "docker": docker}}
    return moved


def _name(image: str) -> str:
    last = re.sub(r"[:@].*$", "", image.rpartition("/")[2])
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", last)[:64] or "skill"
