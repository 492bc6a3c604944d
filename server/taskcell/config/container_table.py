"""Check the table of container options that `[terminal]`, environments and skills share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from taskcell.config.fields import (
    AbsolutePath,
    Bytes,
    Cores,
    Count,
    Reachable,
    Seconds,
    Table,
    Text,
    Texts,
    Word,
    Words,
    as_tuple,
    check_variable_name,
)
from taskcell.model import GIB, MIB
from taskcell.mounts import Tmpfs
from taskcell.units import SHM, format_size

#: The Docker Engine refuses a container with less memory.
MIN_MEMORY = 6 * MIB
_SOURCES = "must be 'NAME=file:/absolute/path' or 'NAME=env:VARIABLE'"


def _argv(value: object) -> object:
    """Accept a program as a string, or an argument list."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str):
        if not value or value.split() != [value]:
            raise ValueError("must be the path of one program, or a list such as ['python3', '-m', 'tool']")
        return (value,)
    raise ValueError("must be a string or a list of strings")


class ContainerTable(Table):
    """The keys of a skill's `docker` table. Sizes in bytes, times in seconds; texts are not yet expanded."""

    image: Word = ""
    entrypoint: Annotated[tuple[Text, ...] | None, BeforeValidator(_argv)] = None
    command: Texts = ()
    volumes: Texts = ()
    working_dir: AbsolutePath = ""
    environment: Texts = Field(default=(), repr=False)
    memory: Bytes = 2 * GIB
    cpus: Cores = 1.0
    pids: Count = 256
    network: Word = "none"
    egress: Reachable = ()
    user: Word = ""
    gpus: Word = ""
    read_only: bool = True
    platform: Word = ""
    shm_size: Bytes | None = None
    disk: Bytes | None = None
    own: Annotated[tuple[AbsolutePath, ...], BeforeValidator(as_tuple)] = ()
    secrets: Texts = ()
    rm: bool = True
    workspace: Literal["rw", "ro"] = "rw"
    reuse: Literal["task", "call"] = "task"
    sudo: bool = False
    cap_add: Words = ()
    extra_args: Texts = Field(default=(), repr=False)
    timeout: Seconds | None = None

    @field_validator("memory")
    @classmethod
    def _enough_memory(cls, value: int) -> int:
        if value < MIN_MEMORY:
            raise ValueError(f"must be at least {format_size(MIN_MEMORY)}, the container engine's minimum")
        return value

    @field_validator("own")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("secrets")
    @classmethod
    def _secrets_are_named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        seen = set()
        for entry in value:
            name, equals, source = entry.partition("=")
            kind, _, place = source.partition(":")
            # Not the entry: who has written the secret itself there must not find it in a log.
            if not equals or not place or (kind == "file" and not place.startswith(("/", "~/"))):
                raise ValueError(_SOURCES)
            if kind not in ("file", "env"):
                raise ValueError(f"{_SOURCES}; the value itself never stands here")
            check_variable_name(name)
            if name in seen:
                raise ValueError(f"names {name} twice; leave one out")
            seen.add(name)
        return value

    @field_validator("network")
    @classmethod
    def _network_is_named(cls, value: str) -> str:
        if not value:
            raise ValueError("must be 'none' or a network's name")
        return value


def default_tmpfs(memory: int | None, shm: int | None = None) -> tuple[Tmpfs, ...]:
    """Return the bounded file systems of every sandbox: less than a quarter of `memory` bytes (None: no limit) in all.

    The absolute bounds are what a compiler or a package manager needs for its scratch files. The shares keep a
    small container from filling its memory with files. 64 MiB is the container engine's own size of /dev/shm.

    Arguments:
        shm: bytes of /dev/shm where the table says; they are not among the quarter.
    """
    memory = 2 * GIB if memory is None else memory
    return (
        Tmpfs("/tmp", min(512 * MIB, memory // 8)),  # noqa: S108 - a path in the container
        Tmpfs("/var/tmp", min(64 * MIB, memory // 32)),  # noqa: S108
        Tmpfs("/run", min(16 * MIB, memory // 64), mode=0o755),
        Tmpfs(SHM, shm or min(64 * MIB, memory // 16)),
    )
