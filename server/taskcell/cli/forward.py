"""`taskcell forward`"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.cli.remote_server import SERVER_URL, TOKEN_FILE, checked_url, read_token
from taskcell.destinations import MAX_PORT
from taskcell.errors import TaskcellError

if TYPE_CHECKING:
    from taskcell.cli.port_servers import PortServer

_WORD = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")


def register(app: typer.Typer) -> None:
    command(app, example="taskcell forward build-website 8000", takes_folder=True)(forward)


def forward(
    run: Invocation,
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task of a running server.")],
    ports: Annotated[
        str,
        typer.Argument(metavar="PORT[:LOCAL]", help="A port in the sandbox, and one of this machine; 0: any free one."),
    ],
    http: SERVER_URL = None,
    token_file: TOKEN_FILE = None,
) -> None:
    """Reach what listens in a task's sandbox, at a port of this machine's loopback, until Ctrl-C.

    The first line of standard output says where it listens. What is in the sandbox was written by an agent: open its
    pages as you would open a stranger's. The token for --http is read from --token-file or from TASKCELL_TOKEN.
    """
    import anyio

    from taskcell.cli.forwarding import Forwarding, listen_locally

    port, local = _read(ports)
    server = _server(run, task, http, token_file)

    async def main() -> None:
        await server.find(task, port)
        with listen_locally(local) as listening:
            places = " and ".join(f"{host}:{number}" for host, number in (_name(one) for one in listening))
            print(f"Forwarding from {places} to port {port} of {task}", flush=True)  # noqa: T201
            await Forwarding(server, task, port, _say).serve(listening)

    anyio.run(main)


def _server(run: Invocation, task: str, http: str | None, token_file: str | None) -> PortServer:
    """The server that is asked for the port. Raises BadParameter, TaskcellError."""
    from taskcell.assembly import stack
    from taskcell.cli.port_servers import LocalServer, RemoteServer
    from taskcell.secret import Hidden

    if http is not None:
        url = checked_url(http)
        return RemoteServer(url, Hidden(read_token(run, token_file, url) or ""))
    if token_file is not None:
        raise typer.BadParameter("--token-file needs --http.")
    folder = stack.state_folder(run, stack.load_settings(run))
    if folder is None:
        raise TaskcellError(f"No running server has the task {task!r}; `taskcell ps` lists what there is.")
    return LocalServer(folder)


def _name(listening: object) -> tuple[str, int]:
    host, port = listening.getsockname()[:2]  # type: ignore[attr-defined]
    return (f"[{host}]" if ":" in host else host), port


def _read(ports: str) -> tuple[int, int]:
    """The port in the sandbox, and the one of this machine. Raises BadParameter."""
    found = _WORD.fullmatch(ports)
    port, local = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= port <= MAX_PORT or local > MAX_PORT:
        raise typer.BadParameter(f"'{ports}' is not PORT[:LOCAL], as in 8000, 80:8080 or 8000:0.")
    return port, local


def _say(sentence: str) -> None:
    print(f"taskcell: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
