"""The table `[egress]`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from taskcell.config.fields import Bytes, Table, Word, as_tuple
from taskcell.destinations import Pattern
from taskcell.model import GIB, MIB

#: The supervisor carries 128; some are left for what the server opens.
MAX_TUNNELS = 120
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class EgressSettings(Table):
    """`[egress]`: what one task may use of the network by name, and names for groups of hosts.

    `max_rate` is bytes a second, both ways together.
    """

    max_connections: Annotated[int, Field(ge=1, le=MAX_TUNNELS)] = 64
    max_bytes: Bytes = 100 * GIB
    max_rate: Bytes = 256 * MIB
    presets: dict[str, Annotated[tuple[Word, ...], BeforeValidator(as_tuple)]] = Field(default_factory=dict)

    @field_validator("presets")
    @classmethod
    def _presets_are_patterns(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, hosts in value.items():
            if not _NAME.fullmatch(name):
                raise ValueError("must have names of letters, digits, '_' and '-', which 'egress' calls '@NAME'")
            for host in hosts:
                Pattern.read(host)
        return value
