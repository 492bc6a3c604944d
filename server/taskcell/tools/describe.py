"""Sentences and schema properties that several tools share."""

from __future__ import annotations

from typing import Any

from taskcell.images.skills import programs_in
from taskcell.model import WORKSPACE, Profile, Status
from taskcell.schema.properties import object_schema, or_null, plain_number, value_schema
from taskcell.units import format_seconds, format_size

NOT_NEGATIVE = {"minimum": 0}
NOTES = {"type": "array", "items": {"type": "string"}, "description": "Remarks that the caller should read."}

RUN = {
    "status": value_schema("string", "How the command ended, or running.", enum=[status.value for status in Status]),
    "exit_code": or_null("integer", "124: timed out. 130: cancelled. 137: out of memory or killed."),
    "signal": or_null("string", "Signal that ended the command."),
    "stdout": value_schema("string", "Output; the terminal's includes stderr."),
    "stderr": value_schema("string", "A skill's stderr; empty for the terminal."),
    "truncated": value_schema("boolean", "Whether the middle of the output was cut out."),
    "omitted_bytes": value_schema("integer", "Bytes of output that were cut out.", **NOT_NEGATIVE),
    "duration_ms": value_schema("integer", "Milliseconds that the command has run.", **NOT_NEGATIVE),
    "task_id": value_schema("string", "The task whose sandbox ran the command."),
    "process_id": value_schema("string", "Name of the command's process, for `process`."),
    "workdir": value_schema("string", "Where the task's next command starts."),
    "survivors": or_null("integer", "Processes that survived a kill; null: unknown."),
    "notes": NOTES,
}
_CURSORS = {
    "cursor": value_schema("integer", "Where to continue reading the output with `process`.", **NOT_NEGATIVE),
    "stderr_cursor": value_schema("integer", "The same for a skill's stderr.", **NOT_NEGATIVE),
}
#: The output schema of tools that run a program. A command that is still running has cursors.
RUN_SCHEMA = object_schema({**RUN, **_CURSORS}, required=list(RUN))


_TIMEOUT = "Seconds until the command and all it started are killed; output so far is kept."


def timeout_property(default: float) -> dict[str, Any]:
    """Return the schema of the argument `timeout`. `default` in seconds.

    It has no maximum: what is more is cut to it, and not refused.
    """
    return {"type": "number", "minimum": 0, "default": plain_number(default), "description": _TIMEOUT}


def open_timeout_property(default: float) -> dict[str, Any]:
    """Return the same for a command that can run in the background, where no time-out is the default.

    The schema has no default: a client that sends every default would end what is to go on.
    """
    said = f"{_TIMEOUT} Default {plain_number(default)}; with `background` none."
    return {"type": "number", "minimum": 0, "description": said}


def shared_files(profile: Profile, others: str) -> str:
    """Say where the task's files are and which other tools share them."""
    here = [mount.target for mount in profile.mounts if mount.is_workspace]
    also = f" (also at {', '.join(here)})" if here else ""
    if profile.folder is not None:
        return (
            f"{WORKSPACE}{also} is a folder of the user's machine; {others} work on it too. What changes there stays."
        )
    return f"Files in {WORKSPACE}{also} are shared with {others} of the task."


def limits_of(profile: Profile) -> str:
    """Say which network and how much memory a command has."""
    network = "No network." if profile.network == "none" else f"Network: '{profile.network}'."
    return f"{network} Memory: {format_size(profile.memory)}." if profile.memory else network


def user_of(profile: Profile) -> str:
    """Say whom a command runs as, and where its home is."""
    user = profile.user.partition(":")[0]
    home = dict(profile.environment).get("HOME", WORKSPACE)
    sudo = "with" if profile.sudo else "without"
    return f"Runs as {'uid ' if user.isdigit() else ''}{user} {sudo} sudo; HOME is {home}."


def places_of(profile: Profile) -> str:
    """Say where a command can write, and what is mounted beside the workspace."""
    hosts = [mount for mount in profile.mounts if not mount.is_workspace]
    open_to_all = [tmpfs.target for tmpfs in profile.tmpfs if tmpfs.mode & 0o002]
    places = [
        *([] if profile.is_reader else [WORKSPACE]),
        *open_to_all,
        *(mount.target for mount in hosts if not mount.read_only),
    ]
    kept = f"Writable: {', '.join(places)}." if profile.read_only else f"Files outside {WORKSPACE} go with the sandbox."
    fixed = [*([WORKSPACE] if profile.is_reader else []), *(mount.target for mount in hosts if mount.read_only)]
    return f"{kept} Read-only: {', '.join(fixed)}." if fixed else kept


def cores_of(profile: Profile) -> str:
    """Say how much of the processor a command has; nothing if that is unbounded."""
    return "" if profile.cpus is None else f"CPUs: {plain_number(profile.cpus)}."


def facts(profile: Profile) -> str:
    """Say what a model must know of a terminal: its user, places, limits and programs."""
    programs = programs_in(profile.image)
    folder = profile.working_dir not in (None, WORKSPACE)
    said = (
        user_of(profile),
        f"Commands start in {profile.working_dir}." if folder else "",
        places_of(profile),
        limits_of(profile),
        cores_of(profile),
        programs and f"Programs: {programs}.",
    )
    return " ".join(filter(None, said))


def skill_facts(profile: Profile, timeout: float | None = None) -> str:
    """Say what a model must know of every skill's tool: its files and its limits. What goes on for long says so itself.

    Arguments:
        timeout: seconds until the command is killed; None for tools with an argument of this name.
    """
    here = [mount.target for mount in profile.mounts if mount.is_workspace]
    also = f" (also at {', '.join(here)})" if here else ""
    is_there = profile.working_dir in (None, WORKSPACE)
    files = f"{'Paths begin at' if is_there else 'It works on'} the task's {WORKSPACE}{also}."
    killed = "" if timeout is None else f" Killed after {format_seconds(timeout)} s."
    return f"{files} {limits_of(profile)}{killed}"
