"""Which environment each task was opened with, so that it has the same one after its sandbox, and its server, are gone.

As with archives, a file is named after the server that has written it: two servers that run, and have a task of one
name and principal each, do not open each other's tasks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from taskcell.deployment.checked import text
from taskcell.deployment.records import Deployment
from taskcell.deployment.state_files import own_folder, read_own, replace, why
from taskcell.environment import OF_TERMINAL, Environment
from taskcell.model import LOCAL_PRINCIPAL, TaskKey

log = structlog.get_logger(__name__)

_FOLDER, _ENDING = "opened", ".json"
#: Bytes: four names.
_MAX_FILE = 64 << 10
#: Seconds that a file outlives its last use; longer than files are kept by default. On disk, files stay for ever, and
#: so does this.
KEPT_FOR = 60 * 86400.0
_FAULTS = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class OpenedTasks:
    """Remembers them in the deployment's folder; without one, in this server alone. Everything blocks.

    Arguments:
        is_persistent: the tasks' files are on disk, and nothing is forgotten.
    """

    def __init__(self, deployment: Deployment, *, is_persistent: bool) -> None:
        self._deployment = deployment
        self._is_persistent = is_persistent
        self._here: dict[TaskKey, Environment] = {}

    def note(self, task: TaskKey, environment: Environment) -> None:
        """The task has been opened. A failure to write it is a line in the log."""
        document = {"principal": task.principal, "task": task.task, "environment": environment.name}
        document["image"] = environment.image
        try:
            if (folder := self._folder()) is None:
                self._here[task] = environment
                return
            own_folder(folder)
            self._prune(folder)
            replace(folder / self._name(task), json.dumps(document).encode("utf-8", "surrogatepass"))
        except OSError as error:
            self._here[task] = environment
            log.warning("No later server will know what a task was opened with.", reason=why(error))

    def find(self, task: TaskKey) -> Environment:
        """What the task was opened with; the default where nobody knows."""
        folder = self._folder()
        if folder is None or task in self._here:
            return self._here.get(task, OF_TERMINAL)
        for path in self._of(folder, task):
            with suppress(*_FAULTS):
                key, environment = _read(path)
                if key == task:
                    # Used now; and this server's, if that has died which wrote it.
                    path.rename(folder / self._name(task))
                    (folder / self._name(task)).touch()
                    return environment
        return OF_TERMINAL

    def forget(self, task: TaskKey) -> None:
        """The task was closed."""
        self._here.pop(task, None)
        if (folder := self._folder()) is not None:
            for path in self._of(folder, task):
                path.unlink(missing_ok=True)

    def _folder(self) -> Path | None:
        return self._deployment.folder / _FOLDER if self._deployment.folder and self._deployment.is_shared else None

    def _name(self, task: TaskKey) -> str:
        return f"{task.digest}.{self._deployment.instance}{_ENDING}"

    def _of(self, folder: Path, task: TaskKey) -> Iterator[Path]:
        """The task's files, this server's own first, without those of servers that live and may have a task so named.

        A task of the person's own is never two servers' at once.
        """
        own = folder / self._name(task)
        yield own
        for path in sorted(folder.glob(f"{task.digest}.*{_ENDING}")):
            is_free = task.principal == LOCAL_PRINCIPAL or not self._deployment.is_alive(path.name.split(".")[1])
            if path != own and is_free:
                yield path

    def _prune(self, folder: Path) -> None:
        since = time.time() - KEPT_FOR
        for path in () if self._is_persistent else folder.glob(f"*{_ENDING}"):
            with suppress(OSError):
                if path.stat().st_mtime < since:
                    path.unlink()


def forget_opened(folder: Path | None, is_chosen: Callable[[TaskKey], bool]) -> None:
    """Forget what the chosen tasks were opened with, whichever server has written it. Blocking.

    Arguments:
        folder: the deployment's.
    """
    for path in () if folder is None else sorted((folder / _FOLDER).glob(f"*{_ENDING}")):
        with suppress(*_FAULTS):
            if is_chosen(_read(path)[0]):
                path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[TaskKey, Environment]:
    """Raises what is in _FAULTS."""
    table = json.loads(read_own(path, _MAX_FILE))
    principal, task, name, image = (text(table[key]) for key in ("principal", "task", "environment", "image"))
    return TaskKey(principal, task), Environment(name, image)
