"""An engine without containers: the supervisor is a child process of the server, and isolates nothing.

It makes the whole stack testable in milliseconds. It is never a default, and says "no isolation" wherever it shows.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import anyio
import anyio.abc

from taskcell.engine.base import (
    STOPPED_STATES,
    Container,
    ContainerSpec,
    EngineFacts,
    ListedContainer,
    ListedVolume,
    Standing,
    Workspace,
)
from taskcell.errors import EngineError, SandboxLost
from taskcell.policy import host_paths
from taskcell.policy.policy import AuthorizedProfile
from taskcell.raw_stream import RawStream, connect_unix
from taskcell.supervisor import binary

#: Seconds for the supervisor to listen on its socket after its start, which takes milliseconds, and between two looks.
LISTEN_TIMEOUT = 5.0
LISTEN_POLL = 0.005
#: Seconds for the supervisor to kill what it started after SIGTERM: its grace of 2 s, and the count.
EXIT_TIMEOUT = 4.0


class LocalEngine:
    """Runs supervisors as child processes, in a folder of its own that is deleted with it."""

    #: Its sandboxes are this machine; nothing is made from an image.
    images = None

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="taskcell-local-"))
        self._processes: dict[str, anyio.abc.Process] = {}

    async def facts(self) -> EngineFacts:
        weakness = (
            "The local engine has no isolation: commands run as this user on this machine. Use it for tests only."
        )
        return EngineFacts("local", "no isolation", isolated=False, weaknesses=(weakness,))

    async def bounds_volumes(self, size: int) -> bool:
        return False

    async def save_files(self, container: Container, file: BinaryIO, most: int) -> None:
        def work() -> None:
            with tarfile.open(fileobj=cast(BinaryIO, _Bounded(file, most)), mode="w|") as archive:
                archive.add(container.workspace, ".")

        await anyio.to_thread.run_sync(work)

    async def put_files(self, container: Container, file: BinaryIO) -> None:
        def work() -> None:
            try:
                with tarfile.open(fileobj=file, mode="r|") as archive:
                    archive.extractall(container.workspace, filter="tar")
            except (tarfile.TarError, OSError) as error:
                raise EngineError(f"The engine could not put the task's files back: {error}.") from None

        await anyio.to_thread.run_sync(work)

    async def copy_files(self, source: Container, targets: Sequence[Container], runtime: str) -> Sequence[str]:
        argv = [source.supervisor, "transfer", "copy", source.workspace, *(target.workspace for target in targets)]
        done = await anyio.run_process(argv, check=False)
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        said = dict(line.split(" ", 1) for line in reversed(lines))
        found = [said.get(str(number), "it was not copied") for number in range(len(targets))]
        return ["" if how == "ok" else how for how in found]

    @asynccontextmanager
    async def frozen(self, containers: Sequence[Container]) -> AsyncIterator[None]:
        """Stops nothing: what its sandboxes run is this machine's."""
        yield

    async def remove_workspace(self, name: str) -> None:
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._folder / name, ignore_errors=True))

    async def shared_volumes(self, deployment: str) -> Sequence[ListedVolume]:
        return ()

    async def sweep(self, deployment: str, living: Collection[str]) -> None:
        """Nothing outlives this engine."""

    async def sweep_own(self, instance: str) -> None:
        """Nothing outlives this engine."""

    async def start(self, spec: ContainerSpec) -> Container:
        """Start a supervisor. The profile's limits, user, network and file systems have no effect here."""
        if spec.profile.sudo:
            raise EngineError("The local engine has no sudo to give: it would be this machine's; use 'docker'.")
        if spec.profile.own:
            raise EngineError("The local engine has no image with folders to give away ('own'); use 'docker'.")
        program = binary.path()
        folder = spec.profile.folder
        volume = folder.path if folder is not None else _make_workspace(self._folder, spec.workspace)
        name = secrets.token_hex(8)
        home = self._folder / name
        home.mkdir(mode=0o700)
        await self._start_supervisor(name, program, home / "s", spec.claim_within)
        return Container(
            id=name,
            name=spec.name,
            workspace=str(self._folder / volume),
            supervisor=str(program),
            reports=f"{home}.state",
            user=None,
            volume=volume,
            folder=None if folder is None else host_paths.look(folder.path).identity,
            is_fresh=folder is None and not (spec.workspace.name or spec.workspace.folder),
            is_owner=False,
            is_child=True,
            transfers_apart=True,
        )

    async def _start_supervisor(self, name: str, program: Path, socket: Path, claim_within: float) -> None:
        """Start a supervisor and wait until it listens on its socket. Raises EngineError."""
        process = await anyio.open_process(
            [program, "init", "--socket", socket, "--claim", str(round(claim_within * 1000))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            env={},
            cwd="/",
            start_new_session=True,
        )
        self._processes[name] = process
        try:
            with anyio.fail_after(LISTEN_TIMEOUT):
                while not await _accepts(socket):
                    if process.returncode is not None:
                        raise EngineError(f"The local supervisor ended with code {process.returncode} at its start.")
                    await anyio.sleep(LISTEN_POLL)
        except BaseException as error:
            process.kill()
            if isinstance(error, TimeoutError):
                raise EngineError(
                    f"The local supervisor did not listen on its socket within {LISTEN_TIMEOUT:g} s; try again."
                ) from None
            raise

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        """None: the supervisors of another server are children of that server."""
        return None

    async def image_id(self, profile: AuthorizedProfile) -> str:
        return ""

    async def assign(self, container: Container, name: str) -> Container:
        return replace(container, name=name)

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        return []

    async def stop(self, container_id: str) -> None:
        """Does nothing: what runs is this server's own, and `remove` ends it."""

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        process = self._processes.pop(container.id, None)
        if process is None:
            return
        try:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                with anyio.move_on_after(EXIT_TIMEOUT):
                    await process.wait()
        finally:
            if process.returncode is None:  # also for a caller that is cancelled
                process.kill()
        await process.wait()
        for folder in (self._folder / container.id, Path(container.reports)):
            shutil.rmtree(folder, ignore_errors=True)

    async def standing(self, container: Container) -> Standing:
        process = self._processes.get(container.id)
        if process is None or process.returncode is not None:
            return Standing.ENDED
        return Standing.STOPPED if _state(process.pid) in STOPPED_STATES else Standing.RUNS

    async def why_dead(self, container: Container) -> str:
        process = self._processes.get(container.id)
        if process is None or process.returncode is None:
            return ""
        return f"Its supervisor ended with code {process.returncode}."

    async def follow(self, instance: str, ended: Callable[[str], None]) -> None:
        """A stream ends with its supervisor."""

    async def memory(self, container: Container) -> int | None:
        return None

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        try:
            stream = await connect_unix(str(self._folder / container.id / "s"))
        except OSError as error:
            raise SandboxLost("The local supervisor does not listen any more.") from error
        async with stream:
            yield stream

    @asynccontextmanager
    async def apart(self, container: Container, words: Sequence[str]) -> AsyncIterator[anyio.abc.ByteStream]:
        argv = [container.supervisor, "apart", "", container.workspace, *words]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        async with RawStream(ours) as stream:
            with theirs:
                process = await anyio.open_process(
                    argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=None, env={}
                )
            try:
                yield stream
            finally:
                with suppress(ProcessLookupError):
                    process.terminate()  # not killed: no draft of a file is to stay
                with anyio.CancelScope(shield=True):
                    await process.wait()

    async def aclose(self) -> None:
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._folder, ignore_errors=True))


class _Bounded:
    """A file that takes so many bytes."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._left = file, most

    def write(self, data: bytes) -> int:
        """Raises EngineError: that is more."""
        self._left -= len(data)
        if self._left < 0:
            raise EngineError("The task's files take too much room as an archive; files with holes count in full.")
        return self._file.write(data)


def _make_workspace(folder: Path, workspace: Workspace) -> str:
    """Make the folder of the task's files; returns its path, relative to the engine's folder or absolute.

    Raises EngineError.
    """
    if workspace.folder:
        Path(workspace.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        return workspace.folder
    if workspace.persistent:
        raise EngineError("The local engine keeps files in a host folder only; name one as workspace.root.")
    volume = workspace.name or f"ws-{secrets.token_hex(8)}"
    (folder / volume).mkdir(mode=0o700, exist_ok=True)
    return volume


def _state(pid: int) -> str:
    """The state of a process, as proc(5) has it; "X" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return "X"


async def _accepts(socket: Path) -> bool:
    try:
        stream = await connect_unix(str(socket))
    except OSError:
        return False
    await stream.aclose()
    return True
