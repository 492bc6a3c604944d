"""The table `[policy]` with its rules."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from taskcell.config.fields import Bytes, Cores, Count, Reachable, Table, Word, Words, as_tuple
from taskcell.config.image_reference import full_pattern
from taskcell.model import GIB

Namespace = Literal["network", "pid", "ipc", "uts", "user"]
#: Keys of a profile that an engine may not be able to hold.
Unenforced = Literal["pids", "network"]


class RuleSettings(Table):
    """One of `[[policy.rules]]`: patterns over tool and principal, a regular expression over the command."""

    name: Annotated[Word, Field(min_length=1)]
    tool: Word = "*"
    principal: Word = "*"
    command: str = ""
    effect: Literal["allow", "deny", "ask"]
    reason: str = ""

    @field_validator("command")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        return value


class PolicySettings(Table):
    """`[policy]`: what profiles and calls may do."""

    allow_privileged: bool = False
    allow_docker_socket: bool = False
    allow_host_namespaces: Annotated[tuple[Namespace, ...], BeforeValidator(as_tuple)] = ()
    allow_networks: Words = ("none",)
    blocked_mount_paths: Words = (
        "/etc/passwd",
        "/etc/shadow",
        "/var/run/docker.sock",
        "/root",
        "/proc",
        "/sys",
        "/dev",
        "/boot",
    )
    allowed_mount_roots: Words = ()
    allowed_volumes: Words = ()
    allowed_capabilities: Words = ()
    allowed_images: Words = ("*",)
    task_images: Words = ()
    task_users: Words = ()
    require_resource_limits: bool = True
    allow_unenforced: Annotated[tuple[Unenforced, ...], BeforeValidator(as_tuple)] = ()
    max_memory: Bytes = 4 * GIB
    max_cpus: Cores = 4.0
    max_pids: Count = 1024
    allow_sudo: bool = False
    allow_gpus: bool = False
    allowed_egress: Reachable = ()
    ask_egress: bool = False
    mounts_in_vm: bool = False
    rules: Annotated[tuple[RuleSettings, ...], BeforeValidator(as_tuple)] = ()

    @field_validator("allowed_mount_roots", "blocked_mount_paths")
    @classmethod
    def _absolute_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(path.startswith("/") for path in value):
            raise ValueError("must be absolute paths of the host, as in '/srv/data'; '~' and variables do not expand")
        return value

    @field_validator("allowed_images", "task_images")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(full_pattern(pattern) for pattern in value)
