"""A folder with the supervisor's file program, for tests that need no sandbox."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskcell.config.settings import Settings
from taskcell.errors import FileRefused
from taskcell.files.answers import Edited, FileAnswer, FileText, FolderListing, Written
from taskcell.files.reply import parse_reply
from taskcell.model import Command, ToolCall
from taskcell.tools.catalog import build_tools
from taskcell.tools.files import FileTool

#: Seconds for a command that takes milliseconds.
PATIENCE = 60
TOOLS = {name: tool for name, tool in build_tools(Settings(), []).items() if isinstance(tool, FileTool)}


class Files:
    """A folder in the place of a workspace, and the file tools on it."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        folder.mkdir()

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def run(self, command: Command, output_chars: int = 50_000, stdin: bytes | None = None) -> FileAnswer:
        done = subprocess.run(
            [self.binary, "file", *command.argv],
            cwd=self.folder,
            env={"ASAN_OPTIONS": "detect_leaks=0"},  # what ends at once leaves its memory to the kernel
            input=command.stdin if stdin is None else stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return parse_reply(command, done.stdout, output_chars)

    def bind(self, tool: str, **arguments: Any) -> Command:
        return TOOLS[tool].bind(ToolCall("p", tool, arguments))

    def read(self, path: str, output_chars: int = 50_000, **arguments: Any) -> FileAnswer:
        tool = next(
            tool
            for tool in build_tools(Settings(limits={"output_chars": output_chars}), []).values()
            if tool.name == "read_file"
        )
        return self.run(tool.bind(ToolCall("p", "read_file", {"path": path, **arguments})), output_chars)

    def text(self, path: str, output_chars: int = 50_000, **arguments: Any) -> FileText:
        answer = self.read(path, output_chars, **arguments)
        assert isinstance(answer, FileText)
        return answer

    def write(self, path: str, content: str, **arguments: Any) -> Written:
        answer = self.run(self.bind("write_file", path=path, content=content, **arguments))
        assert isinstance(answer, Written)
        return answer

    def edit(self, path: str, old: str, new: str, **arguments: Any) -> Edited:
        answer = self.run(self.bind("edit_file", path=path, old=old, new=new, **arguments))
        assert isinstance(answer, Edited)
        return answer

    def list(self, path: str = ".", **arguments: Any) -> FolderListing:
        answer = self.run(self.bind("list_files", path=path, **arguments))
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
