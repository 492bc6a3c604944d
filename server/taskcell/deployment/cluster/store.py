"""The folder that all servers of a cluster's deployment reach, for kept files and snapshots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from taskcell.careful_clock import careful_time
from taskcell.deployment.archives import age_of
from taskcell.deployment.cluster.members import TERM, Members
from taskcell.deployment.state_files import own_folder, why
from taskcell.model import TaskKey

log = structlog.get_logger(__name__)

#: The file by whose replacement a server sees that it can write.
_TRIED = ".tried"


class SharedStore:
    """A folder on a volume that every server has. It has no locks: not every such volume knows them.

    A task's archives are written and read by the server alone that has the task's Lease. A file comes into its place
    whole, by its name. One server deletes what is old, as a hash names it among those that live.

    Arguments:
        folder: of this deployment alone; made when the server joins. None: there is no such volume.
        has: whether a task is surely this server's.
    """

    def __init__(self, folder: Path | None, members: Members, has: Callable[[TaskKey], bool]) -> None:
        self.folder = folder
        self.is_shared = False
        self._members = members
        self.has = has

    def join(self) -> None:
        """Look whether it can be written. Blocking; a failure is a line in the log."""
        if self.folder is None:
            return
        try:
            own_folder(self.folder)
            tried = self.folder / f"{_TRIED}.{self.instance}"
            tried.touch(mode=0o600)
            tried.unlink()
        except OSError as error:
            sentence = "workspace.store cannot be written: no files are kept, and there are no snapshots."
            log.warning(sentence, folder=str(self.folder), reason=why(error))
        else:
            self.is_shared = True

    @property
    def instance(self) -> str:
        return self._members.instance

    @property
    def cleans(self) -> bool:
        return self._members.lead_of("store") == self.instance

    def is_over(self, instance: str, draft: Path) -> bool:
        """Its server does not live, or is so new that this one has not seen it yet: then it has just begun."""
        return not self._members.is_alive(instance) and careful_time() - age_of(draft) > TERM

    def may_take(self, task: TaskKey, instance: str) -> bool:
        """Whoever wrote it: no two servers have the same task."""
        return True
