"""`taskcell ps`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.columns import echo_columns
from taskcell.cli.command import command
from taskcell.units import format_size

if TYPE_CHECKING:
    from taskcell.deployment.sandboxes import Deployed

_HEADS = ("TASK", "PRINCIPAL", "PROFILE", "CONTAINER", "STATE", "AGE", "IDLE", "PROCESSES", "MEMORY", "ENDS", "LABELS")


def register(app: typer.Typer) -> None:
    command(app, example="taskcell ps --json", takes_folder=True)(ps)


def ps(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> None:
    """List the sandboxes of all servers of the deployment, and what each is doing.

    PROCESSES counts the commands of which something runs, as the servers wrote it down in the last second. ENDS is the
    rest of a task's lifetime, if a program gave it one.
    """
    import anyio

    found = anyio.run(_find, run)
    if as_json:
        typer.echo(json.dumps([one.structured() for one in found], indent=2))
        return
    if not found:
        typer.echo("No sandboxes: the next call of a tool makes one.")
        return
    echo_columns(_HEADS, [_row(one) for one in found])


async def _find(run: Invocation) -> Sequence[Deployed]:
    """From the engine and the servers' records, and not through their doors: the sandboxes of servers that have died
    or hang are listed too, and what the records say is at most a second old."""
    from taskcell.assembly import stack
    from taskcell.deployment.sandboxes import find_deployed

    settings = stack.load_settings(run)
    async with stack.opened_engine(run, settings) as engine:
        deployment = stack.deployment_of(run, settings)
        try:
            return await find_deployed(engine, deployment, settings.deployment_id)
        finally:
            await deployment.leave(keep=True)


def _row(one: Deployed) -> tuple[str, ...]:
    shown = one.structured()
    memory = "?" if one.memory_bytes is None else _rounded(one.memory_bytes)
    left = one.opening.seconds_left
    return (
        _plain(str(shown["task"])) or "-",
        _plain(str(shown["principal"])) or "-",
        one.profile,
        one.container,
        one.state,
        f"{one.age_s:.0f} s",
        f"{one.idle_s:.0f} s",
        str(shown["processes"]),
        memory,
        "-" if left is None else f"in {left:.0f} s",
        _plain(",".join(f"{name}={value}" for name, value in one.opening.labels.items())) or "-",
    )


def _rounded(size: int) -> str:
    """The size in whole MiB, or in whole KiB below one MiB."""
    bits = 20 if size >> 20 else 10
    return format_size(size >> bits << bits)


def _plain(text: str) -> str:
    """The text without control characters: a client chose the name, and the terminal must not obey it."""
    return "".join(character if character.isprintable() else "?" for character in text)
