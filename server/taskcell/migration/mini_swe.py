"""Move the section `environment` of a mini-swe-agent configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskcell.migration.container import move_options, pass_on, set_variables
from taskcell.migration.moved import Moved, Mover, as_seconds, move_all, texts
from taskcell.units import parse_duration


def migrate(config: Mapping[str, Any]) -> Moved:
    """Return the configuration that gives commands what the environment gave them."""
    moved = Moved()
    table = config.get("environment")
    move_all(table if isinstance(table, dict) else {}, "environment.", _MOVERS, moved)
    if "image" not in moved.settings.get("terminal", {}):
        moved.changed("environment.image", "is not in the file: the default image is used; write terminal.image")
    for section in config:
        if section != "environment":
            moved.lost(str(section), "is not about the sandbox of commands; mini-swe-agent keeps it")
    return moved


def _terminal(moved: Moved) -> dict[str, Any]:
    return moved.settings.setdefault("terminal", {})


def _class(key: str, value: Any, moved: Moved) -> None:
    if value in ("docker", "singularity", "podman"):
        moved.kept(key, "every command runs in a container")
    else:
        moved.changed(key, f"commands run in a container of taskcell's, and not by '{value}'")


def _image(key: str, value: Any, moved: Moved) -> None:
    moved.set("terminal", "image", str(value))
    moved.kept(key, "terminal.image")


def _cwd(key: str, value: Any, moved: Moved) -> None:
    path = str(value)
    if not path.startswith("/"):
        moved.changed(key, "a task begins in /workspace: a server may be started in any folder")
        return
    moved.set("terminal", "working_dir", path)
    if path != "/workspace":
        moved.set("terminal", "read_only", False)
        what = "terminal.working_dir, with read_only = false; commands are not root, so the image's user must own it"
        moved.changed(key, what)
    else:
        moved.kept(key, "terminal.working_dir")


def _timeout(key: str, value: Any, moved: Moved) -> None:
    moved.set("terminal", "timeout", as_seconds(value))
    moved.kept(key, "terminal.timeout")


def _shell(key: str, value: Any, moved: Moved) -> None:
    moved.set("terminal", "shell", texts(value))
    moved.kept(key, "terminal.shell")


def _life(key: str, value: Any, moved: Moved) -> None:
    parse_duration(value)
    moved.set("pool", "idle_ttl", value)
    moved.changed(key, "pool.idle_ttl: counts from the end of the last command, and never ends one that runs")


def _executable(key: str, value: Any, moved: Moved) -> None:
    if value == "docker":
        moved.kept(key, "the engine that docker finds")
    else:
        moved.changed(key, "name the engine's socket in engine.host, or in DOCKER_HOST")


_MOVERS: dict[str, Mover] = {
    "environment_class": _class,
    "image": _image,
    "cwd": _cwd,
    "timeout": _timeout,
    "interpreter": _shell,
    "container_timeout": _life,
    "executable": _executable,
    "env": lambda key, value, moved: set_variables(key, dict(value), _terminal(moved), moved),
    "forward_env": lambda key, value, moved: pass_on(key, texts(value), _terminal(moved), moved),
    "run_args": lambda key, value, moved: move_options(key, texts(value), _terminal(moved), moved),
    "pull_timeout": lambda key, value, moved: moved.kept(key, "a pull goes on as long as it makes progress"),
}
