"""The results of the file tools: as text, what taskcell says about it, and structured content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from taskcell.files.listings import FolderListing, Found
from taskcell.files.pictures import Looked
from taskcell.fitting import fitting
from taskcell.process.result import NOTE_MARKS
from taskcell.text import PATH_SHOWN, one_line, remarks, shown
from taskcell.units import format_size


@dataclass(frozen=True, slots=True)
class FileText:
    """Lines `first_line` to `last_line` of a text file. `size` in bytes; `total_lines` None means not counted.

    Arguments:
        truncated: more lines follow.
        encoding: as people know it, such as `UTF-16LE with BOM`.
    """

    path: str
    text: str
    first_line: int
    last_line: int
    total_lines: int | None
    size: int
    truncated: bool
    notes: tuple[str, ...]
    encoding: str = "UTF-8"

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
            "encoding": self.encoding,
            "first_line": self.first_line,
            "last_line": self.last_line,
            "total_lines": self.total_lines,
            "size": self.size,
            "truncated": self.truncated,
        }

    def output(self) -> str:
        """Return the lines with their numbers."""
        lines = self.text.removesuffix("\n").split("\n") if self.text else []
        return "".join(f"{number}\t{line}\n" for number, line in enumerate(lines, self.first_line))

    def remark(self) -> str:
        """Say which lines these are, and how to go on."""
        if self.total_lines == 0:
            return "The file is empty"
        of = f"of a file of {format_size(self.size)}" if self.total_lines is None else f"of {self.total_lines}"
        more = f"; continue with offset={self.last_line + 1}" if self.truncated else ""
        return f"Lines {self.first_line} to {self.last_line} {of}{more}"


@dataclass(frozen=True, slots=True)
class FileBytes:
    """A whole file, or what is shown of a picture. `picture` is None unless it is one that models can see."""

    path: str
    data: bytes
    picture: Looked | None = None
    notes: tuple[str, ...] = ()

    extent: ClassVar[int] = 0

    @property
    def mime(self) -> str | None:
        return self.picture.mime if self.picture else None

    def cut(self, most: int) -> FileBytes:
        return self

    def structured(self) -> dict[str, Any]:
        """Describe a picture; its bytes go into an image block of the answer."""
        none = {"text": "", "encoding": "", "first_line": 0, "last_line": 0, "total_lines": None, "truncated": False}
        return {"path": self.path, "kind": "image", "mime_type": self.mime, "size": len(self.data), **none}

    def output(self) -> str:
        return ""

    def remark(self) -> str:
        sides = f", {self.picture.width}x{self.picture.height} pixels" if self.picture else ""
        return f"{shown(self.path, PATH_SHOWN)}: {self.mime}{sides}, {len(self.data)} bytes"


@dataclass(frozen=True, slots=True)
class SeveralFiles:
    """Several files of one call, in its order; in the place of one that could not be read is the sentence why."""

    parts: tuple[FileText | FileBytes | str, ...]

    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def extent(self) -> int:
        return sum(part.extent for part in self.parts if not isinstance(part, str))

    def cut(self, most: int) -> SeveralFiles:
        kept: list[FileText | FileBytes | str] = []
        for part in self.parts:
            short = part if isinstance(part, str) else part.cut(max(0, most))
            most -= 0 if isinstance(short, str) else short.extent
            kept.append(short)
        return SeveralFiles(tuple(kept))

    def structured(self) -> dict[str, Any]:
        none = {"path": "", "kind": "several", "mime_type": "", "encoding": "", "text": "", "first_line": 0}
        files = [{"error": part} if isinstance(part, str) else part.structured() for part in self.parts]
        return {**none, "last_line": 0, "total_lines": None, "size": 0, "truncated": False, "files": files}

    def output(self) -> str:
        texts = (part for part in self.parts if isinstance(part, FileText))
        return "\n".join(f"==> {one_line(part.path)} <==\n{part.output()}" for part in texts)

    def remark(self) -> str:
        return "; ".join(part if isinstance(part, str) else _remark_in_list(part) for part in self.parts)


def _remark_in_list(part: FileText | FileBytes) -> str:
    about = "" if isinstance(part, FileBytes) else f"{one_line(part.path)}: "
    return " ".join([about + part.remark(), *(f"({note.removesuffix('.')})" for note in part.notes)])


@dataclass(frozen=True, slots=True)
class ChangedLines:
    """Some lines of a file, from the line `first`; those beyond the last are only counted in `more`."""

    first: int
    lines: tuple[str, ...]
    more: int = 0

    def shown(self) -> str:
        numbered = "".join(f"{number}\t{line}\n" for number, line in enumerate(self.lines, self.first))
        return f"{numbered}… {self.more} more lines\n" if self.more else numbered


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that was written or changed, in a sentence, with the new lines.

    Arguments:
        size: of the file afterwards, in bytes.
        details: what structured content has beside path and size.
    """

    path: str
    said: str
    size: int
    details: dict[str, Any]
    excerpts: tuple[ChangedLines, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def extent(self) -> int:
        return len(self.excerpts)

    def cut(self, most: int) -> FileChange:
        return replace(self, excerpts=self.excerpts[:most])

    def structured(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, **self.details}

    def output(self) -> str:
        return "…\n".join(excerpt.shown() for excerpt in self.excerpts)

    def remark(self) -> str:
        return self.said


FileAnswer = FileText | FileBytes | SeveralFiles | FileChange | FolderListing | Found


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

    is_error: ClassVar[bool] = False

    @classmethod
    def of(cls, task_id: str, answer: FileAnswer, notes: Iterable[str], output_chars: int) -> FileReport:
        """Return the report with as many notes as an answer of `output_chars` characters has room for."""
        room = output_chars - len(answer.output()) - len(remarks(answer.remark()))
        return cls(task_id, answer, fitting((*notes, *answer.notes), room, NOTE_MARKS))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        parts = self.answer.parts if isinstance(self.answer, SeveralFiles) else (self.answer,)
        return tuple(Picture(part.data, part.mime) for part in parts if isinstance(part, FileBytes) and part.mime)

    @property
    def extent(self) -> int:
        """How much output there is: characters of text, entries of a listing, changed places."""
        return self.answer.extent

    def cut(self, most: int) -> FileReport:
        return replace(self, answer=self.answer.cut(most))

    def structured(self) -> dict[str, Any]:
        return {**self.answer.structured(), "notes": list(self.notes), "task_id": self.task_id}

    def output(self) -> str:
        return self.answer.output()

    def said(self) -> str:
        return remarks(self.answer.remark(), self.notes)
