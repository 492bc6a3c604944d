"""What a configuration of another program becomes: ours, and one line for each key of the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from taskcell.errors import ConfigError

#: Bytes. Far larger than any configuration that a person wrote.
MAX_FILE = 1 << 20


class Fate(Enum):
    KEPT = "kept"
    CHANGED = "changed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class KeyFate:
    """What became of one key of the source. `what` says where it went, or why it could not; never a value."""

    key: str
    fate: Fate
    what: str


@dataclass
class Moved:
    """A configuration in the making.

    Arguments:
        settings: tables of `taskcell.toml`, without `[policy]`.
        skills: tables of a manifest.
        manifest: the manifest's file name; empty: there is none.
    """

    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    skills: dict[str, Any] = field(default_factory=dict)
    manifest: str = ""
    lines: list[KeyFate] = field(default_factory=list)

    def set(self, table: str, key: str, value: Any) -> None:
        self.settings.setdefault(table, {})[key] = value

    def add(self, table: str, key: str, value: str) -> None:
        """Append to a list."""
        self.settings.setdefault(table, {}).setdefault(key, []).append(value)

    def say(self, key: str, fate: Fate, what: str) -> None:
        self.lines.append(KeyFate(key, fate, what))

    def kept(self, key: str, what: str) -> None:
        self.say(key, Fate.KEPT, what)

    def changed(self, key: str, what: str) -> None:
        self.say(key, Fate.CHANGED, what)

    def lost(self, key: str, what: str) -> None:
        self.say(key, Fate.LOST, what)


#: Moves one key: gets its name in the source, its value, and what there is of the new configuration.
Mover = Callable[[str, Any, Moved], None]


def move_all(table: Mapping[str, Any], prefix: str, movers: Mapping[str, Mover], moved: Moved) -> None:
    """Move each key of a table; one that nobody knows, or whose value is not what it should be, is lost."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        mover = movers.get(str(key))
        if mover is None:
            moved.lost(name, "has no counterpart")
            continue
        try:
            mover(name, value, moved)
        except (TypeError, ValueError, AttributeError):
            moved.lost(name, "does not have a value of the right kind, and was not read")


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that is a mapping. Raises ConfigError."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE + 1)
        data = YAML(typ="safe", pure=True).load(StringIO(raw.decode("utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}.") from None
    except (YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where is not None else ""
        raise ConfigError(f"{file}{line}: is not YAML in UTF-8; name the file that the program reads.") from None
    if len(raw) > MAX_FILE:
        raise ConfigError(f"{file}: is larger than {MAX_FILE} bytes; name the file that the program reads.")
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: is not a table of keys; name the file that the program reads.")
    return data


def literal(value: object) -> str:
    """A value of a variable as text. Raises ValueError for what is not one, or would expand here and did not there."""
    if not isinstance(value, str | int | float):
        raise TypeError("is not a text")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def as_seconds(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError("is not a number of seconds")
    return f"{value:g}s"


def texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError("is not a list of texts")
    return list(value)
