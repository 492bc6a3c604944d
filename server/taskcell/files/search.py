"""Searches the contents of files with ripgrep, in the sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from taskcell.errors import ErrorCode, FileRefused
from taskcell.files.lines import room_for_text
from taskcell.files.listings import Found
from taskcell.files.store import FileStore, Target
from taskcell.text import is_visible, one_line, visible

#: Bytes of ripgrep's output that are looked at: many times what an answer holds, so that matches can be counted.
MAX_OUTPUT = 1 << 20
#: Characters of a line that ripgrep shows.
_LINE_CHARS = 300
#: Folders that are left out as in a listing (`heavy` in server/supervisor/src/file/ignore.c).
_HEAVY = (
    ".git", ".hg", ".svn", "node_modules", "bower_components", "__pycache__", ".venv", ".tox", ".nox", ".mypy_cache",
    ".pytest_cache", ".ruff_cache", ".hypothesis", ".gradle", ".terraform", ".next", ".nuxt", ".parcel-cache",
    ".turbo", ".cache",
)  # fmt: skip
_FIXED = (
    "--no-config", "--color=never", "--no-heading", "--with-filename", "--line-number", "--null", "--sort=path",
    "--hidden", "--no-require-git", "--crlf", f"--max-columns={_LINE_CHARS}", "--max-columns-preview",
)  # fmt: skip


#: How ripgrep says, in the place of a line, that a file is not text and where it stopped.
_BINARY = (b": binary file matches (", b": WARNING: stopped searching binary file after match (")
#: What ripgrep prints between lines that do not follow each other; with `--crlf` it ends as the files do.
_APART = (b"--", b"--\r")
#: Files that a note names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class ProgramOutput:
    """What a program printed, as far as it is kept; `timed_out` means that it was ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    is_whole: bool
    timed_out: bool


#: What a shell exits with for a program that is not there; no program of ours exits so.
NO_PROGRAM = 127
#: Runs a program in the workspace, and keeps so many bytes of its output; it exits NO_PROGRAM if it is not there.
RunProgram = Callable[[Sequence[str], int], Awaitable[ProgramOutput]]


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Arguments:
        globs: patterns of paths, of which one must match; empty for every file.
        context: lines before and after a match.
        names: show the paths of files alone.
        everything: also what .gitignore files name, and heavy folders.
    """

    pattern: str
    globs: Sequence[str] = ()
    literal: bool = False
    ignore_case: bool = False
    context: int = 0
    names: bool = False
    everything: bool = False

    def words(self, target: Target) -> list[str]:
        """Return the words of ripgrep's command."""
        words = ["rg", *_FIXED, *(f"--glob={_below(glob, target)}" for glob in self.globs)]
        words += ["--no-ignore"] if self.everything else [f"--glob=!{name}" for name in _HEAVY]
        words += ["--fixed-strings"] if self.literal else []
        words += ["--ignore-case"] if self.ignore_case else []
        words += ["--files-with-matches"] if self.names else [f"--context={self.context}"]
        if "\n" in self.pattern or ("\\n" in self.pattern and not self.literal):
            words.append("--multiline")
        return [*words, f"--regexp={self.pattern}", "--", target.inner]


def _below(glob: str, target: Target) -> str:
    """Return a glob that means the same below the target: ripgrep reads one with a slash from the working folder."""
    mark, rest = ("!", glob[1:]) if glob.startswith("!") else ("", glob)
    rest = rest.removeprefix("./").removeprefix(f"{target.shown.rstrip('/')}/")
    return f"{mark}**/{rest}" if "/" in rest and not rest.startswith(("/", "**/")) else mark + rest


async def search(store: FileStore, run: RunProgram, target: Target, query: Query, output_chars: int) -> Found:
    """Run a search and return what fits into an answer. Raises FileRefused."""
    await _check_kind(store, target)
    done = await run(query.words(target), MAX_OUTPUT)
    if done.exit_code == NO_PROGRAM:
        missing = "This image has no ripgrep (`rg`), which `search` needs; use `grep -rn` in the terminal."
        raise FileRefused(missing, code=ErrorCode.NOT_FOUND)
    errors = done.stderr.decode("utf-8", "replace").strip()
    failed = done.exit_code not in (0, 1) and bool(errors)
    if failed and not done.stdout and not done.timed_out:
        _check_error(target, errors)
    room = room_for_text(output_chars)
    found = _names(done.stdout, room) if query.names else _grouped(done.stdout, room)
    notes = []
    if done.timed_out:
        notes.append("The search took too long and was ended; name a folder in 'path', or narrow it with 'glob'.")
    if found.binary:
        more = ", …" if len(found.binary) > _NAMED else ""
        notes.append(
            f"Binary data, so what matches there is not shown: {', '.join(found.binary[:_NAMED])}{more}; `grep -a` in "
            "the terminal shows it."
        )
    if failed:
        notes.append(f"Not everything could be searched: {visible(one_line(errors.splitlines()[0][:200]))}")
    if not found.files and not query.pattern.isascii():
        notes.append(
            "Characters beyond ASCII were looked for in UTF-8 and UTF-16 alone; `rg --encoding=latin-1` and the like "
            "in the terminal search files of another encoding."
        )
    is_ended = not done.is_whole or done.timed_out
    return Found(
        target.shown, found.text, found.matches, found.files, found.cut or is_ended, tuple(notes), is_ended=is_ended
    )


async def _check_kind(store: FileStore, target: Target) -> None:
    """Refuse what has no end or no content, such as a FIFO: ripgrep opens whatever it is given by name."""
    try:
        await store.fetch(target, 0)
    except FileRefused as refused:
        if refused.code not in (ErrorCode.IS_A_DIRECTORY, ErrorCode.TOO_LARGE):
            raise


def _check_error(target: Target, errors: str) -> None:
    """Raise FileRefused unless ripgrep only met files below the target that cannot be read."""
    first = errors.removeprefix("rg: ")
    if "(os error " in first.splitlines()[0]:
        if not first.startswith(f"{target.inner}: "):
            return
        if "os error 2)" in first:
            raise FileRefused(f"There is no {target.said}; `list_files` shows what is there.", code=ErrorCode.NOT_FOUND)
        reason = visible(first.splitlines()[0].rpartition(": ")[2].partition(" (os error")[0])
        code = ErrorCode.PERMISSION_DENIED if "os error 13)" in first else ErrorCode.INVALID_ARGUMENT
        raise FileRefused(f"{target.said} cannot be searched: {reason}.", code=code)
    # What it advises is for a command line, which the model does not have.
    words = visible(" ".join(first.partition("\nConsider ")[0].split())[:500]).rstrip(".")
    mend = "mend 'glob'" if "glob" in words else "mend 'pattern', or say literal=true for plain text"
    raise FileRefused(f"ripgrep could not search: {words}; {mend}.")


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines below the path of their file, how many match, and in how many files.

    Arguments:
        cut: some are left out for want of room.
        binary: paths of files that ripgrep did not show, or not to their end, because they hold binary data.
    """

    text: str
    matches: int
    files: int
    cut: bool
    binary: Sequence[str] = ()


def _names(output: bytes, room: int) -> _Lines:
    paths = [_path(path) for path in output.split(b"\0") if path]
    text = "".join(f"{path}\n" for path in paths)
    kept = text[: text.rfind("\n", 0, room) + 1] if len(text) > room else text
    return _Lines(kept, 0, len(paths), len(kept) < len(text))


def _grouped(output: bytes, room: int) -> _Lines:
    parts: list[str] = []
    binary: list[str] = []
    used, matches, seen, last, cut, begun = 0, 0, 0, b"", False, b""
    for piece in output.split(b"\n"):
        path, found, rest = (begun + piece).partition(b"\0")
        if not found and (mark := next((mark for mark in _BINARY if mark in path), b"")):
            path = path.partition(mark)[0]
            binary.append(_path(path))
            seen, last, begun = seen + (path != last), path, b""
        elif not found and piece in _APART and not begun:
            parts += [] if cut else ["--\n"]
        elif not found:
            # The path of each line ends in NUL, and may hold line breaks.
            begun = path + b"\n" if path else b""
        else:
            begun = b""
            number, mark = _number(rest)
            matches += mark == b":"
            shown = (f"{_path(path)}\n" if path != last else "") + _shown(number, mark, rest)
            seen, last, used = seen + (path != last), path, used + len(shown)
            cut = cut or used > room
            parts += [] if cut else [shown]
    return _Lines("".join(parts), matches, seen, cut, binary)


def _number(rest: bytes) -> tuple[bytes, bytes]:
    """Split off a line's number and the mark behind it, `:` for a match and `-` for context."""
    end = next((at for at, byte in enumerate(rest[:20]) if byte in b":-"), 0)
    return rest[:end], rest[end : end + 1]


def _shown(number: bytes, mark: bytes, rest: bytes) -> str:
    text = rest[len(number) + 1 :].decode("utf-8", "replace").removesuffix("\r")
    text = text if is_visible(text) else visible(text)
    return f"{number.decode('ascii', 'replace')}{mark.decode('ascii', 'replace')}{text}\n"


def _path(path: bytes) -> str:
    return one_line(visible(path.decode("utf-8", "replace").removeprefix("./")))
