"""Read a TOML file and find the line of each key, which `tomllib` does not report."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

Key = tuple[str | int, ...]

#: Bytes. Larger than any manifest that a person wrote, small enough to read whole.
MAX_FILE = 1 << 20
#: Lines that are searched for the end of one key's value; faults after a longer value have no line number.
MAX_STATEMENT_LINES = 500

_AT_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)$")
_AT_END = re.compile(r"\s*\(at end of document\)$")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: the key where it is, and the end of a sentence on what to do.

    `leaves_out`: the file is good, but what the key belongs to cannot be used, as where a variable is not set.
    """

    key: Key
    sentence: str
    leaves_out: bool = False

    def below(self, *key: str | int) -> Fault:
        """Return the fault with its key below another one."""
        return replace(self, key=(*key, *self.key))


class UnreadableToml(ValueError):
    """A file cannot be read as TOML. The text names the file, and the line where it is known."""


@dataclass(frozen=True)
class TomlSource:
    """A parsed TOML file: `data` is what `tomllib` made of `text`."""

    path: Path
    text: str
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> TomlSource:
        """Read and parse a file. Raises UnreadableToml."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_FILE + 1)
        except OSError as error:
            raise UnreadableToml(f"{path}: cannot be read: {error.strerror or error}") from None
        if len(raw) > MAX_FILE:
            raise UnreadableToml(f"{path}: is larger than {MAX_FILE} bytes; is it a TOML file?")
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise UnreadableToml(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None
        return cls(path, text, _parse(path, text))

    def line(self, key: Key) -> int | None:
        """Return the line, from 1, of a key, or of the nearest table or key that holds it; None if none does."""
        while key:
            if key in self._lines:
                return self._lines[key]
            key = key[:-1]
        return None

    def describe(self, fault: Fault) -> str:
        """Return `FILE:LINE: key: sentence`, without the line where it is not known."""
        line = self.line(fault.key)
        where = f"{self.path}:{line}" if line else f"{self.path}"
        return f"{where}: {dotted(fault.key)}: {fault.sentence}" if fault.key else f"{where}: {fault.sentence}"

    @cached_property
    def _lines(self) -> dict[Key, int]:
        lines: dict[Key, int] = {}
        counts: dict[Key, int] = {}
        table: Key = ()
        for number, statement in _statements(self.text):
            is_header = statement.lstrip().startswith("[")
            for key in _keys(tomllib.loads(statement)):
                full = _in_arrays(key, counts) if is_header else table + key
                lines.setdefault(full, number)
                if is_header:
                    table = full
        return lines


def dotted(key: Key) -> str:
    """Write a key as TOML does: `skills.ffmpeg.docker.volumes[0]`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if _BARE.fullmatch(part) else ascii(part)
            text += f".{word}" if text else word
    return text


def suggestion(word: str, valid: Iterable[str]) -> str:
    """The end of a sentence about a wrong word: the valid word that is closest to it, or all valid words."""
    names = sorted(valid)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid here: {', '.join(names)}" if names else "nothing is valid here"


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _AT_LINE.search(message)
        line = int(found[1]) if found else text.count("\n") + 1
        reason = _AT_END.sub("", _AT_LINE.sub("", message))
        raise UnreadableToml(f"{path}:{line}: is not valid TOML: {reason}") from None
    except ValueError:
        raise UnreadableToml(f"{path}: holds a number that is too long; shorten it") from None
    except RecursionError:
        raise UnreadableToml(f"{path}: is nested too deeply; use fewer levels") from None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header or key with its value, and the line it begins on.

    A statement ends at the first line end up to which it parses: TOML lets no value go on after that.
    """
    lines = re.split(r"\r?\n", text)
    at = 0
    while at < len(lines):
        for end in range(at + 1, min(at + MAX_STATEMENT_LINES, len(lines)) + 1):
            statement = "\n".join(lines[at:end])
            if _is_whole(statement):
                yield at + 1, statement
                at = end
                break
        else:
            return


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except ValueError:
        return False
    return True


def _keys(value: object, prefix: Key = ()) -> Iterator[Key]:
    """Every key of a parsed statement, the outer ones first; a header's array of tables shows as index 0."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, inner in items:
        yield (*prefix, name)
        yield from _keys(inner, (*prefix, name))


def _in_arrays(key: Key, counts: dict[Key, int]) -> Key:
    """A header's key with the true index for each array of tables on its way; `[[name]]` begins the next one."""
    full: Key = ()
    for part in key:
        if isinstance(part, int):
            counts[full] = counts.get(full, -1) + 1
            full = (*full, counts[full])
        elif full in counts:
            full = (*full, counts[full], part)
        else:
            full = (*full, part)
    return full
