"""Which server of a deployment has a task, so that every other one hands calls for it over.

A claim is a small file with the name of a server, in the deployment's folder. It holds as long as that server lives.
Claims change one at a time, under a lock; whoever reads one sees it whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taskcell.deployment.base import Claimed
from taskcell.deployment.state_files import is_locked, lock, own_folder, read_own, replace
from taskcell.deployment.state_folder import DOOR, StateFolder
from taskcell.model import TaskKey

#: Bytes of a claim: the name of a server.
_MAX_CLAIM = 64
#: Seconds for another server to change a claim, which takes it a millisecond, and seconds between two attempts.
CLAIM_PATIENCE, CLAIM_TURN = 2.0, 0.002


class ClaimFiles:
    """The claims of one server. Its methods are blocking, for some file accesses.

    Arguments:
        door: of this server; its folder is the deployment's.
    """

    def __init__(self, deployment: StateFolder, door: Path) -> None:
        self._deployment = deployment
        self._deployment_folder = door.parent
        self._folder = door.parent / "tasks"
        self._instance = door.stem
        self.own: set[TaskKey] = set()

    def claim(self, task: TaskKey) -> Claimed:
        """Take a task unless a server that lives has it. Raises OSError."""
        holder = holder_of(self._deployment_folder, task)
        if holder and holder != self._instance and self._lives(holder):
            return Claimed(self._door(holder))
        with self._exclusive():
            holder = holder_of(self._deployment_folder, task)
            if holder in ("", self._instance) or not self._lives(holder):
                heir = self._heir(task)
                if not heir:
                    replace(self._folder / task.digest, self._instance.encode())
                    self.own.add(task)
                    return Claimed(dead="" if holder == self._instance else holder)
                holder = heir
            return Claimed(self._door(holder))

    def take(self, tasks: Collection[TaskKey]) -> None:
        """Claimed tasks that this server has sandboxes of already, unless another one that lives has claimed them."""
        for task in tasks:
            if task not in self.own:
                with suppress(OSError):
                    self.claim(task)

    def release(self, tasks: Collection[TaskKey]) -> None:
        """Give up tasks of which nothing is here any more."""
        for task in tasks:
            with suppress(OSError), self._exclusive():
                self.own.discard(task)
                if holder_of(self._deployment_folder, task) == self._instance:
                    (self._folder / task.digest).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the claims of servers that have ended and left nothing."""
        with suppress(OSError), self._exclusive():
            for path in self._folder.iterdir():
                holder = _read(path)
                if holder and not self._lives(holder) and not (self._deployment_folder / f"{holder}.json").exists():
                    path.unlink(missing_ok=True)

    def _heir(self, task: TaskKey) -> str:
        """The living server that has taken over sandboxes of the task from one that has died; empty if none has."""
        for other in self._deployment.servers():
            adopted = (record.key for record in other.sandboxes if record.adopted)
            if other.alive and other.instance != self._instance and task in adopted:
                return other.instance
        return ""

    def _lives(self, instance: str) -> bool:
        return instance == self._instance or is_locked(self._deployment_folder / f"{instance}.lock")

    def _door(self, instance: str) -> Path:
        return self._deployment_folder / f"{instance}{DOOR}"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Let no other server change a claim. Raises OSError, also when that takes too long."""
        own_folder(self._folder)
        deadline = time.monotonic() + CLAIM_PATIENCE
        while True:
            try:
                held = lock(self._deployment_folder / "tasks.lock", create=True)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(CLAIM_TURN)
        try:
            yield
        finally:
            os.close(held)


def holder_of(folder: Path, task: TaskKey) -> str:
    """The name of the server that has claimed a task, dead or alive; empty if none has. Blocking.

    Arguments:
        folder: the deployment's.
    """
    return _read(folder / "tasks" / task.digest)


def _read(path: Path) -> str:
    try:
        name = read_own(path, _MAX_CLAIM).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return name if name.isalnum() else ""
