"""The results of the file tools: as text, what taskcell says about it, and structured content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from taskcell.fitting import fitting
from taskcell.process.result import NOTE_MARKS
from taskcell.text import PATH_SHOWN, one_line, remarks, shown
from taskcell.units import format_size

PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def picture_type(data: bytes) -> str | None:
    """Return a picture's MIME type, judged by its first bytes; None if it is not a picture that models can see."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in PICTURES if data.startswith(magic)), None)


@dataclass(frozen=True, slots=True)
class FileText:
    """Lines `first_line` to `last_line` of a text file. `size` in bytes; `total_lines` None means not counted."""

    path: str
    text: str
    first_line: int
    last_line: int
    total_lines: int | None
    size: int
    truncated: bool
    notes: tuple[str, ...]

    @property
    def extent(self) -> int:
        """Characters of the text."""
        return len(self.text)

    def cut(self, most: int) -> FileText:
        """Return the beginning, which ends with a whole line unless the first line is longer."""
        if most >= len(self.text):
            return self
        text = self.text[: self.text.rfind("\n", 0, most) + 1] or self.text[:most]
        last = self.first_line - 1 + text.count("\n") + (not text.endswith("\n") and bool(text))
        return replace(self, text=text, last_line=last, truncated=True)

    def structured(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "kind": "text",
            "text": self.text,
            "mime_type": "text/plain",
            "first_line": self.first_line,
            "last_line": self.last_line,
            "total_lines": self.total_lines,
            "size": self.size,
            "truncated": self.truncated,
        }

    def output(self) -> str:
        """Return the lines with their numbers."""
        lines = self.text.removesuffix("\n").split("\n") if self.text else []
        return "".join(f"{number:>6}\t{line}\n" for number, line in enumerate(lines, self.first_line))

    def remark(self) -> str:
        """Say which lines these are, and how to go on."""
        if self.total_lines == 0:
            return "The file is empty"
        of = f"of a file of {format_size(self.size)}" if self.total_lines is None else f"of {self.total_lines}"
        more = f"; continue with offset={self.last_line + 1}" if self.truncated else ""
        return f"Lines {self.first_line} to {self.last_line} {of}{more}"


@dataclass(frozen=True, slots=True)
class FileBytes:
    """A whole file. `mime` is None unless it is a picture."""

    path: str
    data: bytes
    mime: str | None

    notes: ClassVar[tuple[str, ...]] = ()
    extent: ClassVar[int] = 0

    def cut(self, most: int) -> FileBytes:
        return self

    def structured(self) -> dict[str, Any]:
        """Describe a picture; its bytes go into an image block of the answer."""
        none = {"text": "", "first_line": 0, "last_line": 0, "total_lines": None, "truncated": False}
        return {"path": self.path, "kind": "image", "mime_type": self.mime, "size": len(self.data), **none}

    def output(self) -> str:
        return ""

    def remark(self) -> str:
        return f"{shown(self.path, PATH_SHOWN)}: {self.mime}, {len(self.data)} bytes"


@dataclass(frozen=True, slots=True)
class Written:
    """A written file. `size` in bytes; `replaced` means that there was one before."""

    path: str
    size: int
    replaced: bool

    notes: ClassVar[tuple[str, ...]] = ()
    extent: ClassVar[int] = 0

    def cut(self, most: int) -> Written:
        return self

    def structured(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "replaced": self.replaced}

    def output(self) -> str:
        return ""

    def remark(self) -> str:
        return f"{'Replaced' if self.replaced else 'Created'} {shown(self.path, PATH_SHOWN)}: {self.size} bytes"


@dataclass(frozen=True, slots=True)
class Edited:
    """A file in which `count` places were replaced; `lines` has the first of them. `size` in bytes."""

    path: str
    count: int
    lines: tuple[int, ...]
    size: int

    notes: ClassVar[tuple[str, ...]] = ()
    extent: ClassVar[int] = 0

    def cut(self, most: int) -> Edited:
        return self

    def structured(self) -> dict[str, Any]:
        return {"path": self.path, "count": self.count, "lines": list(self.lines), "size": self.size}

    def output(self) -> str:
        return ""

    def remark(self) -> str:
        places = "1 place" if self.count == 1 else f"{self.count} places"
        more = ", …" if self.count > len(self.lines) else ""
        lines = ", ".join(map(str, self.lines))
        at = f"at line{'' if self.count == 1 else 's'} {lines}{more}"
        return f"Replaced {places} in {shown(self.path, PATH_SHOWN)}, {at}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path in a folder.

    Arguments:
        size: in bytes, of files only.
        modified: in UTC.
        target: of links only.
        is_altered: `path` has symbols in the place of control characters.
    """

    path: str
    type: str
    size: int | None
    modified: str
    target: str | None
    is_altered: bool = False

    def shown(self) -> str:
        size = "-" if self.size is None else str(self.size)
        end = "/" if self.type == "folder" else f" -> {one_line(self.target)}" if self.target is not None else ""
        return f"{size:>10}  {self.modified}  {one_line(self.path)}{end}"


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The matching entries of a folder, ordered by path."""

    path: str
    entries: tuple[Entry, ...]
    truncated: bool
    notes: tuple[str, ...]

    fields: ClassVar[tuple[str, ...]] = ("path", "type", "size", "modified", "target")

    @property
    def extent(self) -> int:
        """How many entries."""
        return len(self.entries)

    def cut(self, most: int) -> FolderListing:
        return replace(self, entries=self.entries[:most], truncated=self.truncated or most < len(self.entries))

    def structured(self) -> dict[str, Any]:
        entries = [{name: getattr(entry, name) for name in self.fields} for entry in self.entries]
        return {"path": self.path, "entries": entries, "truncated": self.truncated}

    def output(self) -> str:
        return "".join(f"{entry.shown()}\n" for entry in self.entries)

    def remark(self) -> str:
        if not self.entries and not self.truncated:
            return "Nothing matches"
        count = "1 entry" if len(self.entries) == 1 else f"{len(self.entries)} entries"
        return f"{count}, not all: narrow it with 'glob', or name a folder in 'path'" if self.truncated else count


FileAnswer = FileText | FileBytes | Written | Edited | FolderListing


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to show beside the text of an answer. `mime` is its type, such as `image/png`."""

    data: bytes
    mime: str


@dataclass(frozen=True, slots=True)
class FileReport:
    """The result of a file tool for a task; `notes` are about its sandbox, then about the answer."""

    task_id: str
    answer: FileAnswer
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, task_id: str, answer: FileAnswer, notes: Iterable[str], output_chars: int) -> FileReport:
        """Return the report with as many notes as an answer of `output_chars` characters has room for."""
        room = output_chars - len(answer.output()) - len(remarks(answer.remark()))
        return cls(task_id, answer, fitting((*notes, *answer.notes), room, NOTE_MARKS))

    is_error: ClassVar[bool] = False

    @property
    def pictures(self) -> tuple[Picture, ...]:
        answer = self.answer
        return (Picture(answer.data, answer.mime),) if isinstance(answer, FileBytes) and answer.mime else ()

    @property
    def extent(self) -> int:
        """Characters of text, or entries of a listing."""
        return self.answer.extent

    def cut(self, most: int) -> FileReport:
        return replace(self, answer=self.answer.cut(most))

    def structured(self) -> dict[str, Any]:
        return {**self.answer.structured(), "notes": list(self.notes), "task_id": self.task_id}

    def output(self) -> str:
        return self.answer.output()

    def said(self) -> str:
        return remarks(self.answer.remark(), self.notes)
