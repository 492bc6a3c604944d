"""The results of the file tools, as structured content and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from taskcell.text import one_line

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
            "notes": list(self.notes),
        }

    def shown(self) -> str:
        """Format the lines with their numbers, and the notes."""
        lines = self.text.removesuffix("\n").split("\n") if self.text else []
        numbered = [f"{number:>6}\t{line}" for number, line in enumerate(lines, self.first_line)]
        return "\n".join([*numbered, *(f"[{note}]" for note in self.notes)])


@dataclass(frozen=True, slots=True)
class FileBytes:
    """A whole file. `mime` is None unless it is a picture."""

    path: str
    data: bytes
    mime: str | None

    def structured(self) -> dict[str, Any]:
        """Describe a picture; its bytes go into an image block of the answer."""
        none = {"text": "", "first_line": 0, "last_line": 0, "total_lines": None, "truncated": False, "notes": []}
        return {"path": self.path, "kind": "image", "mime_type": self.mime, "size": len(self.data), **none}

    def shown(self) -> str:
        return f"[{self.path}: {self.mime}, {len(self.data)} bytes]"


@dataclass(frozen=True, slots=True)
class Written:
    """A written file. `size` in bytes; `replaced` means that there was one before."""

    path: str
    size: int
    replaced: bool

    def structured(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "replaced": self.replaced, "notes": []}

    def shown(self) -> str:
        return f"[{'Replaced' if self.replaced else 'Created'} {self.path}: {self.size} bytes]"


@dataclass(frozen=True, slots=True)
class Edited:
    """A file in which `count` places were replaced; `lines` has the first of them. `size` in bytes."""

    path: str
    count: int
    lines: tuple[int, ...]
    size: int

    def structured(self) -> dict[str, Any]:
        return {"path": self.path, "count": self.count, "lines": list(self.lines), "size": self.size, "notes": []}

    def shown(self) -> str:
        places = "1 place" if self.count == 1 else f"{self.count} places"
        more = ", …" if self.count > len(self.lines) else ""
        lines = ", ".join(map(str, self.lines))
        return f"[Replaced {places} in {self.path}, at line{'' if self.count == 1 else 's'} {lines}{more}]"


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

    def structured(self) -> dict[str, Any]:
        entries = [{name: getattr(entry, name) for name in self.fields} for entry in self.entries]
        return {"path": self.path, "entries": entries, "truncated": self.truncated, "notes": list(self.notes)}

    def shown(self) -> str:
        lines = [entry.shown() for entry in self.entries] or ["[nothing matches]"]
        return "\n".join([*lines, *(f"[{note}]" for note in self.notes)])


FileAnswer = FileText | FileBytes | Written | Edited | FolderListing


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to show beside the text of an answer. `mime` is its type, such as `image/png`."""

    data: bytes
    mime: str


@dataclass(frozen=True, slots=True)
class FileReport:
    """The result of a file tool for a task; `notes` are about its sandbox."""

    task_id: str
    answer: FileAnswer
    notes: tuple[str, ...] = ()

    is_error: ClassVar[bool] = False

    @property
    def pictures(self) -> tuple[Picture, ...]:
        answer = self.answer
        return (Picture(answer.data, answer.mime),) if isinstance(answer, FileBytes) and answer.mime else ()

    def structured(self) -> dict[str, Any]:
        answer = self.answer.structured()
        return {**answer, "notes": [*self.notes, *answer["notes"]], "task_id": self.task_id}

    def text(self) -> str:
        return "\n".join([self.answer.shown(), *(f"[{note}]" for note in self.notes)])
