"""The results of the tools that look through folders, in the shape of those in `answers`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from taskcell.text import one_line


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

    def shown(self, *, details: bool = False) -> str:
        end = "/" if self.type == "folder" else f" -> {one_line(self.target)}" if self.target is not None else ""
        size = "-" if self.size is None else str(self.size)
        return f"{size:>10}  {self.modified}  {one_line(self.path)}{end}" if details else f"{one_line(self.path)}{end}"


@dataclass(frozen=True, slots=True)
class FolderListing:
    """A page of the matching entries of a folder.

    Arguments:
        skipped: entries before this page.
        found: entries on all pages.
        details: show sizes and times.
        truncated: there are more after this page, or not everything was looked at.
    """

    path: str
    entries: tuple[Entry, ...]
    truncated: bool
    notes: tuple[str, ...]
    found: int = 0
    skipped: int = 0
    details: bool = False

    fields: ClassVar[tuple[str, ...]] = ("path", "type", "size", "modified", "target")

    @property
    def extent(self) -> int:
        """How many entries."""
        return len(self.entries)

    def cut(self, most: int) -> FolderListing:
        return replace(self, entries=self.entries[:most], truncated=self.truncated or most < len(self.entries))

    def structured(self) -> dict[str, Any]:
        entries = [{name: getattr(entry, name) for name in self.fields} for entry in self.entries]
        return {"path": self.path, "entries": entries, "truncated": self.truncated, "found": self.found}

    def output(self) -> str:
        return "".join(f"{entry.shown(details=self.details)}\n" for entry in self.entries)

    def remark(self) -> str:
        if not self.entries:
            return "Nothing more matches" if self.skipped else "Nothing matches"
        last = self.skipped + len(self.entries)
        if last < self.found:
            go_on = f"continue with offset={last}, or narrow it with 'glob'"
            return f"Entries {self.skipped + 1} to {last} of {self.found}; {go_on}"
        count = "1 entry" if len(self.entries) == 1 else f"{len(self.entries)} entries"
        return f"{count}, not all: narrow it with 'glob', or name a folder in 'path'" if self.truncated else count


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: for each file its path, then its lines with their numbers.

    Arguments:
        matches, files: how many lines match, and in how many files; of those that were looked at.
        is_ended: the search was ended before it had looked at all of them.
    """

    path: str
    text: str
    matches: int
    files: int
    truncated: bool
    notes: tuple[str, ...] = ()
    is_ended: bool = False

    @property
    def extent(self) -> int:
        return len(self.text)

    def cut(self, most: int) -> Found:
        if most >= len(self.text):
            return self
        return replace(self, text=self.text[: self.text.rfind("\n", 0, most) + 1], truncated=True)

    def structured(self) -> dict[str, Any]:
        figures = {"matches": self.matches, "files": self.files, "truncated": self.truncated}
        return {"path": self.path, "text": self.text, **figures}

    def output(self) -> str:
        return self.text

    def remark(self) -> str:
        if not self.files:
            return "Nothing found"
        lines = "1 line" if self.matches == 1 else f"{self.matches} lines"
        files = "1 file" if self.files == 1 else f"{self.files} files"
        more = "; not all are shown: narrow it with 'path', 'glob' or a longer 'pattern'" if self.truncated else ""
        least = "At least " if self.is_ended else ""
        return f"{least}{lines} in {files}{more}" if self.matches else f"{least}{files}{more}"
