"""`taskcell volume`"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.columns import echo_columns
from taskcell.cli.command import command
from taskcell.errors import TaskcellError
from taskcell.model import LOCAL_PRINCIPAL
from taskcell.units import format_size

if TYPE_CHECKING:
    from taskcell.engine.base import ListedVolume

_HEADS = ("NAME", "PRINCIPAL", "SIZE", "SANDBOXES", "ID")


def register(app: typer.Typer) -> None:
    volumes = typer.Typer(help="Named volumes, which tasks share.", no_args_is_help=True, rich_markup_mode=None)
    command(volumes, name="list", example="taskcell volume list --json", takes_folder=True)(list_volumes)
    command(volumes, name="rm", example="taskcell volume rm pip-cache", takes_folder=True)(remove)
    app.add_typer(volumes, name="volume")


def list_volumes(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> None:
    """List the deployment's named volumes, how large each is and how many sandboxes mount it.

    Of whose it is, only the person's own is known: the engine has no principal's name.
    """
    import anyio

    found = anyio.run(_work, run, (), False)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    if not found:
        typer.echo("No named volumes: `volumes` of a profile makes them at its first sandbox.")
        return
    echo_columns(_HEADS, [_row(one) for one in found])


def remove(
    run: Invocation,
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Volumes to delete: each principal's, or one by its ID.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every named volume of the deployment.")] = False,
) -> None:
    """Delete named volumes with what is in them. The next sandbox that needs one makes it anew, empty."""
    import anyio

    wanted = set(names or ())
    if bool(wanted) == everything:
        raise typer.BadParameter("Name volumes, or give --all.")
    chosen = anyio.run(_work, run, wanted, everything)
    typer.echo(f"{len(chosen)} volume{'' if len(chosen) == 1 else 's'} deleted.")
    missing = sorted(wanted - {one.name for one in chosen} - {one.id for one in chosen})
    if missing:
        raise TaskcellError(f"No volume {', '.join(map(repr, missing))}; `taskcell volume list` shows them.")


async def _work(run: Invocation, wanted: Collection[str], everything: bool) -> Sequence[ListedVolume]:
    """Return the deployment's volumes, or delete those that are wanted and return them.

    Raises TaskcellError, and has deleted none then, where a sandbox mounts one of them.
    """
    from taskcell.assembly import stack

    settings = stack.load_settings(run)
    async with stack.opened_engine(run, settings) as engine:
        found = await engine.shared_volumes(settings.deployment_id)
        if not wanted and not everything:
            return found
        chosen = [one for one in found if everything or one.name in wanted or one.id in wanted]
        if mounted := sorted({one.name for one in chosen if one.containers}):
            names = ", ".join(map(repr, mounted))
            raise TaskcellError(
                f"Sandboxes mount {names}; close them first (`taskcell ps` lists them, `taskcell rm --all` closes all)."
            )
        for one in chosen:
            await engine.remove_workspace(one.id)
        return chosen


def _row(one: ListedVolume) -> tuple[str, ...]:
    size = "?" if one.size is None else format_size(max(1, one.size >> 10) << 10)
    sandboxes = "?" if one.containers is None else str(one.containers)
    return one.name, LOCAL_PRINCIPAL if one.is_local else "another", size, sandboxes, one.id
