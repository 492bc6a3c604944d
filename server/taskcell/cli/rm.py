"""`taskcell rm`"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.errors import TaskcellError
from taskcell.model import TaskKey

if TYPE_CHECKING:
    from taskcell.deployment.sandboxes import Deployed
    from taskcell.deployment.state_folder import StateFolder
    from taskcell.engine.base import Engine


#: Seconds for a server to close a task: killing what runs in it takes a few.
REMOVE_PATIENCE = 30.0


def register(app: typer.Typer) -> None:
    command(app, example="taskcell rm build-website --purge", takes_folder=True)(rm)


def rm(
    run: Invocation,
    *,
    tasks: Annotated[list[str] | None, typer.Argument(metavar="TASK", help="Tasks whose sandboxes are closed.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every sandbox of the deployment.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Delete persistent workspaces too.")] = False,
    principal: Annotated[str | None, typer.Option(help="Only tasks of this principal.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of what was closed.")] = False,
) -> int:
    """Close sandboxes of any server of the deployment; what runs in them is killed.

    Files in memory are lost, kept ones too. Persistent workspaces stay unless --purge is given.
    """
    import anyio

    if bool(tasks) == everything:
        raise typer.BadParameter("Name tasks, or give --all.")
    closed, purged, forgotten = anyio.run(_remove, run, tasks or [], principal, purge)
    if as_json:
        typer.echo(json.dumps([one.structured() for one in closed], indent=2))
    else:
        _print_summary(len(closed), purged, forgotten, purge=purge)
    found = {one.key.task for one in closed if one.key is not None} | {key.task for key in (*purged, *forgotten)}
    missing = [task for task in tasks or [] if task not in found]
    if missing:
        what = "sandbox, kept files or workspace" if purge else "sandbox or kept files"
        raise TaskcellError(f"No {what} of {', '.join(map(repr, missing))}; `taskcell ps` lists what there is.")
    return 0


def _print_summary(closed: int, purged: Collection[TaskKey], forgotten: Collection[TaskKey], *, purge: bool) -> None:
    words = f"{closed} sandbox{'' if closed == 1 else 'es'} closed"
    if forgotten:
        words += f", kept files of {len(forgotten)} task{'' if len(forgotten) == 1 else 's'} deleted"
    if purge:
        words += f", {len(purged)} persistent workspace{'' if len(purged) == 1 else 's'} deleted"
    typer.echo(f"{words}.")


async def _remove(
    run: Invocation, tasks: Collection[str], principal: str | None, purge: bool
) -> tuple[Sequence[Deployed], Sequence[TaskKey], Collection[TaskKey]]:
    """Returns what was closed, the tasks whose workspaces were deleted, and those that had kept files alone.

    Arguments:
        tasks: names of tasks; none means all.
    """
    import anyio.to_thread

    from taskcell.assembly import stack
    from taskcell.deployment.doors import open_doors
    from taskcell.deployment.kept import forget_kept
    from taskcell.deployment.opened import forget_opened
    from taskcell.deployment.sandboxes import find_deployed

    def is_chosen(key: TaskKey | None) -> bool:
        if key is None:
            return not tasks and principal is None
        return (not tasks or key.task in tasks) and principal in (None, key.principal)

    settings = stack.load_settings(run)
    async with stack.opened_engine(run, settings) as engine:
        deployment = stack.deployment_of(run, settings)
        state = deployment.state
        try:
            found = await find_deployed(engine, deployment, settings.deployment_id)
        finally:
            await deployment.leave(keep=True)
        chosen = [one for one in found if is_chosen(one.key)]
        folder = stack.state_folder(run, settings)
        doors = [] if folder is None else open_doors(folder)
        # On a cluster the door of this pod's server leads to the others, too.
        one = doors[0] if doors and deployment.marks_owners else None
        closed = await _ask_servers({door.stem: door for door in doors}, one, chosen, purge)
        await _close(engine, [one for one in chosen if (one.server, one.key) not in closed])
        if not tasks and principal is None:
            await engine.sweep(settings.deployment_id, ())
        purged = [key for key in state.workspaces() if is_chosen(key)] if purge else []
        for key in purged:
            await _purge(engine, state, key)
        archives = stack.archive_folder(run, settings)
        forgotten = await anyio.to_thread.run_sync(forget_kept, archives, is_chosen)
        await anyio.to_thread.run_sync(forget_opened, state.folder, is_chosen)
    return chosen, purged, forgotten - {one.key for one in chosen}


async def _ask_servers(
    doors: Mapping[str, Path], one: Path | None, chosen: Collection[Deployed], purge: bool
) -> set[tuple[str, TaskKey | None]]:
    """Have the servers that live close their tasks, so that they know why; returns what was closed so.

    A server that does not is not waited for: its sandboxes are closed all the same.

    Arguments:
        doors: of servers, by instance.
        one: the door that leads to all of them, if there is such a one.
    """
    import anyio

    wanted = {(one.server, one.key) for one in chosen if one.server and one.key is not None}
    closed: set[tuple[str, TaskKey | None]] = set()

    async def ask(server: str, key: TaskKey) -> None:
        door = one or doors.get(server)
        if door is not None and await ask_to_remove(door, key, purge):
            closed.add((server, key))

    async with anyio.create_task_group() as asking:
        for server, key in wanted:
            asking.start_soon(ask, server, key)
    return closed


async def ask_to_remove(door: Path, task: TaskKey, purge: bool) -> bool:
    """Have a server close a task of its own, by its local door; returns whether it has.

    Arguments:
        purge: its persistent workspace is deleted afterwards.
    """
    import httpx2

    from taskcell.http.removal import REMOVE
    from taskcell.socket_name import short_path

    try:
        with short_path(door) as name:
            transport = httpx2.AsyncHTTPTransport(uds=name, verify=False, trust_env=False)
            async with httpx2.AsyncClient(transport=transport, timeout=REMOVE_PATIENCE, trust_env=False) as http:
                body = {"principal": task.principal, "task": task.task, "purge": purge}
                return (await http.post(f"http://localhost{REMOVE}", json=body)).is_success
    except (OSError, httpx2.HTTPError):
        return False


async def _close(engine: Engine, chosen: Collection[Deployed]) -> None:
    import anyio

    async with anyio.create_task_group() as closing:
        for one in chosen:
            closing.start_soon(engine.stop, one.id)
    for one in chosen:
        record = one.record
        if record is not None and record.task and not record.is_owner and record.is_in_memory:
            await engine.remove_workspace(record.workspace)


async def _purge(engine: Engine, state: StateFolder, key: TaskKey) -> None:
    import anyio

    place = state.workspaces()[key]
    if Path(place).is_absolute():
        if Path(place).name != key.digest:
            raise TaskcellError(f"{place} is not a workspace's folder; nothing was deleted there.")
        await anyio.to_thread.run_sync(shutil.rmtree, place, True)
        if await anyio.Path(place).exists():
            raise TaskcellError(f"{place} could not be deleted completely; delete the rest as its owner.")
    else:
        await engine.remove_workspace(place)
    state.forget_workspace(key)
