"""What the servers of one deployment write about themselves for each other, wherever it is kept."""

from __future__ import annotations

from dataclasses import dataclass

from taskcell.model import TaskKey


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One sandbox, as other servers and `taskcell ps` find it. Times are seconds of the wall clock.

    Arguments:
        container, name: the engine's id of it, and its name.
        principal, task: the task that has it; both empty while no task has it.
        fingerprint: of the profile that it was made with.
        nonce: its token was derived from this.
        workspace: the task's volume, or folder; `is_owner` as in `Container`; `is_in_memory`: it is not persistent.
        idle_since: 0 while a call or a process has it.
        commands: the number of commands that the task has had.
        adopted: an earlier server made it.
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
    adopted: bool = False

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.principal, self.task)


@dataclass(frozen=True, slots=True)
class NoteRecord:
    """Something that no answer has said yet: how a sandbox ended, or (without a profile) a sentence for its task."""

    principal: str
    task: str
    profile: str
    text: str


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """What one server wrote. `alive`: it still runs, as far as others see."""

    instance: str
    pid: int
    alive: bool
    sandboxes: tuple[SandboxRecord, ...] = ()
    notes: tuple[NoteRecord, ...] = ()
