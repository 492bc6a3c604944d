"""What each task was opened with: its environment, labels and lifetime, which outlive its sandbox and its server.

As with archives, a file is named after the server that has written it: two servers that run, and have a task of one
name and principal each, do not open each other's tasks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from taskcell.careful_clock import careful_time
from taskcell.deployment import state_files
from taskcell.deployment.archives import age_of
from taskcell.deployment.checked import number, text
from taskcell.deployment.state_files import own_folder, read_own, why
from taskcell.deployment.state_folder import StateFolder
from taskcell.environment import OF_TERMINAL, Environment
from taskcell.model import TaskKey

log = structlog.get_logger(__name__)

_FOLDER, _ENDING = "opened", ".json"
#: Bytes: four names, and sixteen labels.
_MAX_FILE = 64 << 10
#: Seconds that a file outlives its last use; longer than files are kept by default. On disk, files stay for ever, and
#: so does this.
KEPT_FOR = 60 * 86400.0
#: What reading something else than an opening brings.
OPENING_FAULTS = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Opening:
    """What one task was opened with.

    Arguments:
        labels: words of its client, by which it finds the task again.
        ends: when it is closed (seconds of the wall clock); 0: by nobody but its client, and its server's limits.
        due: the same by the monotonic clock of the server that counts it, so that a wall clock that jumps ends nothing.
    """

    environment: Environment = OF_TERMINAL
    labels: Mapping[str, str] = field(default_factory=dict)
    ends: float = 0.0
    due: float | None = field(default=None, compare=False)

    @property
    def seconds_left(self) -> float | None:
        """Until its lifetime is over, 0 at least; None: it has none."""
        if not self.ends:
            return None
        return max(0.0, self.ends - time.time() if self.due is None else self.due - time.monotonic())

    def counted(self, before: Opening | None) -> Opening:
        """The same with `due`, as it was counted before, or else by what the wall clock says now."""
        if before is not None and before.ends == self.ends:
            return replace(self, due=before.due)
        return replace(self, due=time.monotonic() + self.ends - time.time())


#: That of a task that nobody has opened with anything.
UNOPENED = Opening()


class OpenedTasks:
    """Remembers them in the deployment's folder; without one, in this server alone. Everything blocks.

    Arguments:
        here: what this server alone remembers, or what goes from one server to the next with the task.
        is_persistent: the tasks' files are on disk, and nothing is forgotten.
    """

    def __init__(self, deployment: StateFolder, here: dict[TaskKey, Opening], *, is_persistent: bool) -> None:
        self._deployment = deployment
        self._is_persistent = is_persistent
        self._here = here

    def note(self, task: TaskKey, opening: Opening) -> None:
        """The task has been opened. A failure to write it is a line in the log."""
        if opening == UNOPENED:
            self.forget(task)
            return
        try:
            if (folder := self._folder()) is None:
                self._here[task] = opening
                return
            own_folder(folder)
            self._prune(folder)
            state_files.replace(folder / self._name(task), document_of(task, opening).encode())
        except OSError as error:
            self._here[task] = opening
            log.warning("No later server will know what a task was opened with.", reason=why(error))

    def find(self, task: TaskKey) -> Opening:
        """What the task was opened with; nothing where nobody knows."""
        folder = self._folder()
        if folder is None or task in self._here:
            return self._here.get(task, UNOPENED)
        for path in self._of(folder, task):
            with suppress(*OPENING_FAULTS):
                key, opening = _read(path)
                if key == task:
                    # Used now; and this server's, if that has died which wrote it.
                    path.rename(folder / self._name(task))
                    (folder / self._name(task)).touch()
                    return opening
        return UNOPENED

    def known(self) -> Mapping[TaskKey, Opening]:
        """What is known of every task that this server would find."""
        folder = self._folder()
        written = {} if folder is None else read_opened(folder.parent, self._deployment.may_take)
        return {**written, **self._here}

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
        """The task's files, this server's own first, without those of servers that live and may have such a task."""
        own = folder / self._name(task)
        yield own
        for path in sorted(folder.glob(f"{task.digest}.*{_ENDING}")):
            if path != own and self._deployment.may_take(task, path.name.split(".")[1]):
                yield path

    def _prune(self, folder: Path) -> None:
        since = careful_time() - KEPT_FOR
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
        with suppress(*OPENING_FAULTS):
            if is_chosen(_read(path)[0]):
                path.unlink(missing_ok=True)


def read_opened(
    folder: Path | None, is_found: Callable[[TaskKey, str], bool] = lambda task, instance: True
) -> Mapping[TaskKey, Opening]:
    """What tasks were opened with, the newest word on each. Blocking.

    Arguments:
        folder: the deployment's.
        is_found: whether what a server has written of a task counts.
    """
    found: dict[TaskKey, Opening] = {}
    for path in () if folder is None else sorted((folder / _FOLDER).glob(f"*{_ENDING}"), key=age_of):
        with suppress(*OPENING_FAULTS):
            task, opening = _read(path)
            if is_found(task, path.name.split(".")[1]):
                found[task] = opening
    return found


def _read(path: Path) -> tuple[TaskKey, Opening]:
    """Raises what is in OPENING_FAULTS."""
    return opening_of(read_own(path, _MAX_FILE))


def document_of(task: TaskKey, opening: Opening) -> str:
    """What is written of one task, in ASCII."""
    document: dict[str, object] = {"principal": task.principal, "task": task.task}
    document |= {"environment": opening.environment.name, "image": opening.environment.image}
    document |= {"labels": dict(opening.labels), "ends": opening.ends}
    return json.dumps(document)


def opening_of(document: bytes | str) -> tuple[TaskKey, Opening]:
    """Read back what `document_of` wrote. Raises what is in OPENINGOPENING_FAULTS."""
    table = json.loads(document)
    principal, task, name, image = (text(table[key]) for key in ("principal", "task", "environment", "image"))
    labels = {text(key): text(value) for key, value in table.get("labels", {}).items()}
    return TaskKey(principal, task), Opening(Environment(name, image), labels, number(table.get("ends", 0)))
