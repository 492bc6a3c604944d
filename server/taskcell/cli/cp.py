"""`taskcell cp`"""

from __future__ import annotations

import io
import posixpath
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.errors import TaskcellError
from taskcell.model import LOCAL_PRINCIPAL, WORKSPACE, TaskKey
from taskcell.piece_file import PieceFile
from taskcell.units import format_size

if TYPE_CHECKING:
    import httpx2

_TAR = "application/x-tar"
#: Seconds for the server to answer: a new sandbox takes a few. Bytes may come as slowly as they do.
FIRST_BYTE_PATIENCE = 120.0
#: Seconds between two lines of progress on a terminal.
PROGRESS_INTERVAL = 0.5


def register(app: typer.Typer) -> None:
    command(app, example="taskcell cp build-website:site/dist ./dist")(cp)


def cp(
    run: Invocation,
    source: Annotated[str, typer.Argument(metavar="SRC", help="A path, TASK:PATH, or - for a tar archive.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="A path, TASK:PATH, or - for a tar archive.")],
) -> None:
    """Copy files and folders between this machine and a task of a running server, as `docker cp` does.

    PATH is below the task's workspace. A folder is copied into a folder that exists, and becomes DST otherwise; SRC/.
    is what is in it. Links inside of what is copied stay links; permissions and times are kept, owners are not.
    """
    import anyio

    from taskcell.assembly import stack
    from taskcell.cli.in_task import door_of

    inside, outside = _split(source), _split(target)
    if (inside is None) == (outside is None):
        raise typer.BadParameter("One of SRC and DST must be TASK:PATH.")
    task, path = inside or outside or ("", "")
    settings = stack.load_settings(run)
    folder = stack.state_folder(run, settings)
    door = None if folder is None else anyio.run(door_of, folder, TaskKey(LOCAL_PRINCIPAL, task))
    if door is None:
        raise TaskcellError(f"No running server has the task {task!r}; `taskcell ps` lists what there is.")
    with _connected(door) as http:
        remote = RemoteFiles(http, task)
        if inside is not None:
            copy_out(remote, path, target)
        else:
            copy_in(remote, source, path)


def _split(word: str) -> tuple[str, str] | None:
    """The task and the path of `TASK:PATH`; None for a path of this machine, which may begin with `./` or `/`."""
    task, colon, path = word.partition(":")
    return (task, path) if colon and task and "/" not in task and not task.startswith(".") else None


@contextmanager
def _connected(door: Path) -> Iterator[httpx2.Client]:
    import httpx2

    from taskcell.socket_name import short_path

    with short_path(door) as name:
        transport = httpx2.HTTPTransport(uds=name, verify=False, trust_env=False)
        timeout = httpx2.Timeout(None, read=FIRST_BYTE_PATIENCE)
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=timeout, trust_env=False) as http:
            try:
                yield http
            except httpx2.HTTPError as error:
                raise TaskcellError(f"The server went away meanwhile, or does not answer ({error}).") from None


class RemoteFiles:
    """The workspace of one task."""

    def __init__(self, http: httpx2.Client, task: str) -> None:
        self._http = http
        self._task = task

    def address(self, path: str) -> str:
        """Raises TaskcellError: the path is not in the workspace."""
        from urllib.parse import quote

        whole = posixpath.normpath(posixpath.join(WORKSPACE, path or "."))
        if whole != WORKSPACE and not whole.startswith(WORKSPACE + "/"):
            raise TaskcellError(f"{path!r} is not below {WORKSPACE}; `taskcell exec --task` reaches other files.")
        return f"/files/{quote(self._task, safe='')}{quote(whole.removeprefix(WORKSPACE), errors='surrogateescape')}"

    def kind(self, path: str) -> str:
        """What stands there: `file`, `folder`, or nothing (empty). Raises TaskcellError."""
        answer = self._http.head(self.address(path))
        if answer.status_code == 404:
            return ""
        if answer.status_code != 200:  # the answer to HEAD has no sentence
            with self._http.stream("GET", self.address(path), headers={"range": "bytes=0-0"}) as other:
                _check(other)
        return answer.headers.get("x-taskcell-kind", "")

    @contextmanager
    def archive(self, path: str) -> Iterator[Iterator[bytes]]:
        """The archive of a file or folder, in pieces. Raises TaskcellError."""
        with self._http.stream("GET", self.address(path), headers={"accept": _TAR}) as answer:
            _check(answer)
            yield _received(answer)

    def unpack(self, path: str, archive: Iterator[bytes]) -> None:
        """Send an archive that is unpacked into a folder. Raises TaskcellError."""
        answer = self._http.put(self.address(path), content=archive, headers={"content-type": _TAR})
        _check(answer)


def _received(answer: httpx2.Response) -> Iterator[bytes]:
    """The pieces of a body. One that breaks off ends: the archive in it shows that, and may say why."""
    import httpx2

    with suppress(httpx2.RemoteProtocolError):
        yield from answer.iter_raw()


def _check(answer: httpx2.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    try:
        sentence = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        sentence = f"The server answered with HTTP status {answer.status_code}; its log may tell why."
    raise TaskcellError(sentence)


def copy_out(remote: RemoteFiles, path: str, target: str) -> None:
    """Copy from a task to this machine. Raises TaskcellError."""
    from taskcell.client.host_archive import Unpacking

    inner = path.removesuffix("/.") if path.endswith("/.") else path
    kind = remote.kind(inner)
    with remote.archive(inner) as archive, _progress(archive) as pieces:
        if target == "-":
            if sys.stdout.isatty():
                raise typer.BadParameter("A tar archive cannot be shown on a terminal; redirect it.")
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        place = Path(target)
        name = posixpath.basename(posixpath.normpath(posixpath.join(WORKSPACE, inner)))
        if path.endswith("/.") or inner in ("", "."):
            place.mkdir(exist_ok=True)
            base, own = place, ""
        elif place.is_dir():
            base, own = place, name
        else:
            if target.endswith("/") and kind == "file":
                raise TaskcellError(f"There is no folder {target!r} here; make it, or leave out the slash.")
            base, own = place.parent, place.name
        if not base.is_dir():
            raise TaskcellError(f"There is no folder {str(base)!r} here; make it first.")
        Unpacking(base, own, _say).unpack(io.BufferedReader(PieceFile(partial(next, pieces, None)), 1 << 20))


def copy_in(remote: RemoteFiles, source: str, path: str) -> None:
    """Copy from this machine to a task. Raises TaskcellError."""
    from taskcell.client.host_archive import CHUNK, packed

    if source == "-":
        with _progress(iter(lambda: sys.stdin.buffer.read(CHUNK), b"")) as pieces:
            remote.unpack(path, pieces)
        return
    place, kind = Path(source), remote.kind(path)
    try:
        is_folder = place.is_dir()
        if not is_folder and not place.is_file():
            raise TaskcellError(f"There is no file or folder {source!r} here.")
        if kind == "folder":
            base, name = path, "." if source.endswith("/.") else place.resolve().name
        elif kind == "file" and is_folder:
            raise TaskcellError(f"{path!r} is a file in the task; a folder cannot take its place.")
        elif not kind and path.endswith("/") and not is_folder:
            raise TaskcellError(f"There is no folder {path!r} in the task; leave out the slash to make a file.")
        else:
            base, name = posixpath.split(posixpath.normpath(path))
        skip = lambda path: _say(f"{path} is neither a file, a folder nor a link; it was left out.")  # noqa: E731
        with _progress(packed(place, name, skip)) as pieces:
            remote.unpack(base, pieces)
    except OSError as error:
        raise TaskcellError(f"{error.filename or source} could not be read: {error.strerror}.") from error


@contextmanager
def _progress(pieces: Iterator[bytes], out: IO[str] | None = None) -> Iterator[Iterator[bytes]]:
    """The same pieces; how many bytes went by is shown on a terminal."""
    shown = out or sys.stderr
    total, said, began = 0, 0.0, time.monotonic()

    def counted() -> Iterator[bytes]:
        nonlocal total, said
        for piece in pieces:
            total += len(piece)
            if shown.isatty() and time.monotonic() - said > PROGRESS_INTERVAL:
                said = time.monotonic()
                shown.write(f"\r{format_size(total >> 10 << 10)} in {said - began:.0f} s ")
                shown.flush()
            yield piece

    try:
        yield counted()
    finally:
        if said:
            shown.write("\r\033[K")
            shown.flush()


def _say(sentence: str) -> None:
    plain = "".join(letter if letter.isprintable() else "?" for letter in sentence)
    print(f"taskcell: {plain}", file=sys.stderr)  # noqa: T201
