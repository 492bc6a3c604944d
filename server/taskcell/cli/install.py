"""`taskcell install` and `taskcell uninstall`"""

from __future__ import annotations

import re
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.cli.remote_server import SERVER_URL, TOKEN_FILE, checked_url, read_token
from taskcell.clients.catalog import CLIENTS, HEADERS, Client, Local, Places, Remote
from taskcell.errors import ConfigError

if TYPE_CHECKING:
    from taskcell.clients.installation import Change

#: Seconds between the answer that a call gives by `wait` and the moment when its client gives it up. A new sandbox
#: takes one or two before the command starts.
MARGIN = 10.0
#: What every client takes for a server's name; several make a part of each tool's name of it.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
#: Of a file's mode.
_READ_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH

CLIENT = Annotated[str, typer.Argument(metavar="CLIENT", help=f"One of {', '.join(CLIENTS)}.")]
SERVER_NAME = Annotated[str, typer.Option(help="The server's name in the client.")]


def register(app: typer.Typer) -> None:
    command(app, example="taskcell install claude-desktop")(install)
    command(app, example="taskcell uninstall claude-desktop")(uninstall)


def install(
    run: Invocation,
    *,
    client: CLIENT,
    show: Annotated[bool, typer.Option("--print", help="Print what would be written, and write nothing.")] = False,
    wait: Annotated[str | None, typer.Option(help="Longest wait of a call, such as 20s, for this client.")] = None,
    project: Annotated[
        Path | None,
        typer.Option("--folder", metavar="PATH", help="The project that the client's tasks work on: a host folder."),
    ] = None,
    http: SERVER_URL = None,
    token_file: TOKEN_FILE = None,
    name: SERVER_NAME = "taskcell",
) -> None:
    """Write this server into the configuration of an MCP client.

    Everything else in the file stays, and the old file is kept beside it. The client starts the server with the
    configuration that this command finds. The token for --http is read from --token-file or from TASKCELL_TOKEN.
    """
    from taskcell.clients import installation

    chosen, places = _chosen(client, name), Places(run.environ, sys.platform)
    if http is not None:
        if wait is not None:
            raise typer.BadParameter("--wait is for a server that the client starts; set limits.wait where it runs.")
        if project is not None:
            raise typer.BadParameter(
                "--folder is for a server that the client starts; give it to `serve` where it runs."
            )
        entry = _remote_entry(run, chosen, name, http, token_file, show=show)
    elif token_file is not None:
        raise typer.BadParameter("--token-file needs --http.")
    else:
        entry = _local_entry(run, chosen, name, wait, project)
    if show:
        typer.echo(f"For {chosen.file(places)}:", err=True)
        typer.echo(installation.shown_alone(chosen, name, entry), nl=False)
        return
    outcome = installation.install(chosen, places, name, entry)
    _report(chosen, outcome, f"has the server '{name}' now", f"has the server '{name}' already, just so")
    _tell_of_readers(outcome.path, entry)


def uninstall(run: Invocation, *, client: CLIENT, name: SERVER_NAME = "taskcell") -> None:
    """Take this server out of the configuration of an MCP client; everything else in the file stays."""
    from taskcell.clients import installation

    chosen = _chosen(client, name)
    outcome = installation.uninstall(chosen, Places(run.environ, sys.platform), name)
    _report(chosen, outcome, f"does not have the server '{name}' any more", f"does not have a server '{name}'")


def _chosen(client: str, name: str) -> Client:
    if client not in CLIENTS:
        raise typer.BadParameter(f"'{client}' is not a client that taskcell knows: {', '.join(CLIENTS)}.")
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("--name takes 1 to 32 letters, digits, '-' and '_'.")
    return CLIENTS[client]


def _report(client: Client, outcome: Change, done: str, unchanged: str) -> None:
    if not outcome.changed:
        typer.echo(f"{outcome.path} {unchanged}.")
        return
    typer.echo(f"{outcome.path} {done}.")
    if outcome.kept is not None:
        typer.echo(f"The file as it was: {outcome.kept}")
    typer.echo(f"End {client.title} and start it again, so that it reads the file.")


def _tell_of_readers(path: Path, entry: dict[str, Any]) -> None:
    if not entry.keys().isdisjoint(HEADERS) and path.stat().st_mode & _READ_BY_OTHERS:
        typer.echo(
            f"taskcell: other users of this machine may read {path}, which has the token; run `chmod 600` on it, and "
            "on the copies beside it.",
            err=True,
        )


def _local_entry(run: Invocation, client: Client, name: str, wait: str | None, folder: Path | None) -> dict[str, Any]:
    """The entry for a server that the client starts, with the configuration that this command finds.

    A client that a desktop started has neither this shell's PATH nor its variables nor its folder.
    """
    from taskcell.assembly.stack import load_settings
    from taskcell.clients import program
    from taskcell.clients.installation import WAIT_VARIABLE
    from taskcell.units import format_seconds

    plain = {key: value for key, value in run.environ.items() if not key.startswith("TASKCELL__")}
    settings = load_settings(replace(run, environ=plain))
    longest = None if client.call_timeout is None else client.call_timeout - MARGIN
    if wait is None and longest is not None and settings.limits.wait > longest:
        wait = f"{format_seconds(longest)}s"
    own = program.engine_variables(run.environ)
    if wait is not None:
        own[WAIT_VARIABLE] = wait
        chosen = load_settings(replace(run, environ=plain | {WAIT_VARIABLE: wait})).limits.wait
        if longest is not None and chosen > longest:
            typer.echo(
                f"taskcell: {client.title} gives a call up after {client.call_timeout:.0f} s, and then never sees its "
                f"answer: a wait of {format_seconds(longest)}s fits.",
                err=True,
            )
    configured = ("--config", str(settings.file)) if settings.file else ()
    arguments = ("serve", *configured, *(("--folder", str(_project(run, folder))) if folder else ()))
    _refuse_expansion(client, [*arguments, *own.values()])
    return client.local(name, Local(str(program.find_program(run.environ)), arguments, own))


def _project(run: Invocation, folder: Path) -> Path:
    """Return the absolute path of a host folder. Raises ConfigError where there is none."""
    home, parts = run.environ.get("HOME", ""), folder.parts
    place = Path(home, *parts[1:]) if parts[:1] == ("~",) and home else run.cwd / folder
    try:
        found = place.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "its links lead in a circle"
        raise ConfigError(f"--folder {folder} cannot be used: {why}. Name a folder that is there.") from None
    if not found.is_dir():
        raise ConfigError(f"--folder {folder} is not a folder. Name the folder of the project.")
    return found


def _refuse_expansion(client: Client, texts: list[str]) -> None:
    """Several clients replace `$NAME` and `${NAME}` in what they read by variables, and none can be asked not to."""
    for text in texts:
        if "$" in text:
            raise ConfigError(
                f"{client.title} may read the '$' in {text} as a variable; move the file to a path without '$'."
            )


def _remote_entry(
    run: Invocation, client: Client, name: str, url: str, token_file: str | None, *, show: bool
) -> dict[str, Any]:
    if client.remote is None:
        raise ConfigError(
            f"{client.title} does not read servers at a URL from its file. Add {url} in its settings, under "
            f"Connectors, or leave out --http."
        )
    token = read_token(run, token_file, checked_url(url))
    headers = {} if token is None else {"Authorization": f"Bearer {'…' if show else token}"}
    return client.remote(name, Remote(url, headers))
