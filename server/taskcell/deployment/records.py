"""What the servers of one deployment know of each other: files in a folder that only their user can read.

Each server writes one file about its own sandboxes while it lives, and holds a lock beside it. A file whose lock can be
taken is a dead server's: what stands in it may be taken up. The tokens by which supervisors know their server are
derived from the deployment's key and are in no such file.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import structlog

from taskcell.model import Profile, TaskKey

log = structlog.get_logger(__name__)

_VERSION = 1
#: Bytes of a deployment's key, as many as SHA-256 makes use of.
_KEY_SIZE = 32
#: Bytes of one server's file: far more than 100,000 sandboxes need. It is our own, but a full disk may have cut it.
_MAX_FILE = 256 << 20
#: What each field of a record must be when it is read back, by the type that is written at it.
_KINDS: Mapping[str, type | tuple[type, ...]] = {"str": str, "bool": bool, "int": int, "float": (int, float)}


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One sandbox, as another server or `taskcell ps` finds it. Times in seconds of the wall clock.

    Arguments:
        container, name: the engine's id of it, and its name.
        principal, task: whose it is; both empty for one that no task has yet.
        fingerprint: of the profile that it was made with.
        nonce: what its token was derived from.
        workspace: the task's volume, or folder; `is_owner` as in `Container`; `is_in_memory`: it is not persistent.
        idle_since: 0 while a call or a process has it.
        commands: how many commands the task has had.
    """

    container: str
    name: str
    principal: str
    task: str
    profile: str
    fingerprint: str
    nonce: str
    workspace: str
    is_owner: bool
    is_in_memory: bool
    created: float
    idle_since: float = 0.0
    processes: int = 0
    commands: int = 0

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.principal, self.task)


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """One server's file. `alive`: somebody holds its lock."""

    instance: str
    pid: int
    alive: bool
    sandboxes: tuple[SandboxRecord, ...]


class Deployment:
    """A deployment's folder. Without one, all works but the handing over: it cannot be written, or is not wanted.

    Arguments:
        folder: of this deployment alone; made when it is needed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._key = b""
        self._instance = ""
        self._lock: int | None = None

    # --- this server ---------------------------------------------------------------------------------------------

    def join(self, instance: str) -> None:
        """Take a lock of one's own, and the deployment's key. Where that cannot be done, say so once in the log."""
        self._instance = instance
        self._key = secrets.token_bytes(_KEY_SIZE)
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            self._key = _read_key(self._folder / "key")
            self._lock = _lock(self._lock_path(instance), create=True)
        except OSError as error:
            log.warning(
                "The state folder cannot be written; no other server will find this one's sandboxes.",
                folder=str(self._folder),
                reason=error.strerror,
            )
            self._folder = None

    @property
    def is_shared(self) -> bool:
        """Other servers find what this one writes."""
        return self._folder is not None and self._lock is not None

    def token(self, nonce: str) -> bytes:
        """What a supervisor knows its servers by."""
        return hmac.new(self._key, f"token:{nonce}".encode(), hashlib.sha256).hexdigest().encode()

    def fingerprint(self, profile: Profile) -> str:
        """Equal for equal profiles alone; tells nothing of what is in one."""
        text = json.dumps(asdict(profile), sort_keys=True, default=str)
        return hmac.new(self._key, f"profile:{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def write(self, sandboxes: Sequence[SandboxRecord]) -> None:
        """Replace this server's file. Blocking; a failure is a line in the log."""
        if self._folder is None or self._lock is None:
            return
        document = {"version": _VERSION, "instance": self._instance, "pid": os.getpid()}
        document["sandboxes"] = [asdict(sandbox) for sandbox in sandboxes]
        try:
            _replace(self._file(self._instance), json.dumps(document).encode("utf-8", "surrogatepass"))
        except OSError as error:
            log.warning("The state file could not be written.", reason=error.strerror)

    def leave(self, *, keep: bool) -> None:
        """Let go of the lock. `keep` leaves the file to the next server."""
        if self._folder is None or self._lock is None:
            return
        if not keep:
            self._remove(self._instance)
        os.close(self._lock)
        self._lock = None

    # --- the others ----------------------------------------------------------------------------------------------

    def servers(self) -> list[ServerRecord]:
        """Every server with a file, dead or alive. Blocking."""
        return [
            ServerRecord(name, pid, self._is_alive(name), records)
            for name in self._names()
            for pid, records in [self._read(name)]
        ]

    def bequeathed(self) -> Iterator[tuple[str, tuple[SandboxRecord, ...]]]:
        """What dead servers left, by instance, while nobody else can take it; it is gone afterwards. Blocking."""
        for name in self._names():
            if name == self._instance:
                continue
            with suppress(OSError):
                lock = _lock(self._lock_path(name), create=False)
                try:
                    yield name, self._read(name)[1]
                    self._remove(name)
                finally:
                    os.close(lock)

    def _names(self) -> list[str]:
        if self._folder is None:
            return []
        try:
            return sorted(path.stem for path in self._folder.glob("*.json"))
        except OSError:
            return []

    def _is_alive(self, instance: str) -> bool:
        if instance == self._instance:
            return True
        try:
            os.close(_lock(self._lock_path(instance), create=False))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _read(self, instance: str) -> tuple[int, tuple[SandboxRecord, ...]]:
        """A file that cannot be read says nothing: its sandboxes remove themselves."""
        path = self._file(instance)
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(_MAX_FILE))
            return int(document["pid"]), tuple(map(_record, document["sandboxes"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return 0, ()

    def _file(self, instance: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{instance}.json"

    def _lock_path(self, instance: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{instance}.lock"

    def _remove(self, instance: str) -> None:
        with suppress(OSError):
            self._file(instance).unlink(missing_ok=True)
            self._lock_path(instance).unlink(missing_ok=True)

    # --- persistent workspaces -----------------------------------------------------------------------------------

    def note_workspace(self, task: TaskKey, place: str) -> None:
        """Remember whose a persistent workspace is: its name and folder do not tell. Blocking."""
        if self._folder is None:
            return
        document = {"principal": task.principal, "task": task.task, "place": place}
        with suppress(OSError):
            (self._folder / "workspaces").mkdir(mode=0o700, exist_ok=True)
            path = self._folder / "workspaces" / f"{task.digest}.json"
            if not path.exists():
                _replace(path, json.dumps(document).encode("utf-8", "surrogatepass"))

    def workspaces(self) -> Mapping[TaskKey, str]:
        """The persistent workspaces that were noted: volume or folder, by task. Blocking."""
        found: dict[TaskKey, str] = {}
        for path in sorted(self._folder.glob("workspaces/*.json")) if self._folder else ():
            with suppress(OSError, ValueError, TypeError, KeyError):
                document = json.loads(path.read_bytes())
                found[TaskKey(str(document["principal"]), str(document["task"]))] = str(document["place"])
        return found

    def forget_workspace(self, task: TaskKey) -> None:
        if self._folder is not None:
            (self._folder / "workspaces" / f"{task.digest}.json").unlink(missing_ok=True)


def _record(table: Mapping[str, Any]) -> SandboxRecord:
    """Raises what a table of other things brings: TypeError, AttributeError."""
    known = {name.name for name in fields(SandboxRecord)}
    record = SandboxRecord(**{key: value for key, value in table.items() if key in known})
    for field in fields(SandboxRecord):
        kind = _KINDS[str(field.type)]
        if not isinstance(getattr(record, field.name), kind):
            raise TypeError(f"{field.name} is of another type")
    return record


def _read_key(path: Path) -> bytes:
    """The deployment's key; the first server makes it, whole or not at all. Raises OSError."""
    for _ in range(2):
        with suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == _KEY_SIZE:
                return key
            path.unlink()
        draft = path.with_name(f".key-{secrets.token_hex(8)}")
        _write(draft, secrets.token_bytes(_KEY_SIZE))
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename, not over another server's
        draft.unlink()
    return path.read_bytes()


def _lock(path: Path, *, create: bool) -> int:
    """An open, locked file. Raises BlockingIOError: another process has the lock; OSError: it cannot be told."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(descriptor).st_nlink:
            raise FileNotFoundError(str(path))  # somebody else has just taken what it stood for
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(draft, data)
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)  # on a full disk a half of it would only take room
        raise


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
