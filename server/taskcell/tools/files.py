"""What the file tools have in common: each works on the files of its task's terminal sandbox."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from taskcell.config.settings import Settings
from taskcell.errors import ErrorCode, FileRefused
from taskcell.files.answers import FileAnswer, FileBytes, FileChange, FileReport
from taskcell.files.changing import TaskFile
from taskcell.files.history import FileHistory
from taskcell.files.run import run_file_command, run_program
from taskcell.files.search import ProgramOutput, RunProgram
from taskcell.files.store import FileStore, Target
from taskcell.model import WORKSPACE, Command, TaskKey, ToolCall
from taskcell.profile.build import terminal_profile
from taskcell.schema.properties import value_schema
from taskcell.tools.binding import CommandTool
from taskcell.tools.file_commands import FileCommand, target, workspace_target
from taskcell.tools.relative_paths import relative_hints
from taskcell.tools.tool import Access, ToolAnnotations, ToolReport, Watch

#: Seconds for a file command: it reads and writes memory or a local disk, and bounds its own searches to 20 seconds.
FILE_TIMEOUT = 30.0

PATH = {
    "type": "string",
    "minLength": 1,
    "description": f"Absolute, or relative to {WORKSPACE}.",
}
#: Properties of structured content.
FILE = value_schema("string", "Absolute path in the container.")
TASK = value_schema("string", "Name of the task.")
SIZE = value_schema("integer", "Size of the file in bytes.")


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a file tool: the files of its sandbox, and what is remembered of them."""

    task: TaskKey
    store: FileStore
    history: FileHistory
    program: RunProgram

    def file(self, found: Target) -> TaskFile:
        return TaskFile(self.store, self.history, self.task, found)


@dataclass(frozen=True, kw_only=True)
class FileTool(CommandTool):
    """A file tool.

    Arguments:
        output_chars: maximum characters of one answer.
    """

    output_chars: int

    @abstractmethod
    async def answer(self, job: Job, values: Mapping[str, Any]) -> FileAnswer:
        """Do what a call asks for. Raises FileRefused, BadArgument and SandboxLost."""

    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        commands, values = self.commands(call), self.check(call)
        for command in commands:
            gateway.authorize(command)
        path = values.get("path", ".")
        return await self._in_sandbox(gateway, commands[0], lambda job: self.answer(job, values), path)

    async def fetch(self, gateway: Access, task: TaskKey, path: str) -> FileReport:
        """Read a whole file of any content. Raises a TaskcellError; FileRefused if the sandbox refuses."""
        command = FileCommand().bind(self.blank(task), {"path": path})

        async def read(job: Job) -> FileAnswer:
            found = target(path)
            return FileBytes(found.shown, (await job.store.fetch(found)).data)

        return await self._in_sandbox(gateway, command, read)

    def in_workspace(self, call: ToolCall) -> Command:
        """Return the command that the policy judges for a path of the workspace alone."""
        path, task = str(call.arguments["path"]), TaskKey(call.principal, str(call.arguments["task_id"]))
        found = workspace_target(path)
        return replace(self.blank(task), argv=(self.name, found.inner), text=found.shown)

    async def _in_sandbox(self, gateway: Access, command: Command, work: Any, path: str = "/") -> FileReport:
        """Do work in the task's sandbox. `path`: as the call has it."""
        authorized = gateway.authorize(command)
        changes = not self.annotations.read_only
        async with gateway.pool.lease(command.task, authorized.profile, changes=changes) as (sandbox, notes):

            async def run(words: Sequence[str], stdin: bytes | None) -> bytes:
                part = replace(command, argv=tuple(words), stdin=stdin)
                return await run_file_command(sandbox, gateway.authorize(part))

            async def program(words: Sequence[str], most: int) -> ProgramOutput:
                part = replace(command, argv=tuple(words))
                return await run_program(sandbox, gateway.authorize(part), most)

            try:
                answer = await work(Job(command.task, FileStore(run), gateway.file_history, program))
            except FileRefused as refused:
                hints = (
                    await relative_hints(gateway, sandbox, command, path) if refused.code is ErrorCode.NOT_FOUND else []
                )
                raise refused.noted([*notes, *hints]) from None
            is_new = isinstance(answer, FileChange) and not answer.details.get("replaced", True)
            hints = await relative_hints(gateway, sandbox, command, path) if is_new else []
            return FileReport.of(command.task.task, answer, [*notes, *hints], self.output_chars)


def common(name: str, settings: Settings, *, reads: bool, idempotent: bool) -> dict[str, Any]:
    """Return what each file tool is made with: its name, its profile, and hints on what it does."""
    return {
        "name": name,
        "profile": terminal_profile(settings),
        "timeout": FILE_TIMEOUT,
        "output_chars": settings.limits.output_chars,
        "annotations": ToolAnnotations(read_only=reads, destructive=not reads, idempotent=idempotent, open_world=False),
    }
