"""A folder with the supervisor's file program, and the file tools on it, for tests that need no sandbox."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from taskcell.config.settings import Settings
from taskcell.errors import FileRefused
from taskcell.files.answers import FileAnswer, FileBytes, FileChange, FileText
from taskcell.files.history import FileHistory
from taskcell.files.listings import FolderListing
from taskcell.files.search import NO_PROGRAM, ProgramOutput
from taskcell.files.store import FileStore
from taskcell.model import TaskKey, ToolCall
from taskcell.tools.catalog import build_tools
from taskcell.tools.files import FileTool, Job

#: Seconds for a command that takes milliseconds.
PATIENCE = 60
TASK = TaskKey("p", "default")


def tool_of(name: str, output_chars: int = 50_000) -> FileTool:
    tool = build_tools(Settings(limits={"output_chars": output_chars}), [])[name]
    assert isinstance(tool, FileTool)
    return tool


def shown(answer: FileAnswer) -> str:
    """All that a model reads of an answer."""
    notes = "".join(f"[note: {note}]\n" for note in answer.notes)
    return f"{answer.output()}[{answer.remark()}]\n{notes}"


class Files:
    """A folder in the place of a workspace, the file tools on it, and what is remembered of its files."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.history = FileHistory()
        self.front: list[str] = []  # words before the program, such as those that make it another user's
        folder.mkdir()

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def command(self, *words: str, stdin: bytes | None = None) -> bytes:
        """One command of the program, and its reply."""
        done = subprocess.run(
            [*self.front, self.binary, "file", *words],
            cwd=self.folder,
            env={"ASAN_OPTIONS": "detect_leaks=0"},  # what ends at once leaves its memory to the kernel
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    @property
    def store(self) -> FileStore:
        async def run(words: Sequence[str], stdin: bytes | None) -> bytes:
            return await to_thread.run_sync(lambda: self.command(*words, stdin=stdin))

        return FileStore(run)

    async def answer(self, name: str, output_chars: int = 50_000, **arguments: Any) -> FileAnswer:
        tool = tool_of(name, output_chars)
        call = ToolCall(TASK.principal, name, arguments)
        tool.commands(call)
        return await tool.answer(Job(TASK, self.store, self.history, self._program), tool.check(call))

    async def _program(self, words: Sequence[str], _: int) -> ProgramOutput:
        """Programs that this machine may have or not are not there; those of an image need a sandbox."""

        def run() -> ProgramOutput:
            if words[0] == "python3":
                return ProgramOutput(NO_PROGRAM, b"", b"", is_whole=True, timed_out=False)
            done = subprocess.run(words, cwd=self.folder, capture_output=True, timeout=PATIENCE, check=False)
            return ProgramOutput(done.returncode, done.stdout, done.stderr, is_whole=True, timed_out=False)

        return await to_thread.run_sync(run)

    def call(self, name: str, output_chars: int = 50_000, **arguments: Any) -> FileAnswer:
        return anyio.run(lambda: self.answer(name, output_chars, **arguments))

    def read(self, path: str, output_chars: int = 50_000, **arguments: Any) -> FileAnswer:
        return self.call("read_file", output_chars, path=path, **arguments)

    def text(self, path: str, output_chars: int = 50_000, **arguments: Any) -> FileText:
        answer = self.read(path, output_chars, **arguments)
        assert isinstance(answer, FileText)
        return answer

    def picture(self, path: str) -> FileBytes:
        answer = self.read(path)
        assert isinstance(answer, FileBytes)
        return answer

    def write(self, path: str, content: str, **arguments: Any) -> FileChange:
        answer = self.call("write_file", path=path, content=content, **arguments)
        assert isinstance(answer, FileChange)
        return answer

    def edit(self, path: str, old: str | None = None, new: str | None = None, **arguments: Any) -> FileChange:
        given = {name: value for name, value in (("old", old), ("new", new)) if value is not None}
        answer = self.call("edit_file", path=path, **given, **arguments)
        assert isinstance(answer, FileChange)
        return answer

    def list(self, path: str = ".", output_chars: int = 50_000, **arguments: Any) -> FolderListing:
        answer = self.call("list_files", output_chars, path=path, **arguments)
        assert isinstance(answer, FolderListing)
        return answer

    def names(self, path: str = ".", **arguments: Any) -> list[str]:
        return [entry.path for entry in self.list(path, **arguments).entries]

    def refused(self, act: Callable[[], object]) -> FileRefused:
        """The refusal, after which no temporary file is left."""
        with pytest.raises(FileRefused) as caught:
            act()
        assert not [path for path in self.folder.rglob("*") if path.name.startswith(".taskcell")]
        return caught.value
