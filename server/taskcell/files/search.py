"""Searches the contents of files with ripgrep, in the sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from taskcell.errors import ErrorCode, FileRefused
from taskcell.files.lines import room_for_text
from taskcell.files.listings import Found
from taskcell.files.store import Target
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


@dataclass(frozen=True, slots=True)
class ProgramOutput:
    """What a program printed, as far as it is kept; `timed_out` means that it was ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    is_whole: bool
    timed_out: bool


#: Runs a program in the workspace. Raises FileRefused if the sandbox does not have it.
RunProgram = Callable[[Sequence[str]], Awaitable[ProgramOutput]]


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
        words = ["rg", *_FIXED, *(f"--glob={glob}" for glob in self.globs)]
        words += ["--no-ignore"] if self.everything else [f"--glob=!{name}" for name in _HEAVY]
        words += ["--fixed-strings"] if self.literal else []
        words += ["--ignore-case"] if self.ignore_case else []
        words += ["--files-with-matches"] if self.names else [f"--context={self.context}"]
        if "\n" in self.pattern or ("\\n" in self.pattern and not self.literal):
            words.append("--multiline")
        return [*words, f"--regexp={self.pattern}", "--", target.inner]


async def search(run: RunProgram, target: Target, query: Query, output_chars: int) -> Found:
    """Run a search and return what fits into an answer. Raises FileRefused."""
    done = await run(query.words(target))
    errors = done.stderr.decode("utf-8", "replace").strip()
    if done.exit_code not in (0, 1) and not done.stdout and not done.timed_out:
        raise _refused(target, errors)
    text, matches, files, cut = _grouped(done.stdout, query.names, room_for_text(output_chars))
    notes = []
    if done.timed_out:
        notes.append("The search took too long and was ended; name a folder in 'path', or narrow it with 'glob'.")
    if errors and done.exit_code not in (0, 1):
        notes.append(f"Not everything could be searched: {visible(one_line(errors.splitlines()[0][:200]))}")
    truncated = cut or not done.is_whole or done.timed_out
    return Found(target.shown, text, matches, files, truncated, tuple(notes))


def _refused(target: Target, errors: str) -> FileRefused:
    if "os error 2)" in errors:
        return FileRefused(f"There is no {target.said}; `list_files` shows what is there.", code=ErrorCode.NOT_FOUND)
    words = visible(" ".join(errors.removeprefix("rg: ").split())[:500])
    return FileRefused(f"ripgrep could not search: {words}; mend 'pattern', or say literal=true for plain text.")


def _grouped(output: bytes, names: bool, room: int) -> tuple[str, int, int, bool]:
    """Return the lines below the path of their file, how many match, in how many files, and whether some were cut."""
    if names:
        paths = [_path(path) for path in output.split(b"\0") if path]
        text = "".join(f"{path}\n" for path in paths)
        kept = text[: text.rfind("\n", 0, room) + 1] if len(text) > room else text
        return kept, 0, len(paths), len(kept) < len(text)
    parts: list[str] = []
    used, matches, seen, last, cut = 0, 0, 0, b"", False
    for line in output.split(b"\n"):
        path, found, rest = line.partition(b"\0")
        if not found:
            parts += ["--\n"] if line == b"--" and not cut else []
            continue
        number, mark = _number(rest)
        matches += mark == b":"
        heading = f"{_path(path)}\n" if path != last else ""
        seen += path != last
        last = path
        shown = heading + _shown(number, mark, rest)
        used += len(shown)
        cut = cut or used > room
        parts += [] if cut else [shown]
    return "".join(parts), matches, seen, cut


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
