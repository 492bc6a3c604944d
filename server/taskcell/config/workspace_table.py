"""The table `[workspace]` of `taskcell.toml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, field_validator

from taskcell.config.fields import Bytes, Count, Table, Word, plain_path
from taskcell.model import GIB
from taskcell.units import parse_duration


def _kept_for(value: object) -> float:
    """Seconds; `"0"` is for not at all."""
    return 0.0 if value in ("0", 0) and not isinstance(value, bool) else parse_duration(value)


class WorkspaceSettings(Table):
    """`[workspace]`: the task's files."""

    folder: Word = ""
    persistent: bool = False
    keep: Annotated[float, BeforeValidator(_kept_for)] = 7 * 86400.0
    keep_size: Bytes = 20 * GIB
    size: Bytes = GIB
    snapshots: Count = 64
    snapshots_size: Bytes = 20 * GIB
    root: Word = ""
    store: Word = ""

    @field_validator("folder", "root", "store")
    @classmethod
    def _path_is_plain(cls, value: str) -> str:
        return plain_path(value)
