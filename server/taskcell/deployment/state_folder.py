"""What the servers of one deployment know about each other: files in a folder that only their user can read.

Each server writes one file about its own sandboxes while it lives, and holds a lock beside it. A file whose lock can be
taken is a dead server's: the sandboxes in it may be taken up. The tokens by which supervisors know their server are
derived from the deployment's key and stand in no such file.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import structlog

from taskcell.deployment.checked import record, text, whole
from taskcell.deployment.records import NoteRecord, SandboxRecord, ServerRecord
from taskcell.deployment.state_files import (
    KEY_SIZE,
    check_folder,
    is_locked,
    lock,
    own_folder,
    read_key,
    read_own,
    replace,
    unlink,
    why,
)
from taskcell.model import LOCAL_PRINCIPAL, MIB, TaskKey

log = structlog.get_logger(__name__)

_VERSION = 1
#: What the name of a local door's socket ends with.
DOOR = ".sock"
#: Bytes of one server's file: twice what 100,000 sandboxes take, the most that a pool may have.
_MAX_FILE = 128 * MIB
#: Bytes of a note about one workspace: two names and a path.
_MAX_NOTE = 64 << 10


class StateFolder:
    """A deployment's folder; all blocks. Without one, everything works but handing sandboxes over to later servers.

    Arguments:
        folder: of this deployment alone; made when it is needed. None: it is not wanted, or has no place.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.key = b""
        self.instance = ""
        self._lock: int | None = None
        self._distrusted: set[Path] = set()

    # --- this server ---------------------------------------------------------------------------------------------

    def join(self, instance: str) -> None:
        """Take this server's own lock, and read the deployment's key. A failure is one line in the log."""
        self.instance = instance
        self.key = secrets.token_bytes(KEY_SIZE)
        if self.folder is None:
            return
        try:
            own_folder(self.folder)
            self.key = read_key(self.folder / "key")
            self._lock = lock(self._lock_path(instance), create=True)
        except OSError as error:
            log.warning(
                "The state folder cannot be written; no other server will find this one's sandboxes.",
                folder=str(self.folder),
                reason=why(error),
            )
            self.folder = None

    @property
    def is_shared(self) -> bool:
        """Other servers find what this one writes."""
        return self.folder is not None and self._lock is not None

    @property
    def door(self) -> Path | None:
        """The socket of this server's local door, while it is shared."""
        return self.folder / f"{self.instance}{DOOR}" if self.folder is not None and self.is_shared else None

    def write(self, sandboxes: Sequence[SandboxRecord], notes: Sequence[NoteRecord] = ()) -> None:
        """Replace this server's file. Blocking; a failure is a line in the log."""
        if self.folder is None or self._lock is None:
            return
        document = {"version": _VERSION, "instance": self.instance, "pid": os.getpid()}
        document["sandboxes"] = [asdict(sandbox) for sandbox in sandboxes]
        document["notes"] = [asdict(note) for note in notes]
        try:
            replace(self._file(self.instance), json.dumps(document).encode("utf-8", "surrogatepass"))
        except OSError as error:
            log.warning("The state file could not be written.", reason=why(error))

    def leave(self, *, keep: bool) -> None:
        """Let go of the lock. `keep` leaves the file to the next server."""
        if self.folder is None or self._lock is None:
            return
        if not keep:
            self._remove(self.instance)
        os.close(self._lock)
        self._lock = None

    # --- the others ----------------------------------------------------------------------------------------------

    def servers(self) -> list[ServerRecord]:
        """Every server that has a file, dead or alive. Blocking."""
        return [self._read(name, alive=self.is_alive(name)) for name in self._names()]

    def bequeathed(self, chosen: Collection[str] | None = None) -> Generator[ServerRecord]:
        """What each dead server left. Blocking.

        Nobody else can take it meanwhile, and its file is gone afterwards.

        Arguments:
            chosen: only what these instances left. None: what any left.
        """
        for name in self._names():
            if name == self.instance or (chosen is not None and name not in chosen):
                continue
            try:
                held = lock(self._lock_path(name), create=False)
            except BlockingIOError:  # its server lives
                continue
            except OSError as error:
                self._distrust(self._lock_path(name), error)
                continue
            try:
                yield self._read(name, alive=False)
                self._remove(name)
            finally:
                os.close(held)

    def _names(self) -> list[str]:
        return [path.stem for path in self._found(self.folder)]

    def _found(self, folder: Path | None) -> list[Path]:
        """The files in a folder, if it is ours."""
        if folder is None:
            return []
        try:
            check_folder(folder)
            return sorted(folder.glob("*.json"))
        except OSError as error:
            self._distrust(folder, error)
            return []

    def _distrust(self, path: Path, error: Exception) -> None:
        """Say once that something in the state folder is not used; what is not there needs no word."""
        if isinstance(error, FileNotFoundError) or path in self._distrusted:
            return
        self._distrusted.add(path)
        reason = why(error) if isinstance(error, OSError) else "it is not what a server writes"
        log.warning("Something in the state folder is not used.", path=str(path), reason=reason)

    def is_alive(self, instance: str) -> bool:
        return instance == self.instance or is_locked(self._lock_path(instance))

    @property
    def cleans(self) -> bool:
        """What is deleted twice on one disk is deleted."""
        return True

    def has(self, task: TaskKey) -> bool:
        """A server's files are its own until it ends."""
        return True

    def is_over(self, instance: str, draft: Path) -> bool:
        return not self.is_alive(instance)

    def may_take(self, task: TaskKey, instance: str) -> bool:
        """A task of the person's own is never two servers' at once, so that all that is written of it is this one's."""
        return instance == self.instance or task.principal == LOCAL_PRINCIPAL or not self.is_alive(instance)

    def _read(self, instance: str, *, alive: bool) -> ServerRecord:
        """A file that cannot be read says nothing: its sandboxes remove themselves."""
        path = self._file(instance)
        try:
            document = json.loads(read_own(path, _MAX_FILE))
            sandboxes = tuple(record(SandboxRecord, table) for table in document["sandboxes"])
            notes = tuple(record(NoteRecord, table) for table in document.get("notes", ()))
            return ServerRecord(instance, whole(document["pid"]), alive, sandboxes, notes)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._distrust(path, error)
            return ServerRecord(instance, 0, alive)

    def _file(self, instance: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{instance}.json"

    def _lock_path(self, instance: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{instance}.lock"

    def _remove(self, instance: str) -> None:
        for path in (self._file(instance), self._lock_path(instance), self._file(instance).with_suffix(DOOR)):
            unlink(path)

    # --- persistent workspaces -----------------------------------------------------------------------------------

    def note_workspace(self, task: TaskKey, place: str) -> None:
        """Remember whose a persistent workspace is: its name and folder do not tell. Blocking."""
        if self.folder is None:
            return
        document = {"principal": task.principal, "task": task.task, "place": place}
        path = self._note(task)
        try:
            own_folder(path.parent)
            if not path.exists():
                replace(path, json.dumps(document).encode("utf-8", "surrogatepass"))
        except OSError as error:
            log.warning("It could not be noted whose a workspace is.", path=str(path), reason=why(error))

    def workspaces(self) -> Mapping[TaskKey, str]:
        """The persistent workspaces that were noted: volume or folder, by task. Blocking."""
        found: dict[TaskKey, str] = {}
        for path in self._found(self.folder and self.folder / "workspaces"):
            try:
                document = json.loads(read_own(path, _MAX_NOTE))
                principal, task, place = (text(document[name]) for name in ("principal", "task", "place"))
                key = TaskKey(principal, task)
                if self._note(key) != path:
                    raise ValueError
                found[key] = place
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                self._distrust(path, error)
        return found

    def forget_workspace(self, task: TaskKey) -> None:
        if self.folder is not None:
            unlink(self._note(task))

    def _note(self, task: TaskKey) -> Path:
        assert self.folder is not None
        return self.folder / "workspaces" / f"{task.digest}.json"
