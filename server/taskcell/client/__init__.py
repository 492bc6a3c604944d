"""The client for programs: tasks, commands with exact bytes, files and shells. See docs/programs.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from taskcell.client.cell import Cell
from taskcell.client.own_server import own_server
from taskcell.client.wire import ServerClient

#: Seconds: a server that has died is succeeded within fifteen, and one that is started anew takes about as long.
COMMANDS_LINGER = 60.0


@asynccontextmanager
async def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    door: Path | str | None = None,
    config: Path | str | None = None,
    options: Sequence[str] = (),
    program: Path | str | None = None,
    linger: float = COMMANDS_LINGER,
) -> AsyncIterator[Cell]:
    """Connect to a server: to one of its own that is started for it, or to one that runs.

    Raises a CellError when there is no server, or it does not answer.

    Arguments:
        url: of a server over HTTP, such as `http://127.0.0.1:8765`.
        token: its bearer token.
        door: the socket of a server on this machine, of the same user. `client.doors.find_doors` lists them.
        config: the configuration file of the server that is started when neither `url` nor `door` is given.
        options: more words for `taskcell serve`, such as `--folder`.
        program: the `taskcell` that is started; None: that of this environment, or else the one on PATH.
        linger: seconds that a command goes on at `url` when the connection to it breaks, or its server ends: so long it
            is tried to take it up. 0: it ends with its connection.
    """
    if url is not None or door is not None:
        async with ServerClient(url=url, token=token, door=door, linger=linger) as wire:
            yield Cell(wire)
        return
    async with own_server(config, options, program) as path, ServerClient(door=path) as wire:
        yield Cell(wire)
