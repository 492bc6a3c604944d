"""The errors that taskcell raises on purpose, under one root.

Each message is one sentence or two: what happened, and what to do next.
"""

from __future__ import annotations


class TaskcellError(Exception):
    """The root of all errors that taskcell raises on purpose; `str(error)` is fit for the user and the model."""


class ConfigError(TaskcellError):
    """The configuration cannot be used. The person who wrote it must act."""


class ManifestError(TaskcellError):
    """One or more skill manifests cannot be used. `faults` holds one sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class BadArgument(TaskcellError):
    """A tool call's arguments are wrong. The model must act: the message names the argument and what it may be."""


class UnknownTool(BadArgument):
    """There is no tool of that name."""


class UnknownProcess(BadArgument):
    """The task has no process of that name, or has forgotten it."""


class UnknownResource(BadArgument):
    """No resource has that address, or the one that has it is another task's."""


class FileRefused(TaskcellError):
    """A file of the sandbox cannot be read, written, changed or listed as asked.

    Arguments:
        absent: no file or folder has that path.
        folder: the path leads to a folder, and a file is needed.
    """

    def __init__(self, message: str, *, absent: bool = False, folder: bool = False) -> None:
        super().__init__(message)
        self.absent = absent
        self.folder = folder

    def noted(self, notes: list[str]) -> FileRefused:
        """Return the same refusal, followed by sentences about the sandbox that explain it."""
        return FileRefused(" ".join([str(self), *notes]), absent=self.absent, folder=self.folder)


class Denied(TaskcellError):
    """The policy refused a profile or a command.

    Arguments:
        rule: name of the rule that decided.
        reason: a sentence for the model.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"Denied by the policy's rule '{rule}': {reason}")
        self.rule = rule
        self.reason = reason


class EngineError(TaskcellError):
    """The container engine refused or failed. The person who runs the server must act."""


class EngineUnavailable(EngineError):
    """No container engine answers."""


class ImageMissing(EngineError):
    """The image is not on the engine and could not be pulled."""


class ProtocolError(TaskcellError):
    """The supervisor's bytes, or a request to it, break `docs/protocol.md`."""


class SandboxLost(TaskcellError):
    """The sandbox died, or its channel broke, while a call needed it. The command is never run again."""


class NoRoom(TaskcellError):
    """Sandboxes that are in use take all places of the pool. The message says whose they are."""


class SpawnFailed(TaskcellError):
    """The program could not be started in the sandbox: not found, not executable, no such folder or user.

    Arguments:
        no_folder: the working directory could not be used. Whatever the reason, the program was not executed.
        no_room: the sandbox cannot have one more process.
    """

    def __init__(self, message: str, *, no_folder: bool = False, no_room: bool = False) -> None:
        super().__init__(message)
        self.no_folder = no_folder
        self.no_room = no_room
