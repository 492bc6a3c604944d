"""`taskcell audit`"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.errors import ConfigError, TaskcellError

if TYPE_CHECKING:
    from taskcell.audit.chain import Link

#: Seconds between two looks for new lines.
POLL = 0.2


def register(app: typer.Typer) -> None:
    audit = typer.Typer(
        help="The audit log: who ran what, and how it ended.", no_args_is_help=True, rich_markup_mode=None
    )
    command(audit, name="tail", example="taskcell audit tail --follow")(tail)
    command(audit, name="verify", example="taskcell audit verify")(verify)
    app.add_typer(audit, name="audit")


def tail(
    run: Invocation,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show new lines until Ctrl-C.")] = False,
) -> None:
    """Show the last lines of the audit log, as JSON."""
    path = _path(run)
    if not path.exists() and not follow:
        raise TaskcellError(f"There is no audit log at {path} yet; a server's first call begins it.")
    for line in _lines(path, lines, follow=follow):
        typer.echo(line.decode("ascii", "backslashreplace").rstrip("\n"))


def verify(run: Invocation) -> int:
    """Check the hash of every line, in this file and in those that were kept before it.

    What was cut off the end of the log cannot be seen: compare the number and the hash with what you have noted.
    """
    from taskcell.audit.chain import Broken, Link
    from taskcell.audit.log import kept_files

    path = _path(run)
    files = [*kept_files(path), *([path] if path.exists() else [])]
    if not files:
        raise TaskcellError(f"There is no audit log at {path}; a server's first call begins it.")
    last: Link | None = None
    for file in files:
        good = 0
        try:
            with _opened(file) as opened:
                for _, after in _checked(opened, last):
                    last, good = after, good + 1
        except Broken as error:
            raise TaskcellError(f"{file}:{good + 1}: {error}.") from None
    if last is not None:
        _note_beginning(files[0])
    last = last or Link()
    typer.echo(f"{last.number} lines in {len(files)} file{'s' * (len(files) > 1)}: the chain holds up to {last.hash}.")
    return 0


def _checked(file: IO[bytes], before: Link | None) -> Iterator[tuple[dict[str, Any], Link]]:
    from taskcell.audit.chain import Broken, follow

    def whole() -> Iterator[bytes]:
        for line in file:
            if not line.endswith(b"\n"):
                raise Broken("it is not whole")
            yield line

    return follow(whole(), before)


def _note_beginning(file: Path) -> None:
    """Say where the oldest file begins, unless that is the chain's own beginning: older ones may have been deleted."""
    from taskcell.audit.chain import NOTHING, read_line

    with _opened(file) as opened:
        document, link = read_line(opened.readline())
    if document["before"] != NOTHING:
        typer.echo(f"The oldest file begins with line {link.number}; what came before it is not here.")


def _lines(path: Path, last: int, *, follow: bool) -> Iterator[bytes]:
    """The last lines of the log; then each that is added, also when files are rotated away meanwhile."""
    while not path.exists():
        time.sleep(POLL)
    file = _opened(path)
    yield from deque(file, last)
    while follow:
        if line := file.readline():
            yield line
        elif (following := _next_file(path, file)) is not None and not (line := file.readline()):
            file.close()
            file = _opened(following)
        elif line:  # it came just before the rotation
            yield line
        else:
            time.sleep(POLL)


def _opened(path: Path) -> IO[bytes]:
    """Open a file of the log to read. Raises TaskcellError: it is not a regular file, or cannot be opened."""
    from taskcell.regular_file import open_regular

    try:
        return os.fdopen(open_regular(path, os.O_RDONLY), "rb")
    except OSError as error:
        raise TaskcellError(f"The audit log {path} cannot be read: {error.strerror}.") from None


def _next_file(path: Path, file: IO[bytes]) -> Path | None:
    """The file that continues an open one; None while that is the newest."""
    from taskcell.audit.log import kept_files

    own, files = os.fstat(file.fileno()).st_ino, [*kept_files(path), path]
    with suppress(FileNotFoundError):  # the newest one is being rotated at this moment, or not begun yet
        places = [found.stat().st_ino for found in files]
        if own != places[-1]:
            return files[places.index(own) + 1] if own in places else path
    return None


def _path(run: Invocation) -> Path:
    from taskcell.assembly import stack

    path = stack.audit_path(run, stack.load_settings(run))
    if path is None:
        raise ConfigError("There is no place for the audit log: set audit.path, or HOME in the environment.")
    return path
