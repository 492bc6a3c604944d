"""The errors that taskcell raises on purpose, under one root.

Each message is one sentence or two: what happened, and what to do next.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """What kind of refusal it is, for programs. The words are the field's."""

    NOT_FOUND = "not_found"
    IS_A_DIRECTORY = "is_a_directory"
    PERMISSION_DENIED = "permission_denied"
    DENIED = "denied"
    INVALID_ARGUMENT = "invalid_argument"
    TOO_LARGE = "too_large"
    NO_CAPACITY = "no_capacity"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    IMAGE_MISSING = "image_missing"
    LOST = "lost"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class TaskcellError(Exception):
    """The root of all errors that taskcell raises on purpose; `str(error)` is fit for the user and the model.

    Arguments:
        code: another kind than the class's own.
    """

    code = ErrorCode.INTERNAL

    def __init__(self, message: str = "", *, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.code = code or type(self).code

    def fields(self) -> dict[str, Any]:
        """Return what a program reads of the error, as JSON-ready values, beside its sentence."""
        return {"code": self.code.value}


class ConfigError(TaskcellError):
    """The configuration cannot be used. The person who wrote it must act."""


class ManifestError(TaskcellError):
    """One or more skill manifests cannot be used. `faults` holds one sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class BadArgument(TaskcellError):
    """A tool call's arguments are wrong. The model must act: the message names the argument and what it may be."""

    code = ErrorCode.INVALID_ARGUMENT


class UnknownTool(BadArgument):
    """There is no tool of that name."""

    code = ErrorCode.NOT_FOUND


class UnknownProcess(BadArgument):
    """The task has no process of that name, or has forgotten it."""

    code = ErrorCode.NOT_FOUND


class UnknownResource(BadArgument):
    """No resource has that address, or the one that has it is another task's."""

    code = ErrorCode.NOT_FOUND


class FileRefused(TaskcellError):
    """A file of the sandbox cannot be read, written, changed or listed as asked.

    Arguments:
        changed: something else changed the file meanwhile, so that trying again may succeed.
        excerpt: lines of the file that help to do better. They are the file's words, not taskcell's.
    """

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(
        self, message: str, *, code: ErrorCode | None = None, changed: bool = False, excerpt: str = ""
    ) -> None:
        super().__init__(message, code=code)
        self.changed = changed
        self.excerpt = excerpt

    def noted(self, notes: list[str]) -> FileRefused:
        """Return the same refusal, followed by sentences about the sandbox that explain it."""
        return FileRefused(" ".join([str(self), *notes]), code=self.code, excerpt=self.excerpt)


class Denied(TaskcellError):
    """The policy refused a profile or a command.

    Arguments:
        rule: name of the rule that decided.
        reason: a sentence for the model.
    """

    code = ErrorCode.DENIED

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"Denied by the policy's rule '{rule}': {reason}")
        self.rule = rule
        self.reason = reason

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "rule": self.rule}


class MustAsk(Denied):
    """A person must confirm a command first. Whoever cannot ask one takes it as a denial.

    Arguments:
        tool, command: what would run.
    """

    def __init__(self, rule: str, reason: str, tool: str, command: str) -> None:
        super().__init__(rule, f"{reason} A person must confirm it first, and there is no way to ask one here.")
        self.reason = reason
        self.tool = tool
        self.command = command


class EngineError(TaskcellError):
    """The container engine refused or failed. The person who runs the server must act."""

    code = ErrorCode.ENGINE_UNAVAILABLE


class EngineUnavailable(EngineError):
    """No container engine answers."""


class ImageMissing(EngineError):
    """The image is not on the engine and could not be pulled."""

    code = ErrorCode.IMAGE_MISSING


class ProtocolError(TaskcellError):
    """The supervisor's bytes, or a request to it, break `docs/protocol.md`."""

    code = ErrorCode.LOST


class SandboxLost(TaskcellError):
    """The sandbox died, or its channel broke, while a call needed it. The command is never run again."""

    code = ErrorCode.LOST


class OutputLost(SandboxLost):
    """A part of a command's output is not kept any more."""

    def __init__(self, message: str = "A part of the output is not kept any more, and is lost.") -> None:
        super().__init__(message)

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "output_lost": True}


class ReadElsewhere(SandboxLost):
    """Whoever read a command's output reads on elsewhere."""

    def __init__(self, message: str = "This stream ends here, and the command goes on; take it up by its id.") -> None:
        super().__init__(message)

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "goes_on": True}


class Taken(SandboxLost):
    """Another server has the container, or it is gone; nothing ran in it."""


class HeldElsewhere(SandboxLost):
    """Another server of the deployment has the task.

    Arguments:
        door: the socket of that server, which only the user can open whom both run as; empty where it has none.
    """

    def __init__(self, door: str) -> None:
        super().__init__("Another server of this deployment has the task; ask that one.")
        self.door = door

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), **({"door": self.door} if self.door else {})}


class TaskMoved(SandboxLost):
    """Another server of the deployment has, or gets, the task. Nothing was run, so that the call can be handed on."""

    def __init__(self, sentence: str = "") -> None:
        super().__init__(sentence or "The task moves to another server of the deployment at this moment; call again.")

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "moved": True}


class NoRoom(TaskcellError):
    """Sandboxes that are in use take all places of the pool. The message says whose they are."""

    code = ErrorCode.NO_CAPACITY


class SpawnFailed(TaskcellError):
    """The program could not be started in the sandbox: not found, not executable, no such folder or user.

    Arguments:
        no_folder: the working directory could not be used. Whatever the reason, the program was not executed.
        no_room: the sandbox cannot have one more process.
        no_program: the kernel cannot execute it.
    """

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(
        self,
        message: str,
        *,
        no_folder: bool = False,
        no_room: bool = False,
        no_program: bool = False,
        code: ErrorCode | None = None,
    ) -> None:
        super().__init__(message, code=ErrorCode.NO_CAPACITY if no_room else code)
        self.no_folder = no_folder
        self.no_room = no_room
        self.no_program = no_program
