"""Lists folders."""

from __future__ import annotations

from datetime import UTC, datetime

from taskcell.files.lines import room_for_text
from taskcell.files.listings import Entry, FolderListing
from taskcell.files.reply import Listed, ListedEntry
from taskcell.text import is_visible, one_line, visible

_TYPES = {"f": "file", "d": "folder", "l": "link"}
_NOT_ALL_SEEN, _CLOSED_FOLDERS = 2, 4


def listing(path: str, listed: Listed, output_chars: int, *, skipped: int, details: bool) -> FolderListing:
    """Return as many entries of a page as fit into an answer.

    Arguments:
        skipped: entries before the page.
        details: show sizes and times.
    """
    entries = [_entry(entry) for entry in listed.entries]
    shown: list[Entry] = []
    used, room = 0, room_for_text(output_chars)
    for entry in entries:
        used += len(entry.shown(details=details)) + 1
        if shown and used > room:
            break
        shown.append(entry)
    notes = []
    if listed.left_count:
        notes.append(_left_out(listed))
    if listed.flags & _NOT_ALL_SEEN:
        notes.append("Not everything was searched: there is too much, or it is too deep; name a folder in 'path'.")
    if listed.flags & _CLOSED_FOLDERS:
        notes.append("The sandbox's user may not read some of the folders; what is in them is not shown.")
    if any(entry.is_altered or "\ufffd" in entry.path for entry in shown):
        notes.append("Names with U+FFFD or a symbol such as ␛ have other bytes there; only the terminal can use them.")
    cut = skipped + len(shown) < listed.found or bool(listed.flags & _NOT_ALL_SEEN)
    return FolderListing(path, tuple(shown), cut, tuple(notes), listed.found, skipped, details)


def _left_out(listed: Listed) -> str:
    names = list(dict.fromkeys(one_line(visible(name)) for name in listed.left_out))
    more = f" and {listed.left_count - len(listed.left_out)} more" if listed.left_count > len(listed.left_out) else ""
    return f"Left out, by .gitignore or as usual: {', '.join(names)}{more}; all=true lists them."


def _entry(entry: ListedEntry) -> Entry:
    kind = _TYPES.get(entry.kind, "other")
    return Entry(
        visible(entry.path),
        kind,
        entry.size if kind == "file" else None,
        _time(entry.changed),
        visible(entry.target) if kind == "link" else None,
        is_altered=not is_visible(entry.path),
    )


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "unknown"
