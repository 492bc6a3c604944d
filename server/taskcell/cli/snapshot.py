"""`taskcell snapshot`"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.columns import echo_columns
from taskcell.cli.command import command
from taskcell.errors import TaskcellError
from taskcell.text import one_line
from taskcell.units import format_size

if TYPE_CHECKING:
    from taskcell.deployment.snapshots import Snapshot

_HEADS = ("NAME", "PRINCIPAL", "OF TASK", "MADE", "SIZE")


def register(app: typer.Typer) -> None:
    snapshots = typer.Typer(help="Snapshots of tasks' files.", no_args_is_help=True, rich_markup_mode=None)
    command(snapshots, name="list", example="taskcell snapshot list --json", takes_folder=True)(list_snapshots)
    command(snapshots, name="rm", example="taskcell snapshot rm before-the-refactoring", takes_folder=True)(remove)
    app.add_typer(snapshots, name="snapshot")


def list_snapshots(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> None:
    """List the deployment's snapshots, whoever made them."""
    found = _all(run)
    if as_json:
        typer.echo(json.dumps([_structured(one) for one in found], indent=2))
        return
    if not found:
        typer.echo("No snapshots: `sandbox` with the action 'snapshot' makes one.")
        return
    echo_columns(_HEADS, [_row(one) for one in found])


def remove(
    run: Invocation,
    *,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Snapshots to delete.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every snapshot of the deployment.")] = False,
    principal: Annotated[str | None, typer.Option(help="Only those of this principal.")] = None,
) -> None:
    """Delete snapshots. Tasks that were made from them keep their files."""
    wanted = set(names or ())
    if bool(wanted) == everything:
        raise typer.BadParameter("Name snapshots, or give --all.")
    chosen = [
        one for one in _all(run) if principal in (None, one.head.principal) and (everything or one.head.name in wanted)
    ]
    for one in chosen:
        one.path.unlink(missing_ok=True)
    typer.echo(f"{len(chosen)} snapshot{'' if len(chosen) == 1 else 's'} deleted.")
    missing = sorted(wanted - {one.head.name for one in chosen})
    if missing:
        raise TaskcellError(f"No snapshot {', '.join(map(repr, missing))}; `taskcell snapshot list` shows them.")


def _all(run: Invocation) -> Sequence[Snapshot]:
    from taskcell.assembly import stack
    from taskcell.deployment.snapshots import all_snapshots

    return all_snapshots(stack.archive_folder(run, stack.load_settings(run)))


def _structured(one: Snapshot) -> dict[str, object]:
    head = one.head
    return {"name": head.name, "principal": head.principal, "task": head.task, "made": head.saved, "bytes": one.size}


def _row(one: Snapshot) -> tuple[str, ...]:
    made = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.head.saved)) + " UTC"
    size = format_size(max(1, one.size >> 10) << 10)
    return one_line(one.head.name), one_line(one.head.principal), one_line(one.head.task), made, size
