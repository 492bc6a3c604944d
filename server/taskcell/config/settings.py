"""The keys of `taskcell.toml` and their defaults, as immutable, checked tables."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from taskcell.config.egress_table import EgressSettings
from taskcell.config.expansion import Expanded, expand_table
from taskcell.config.fields import Bytes, Count, Seconds, Table, Word, Words, plain_path
from taskcell.config.http_table import HttpSettings
from taskcell.config.password_file import check_password
from taskcell.config.policy_tables import PolicySettings
from taskcell.config.shipped import PACKAGE, shipped_manifests
from taskcell.config.terminal_table import EnvironmentTables, TerminalSettings
from taskcell.config.workspace_table import WorkspaceSettings
from taskcell.environment import Environment
from taskcell.errors import ConfigError
from taskcell.model import MIB

#: Sandboxes of one server; far beyond what one engine holds.
MAX_SANDBOXES = 100_000
GENERATED = "generated"
_DEPLOYMENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")


class EngineSettings(Table):
    """`[engine]`: what runs the containers. `engine/kinds.py` says which values of `kind` there are."""

    kind: Word = "docker"
    host: Word = ""
    runtime: Word = ""
    storage_class: Word = ""


class PoolSettings(Table):
    """`[pool]`: how many sandboxes, and how long each lives."""

    max_sandboxes: Annotated[int, Field(ge=1, le=MAX_SANDBOXES)] = 32
    max_per_principal: Annotated[int, Field(ge=1, le=MAX_SANDBOXES)] = 16
    warm: Annotated[int, Field(ge=0, le=MAX_SANDBOXES)] = 1
    idle_ttl: Seconds = 900.0
    orphan_ttl: Seconds = 120.0
    on_exit: Literal["close", "keep"] = "keep"
    acquire_timeout: Seconds = 30.0

    @property
    def max_local(self) -> int:
        """The person's own tasks have nobody to leave room for, unless the operator says so."""
        return self.max_per_principal if "max_per_principal" in self.model_fields_set else self.max_sandboxes


class LimitSettings(Table):
    """`[limits]`: what one command may use."""

    timeout: Seconds = 180.0
    max_timeout: Seconds = 3600.0
    wait: Seconds = 50.0
    output_chars: Annotated[int, Field(ge=200, le=100_000_000)] = 50_000
    spool: Bytes = 16 * MIB
    max_processes: Count = 64


class ToolsSettings(Table):
    """`[tools]`: which tools clients are offered, as patterns over names, and which answers they get."""

    only: Words = ()
    hide: Words = ()
    structured: bool = False


class SudoSettings(Table):
    """`[sudo]`: the password for sandboxes whose profile has sudo."""

    password: SecretStr = SecretStr(GENERATED)
    password_file: Word = ""

    @field_validator("password")
    @classmethod
    def _can_be_typed(cls, value: SecretStr) -> SecretStr:
        check_password(value.get_secret_value())
        return value

    @field_validator("password_file")
    @classmethod
    def _path_is_plain(cls, value: str) -> str:
        return plain_path(value)


class AuditSettings(Table):
    """`[audit]`: where the audit log is written."""

    path: Word = ""

    @field_validator("path")
    @classmethod
    def _path_is_plain(cls, value: str) -> str:
        return plain_path(value)


class Settings(Table):
    """All of `taskcell.toml`: immutable, checked, with every default filled in. Sizes in bytes, times in seconds."""

    manifests: Words = ("manifests",)
    deployment: Word = ""
    engine: EngineSettings = EngineSettings()
    terminal: TerminalSettings = TerminalSettings()
    environments: EnvironmentTables = Field(default_factory=dict)
    workspace: WorkspaceSettings = WorkspaceSettings()
    pool: PoolSettings = PoolSettings()
    limits: LimitSettings = LimitSettings()
    tools: ToolsSettings = ToolsSettings()
    policy: PolicySettings = PolicySettings()
    sudo: SudoSettings = SudoSettings()
    http: HttpSettings = HttpSettings()
    audit: AuditSettings = AuditSettings()
    egress: EgressSettings = EgressSettings()

    _file: Path | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _expanded: Mapping[str, Expanded] = PrivateAttr(default_factory=dict)
    _environment: Environment = PrivateAttr(default=Environment())
    _sudo_password: SecretStr | None = PrivateAttr(default=None)

    @field_validator("manifests")
    @classmethod
    def _paths_are_plain(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name or name.startswith("~") for name in value):
            raise ValueError("must be paths, absolute or relative to the configuration's folder, without '~'")
        return value

    @field_validator("deployment")
    @classmethod
    def _deployment_is_a_word(cls, value: str) -> str:
        if value and not _DEPLOYMENT.fullmatch(value):
            raise ValueError("must be at most 63 letters, digits, '.', '_' or '-', and begin with a letter or a digit")
        return value

    @property
    def file(self) -> Path | None:
        """The configuration file; None means that there is none and the defaults hold."""
        return self._file

    @property
    def deployment_id(self) -> str:
        """The deployment's name, or else 12 hex digits from the configuration's path (or the user, without a file), and
        the folder that is the workspace: servers for two projects know nothing about each other."""
        if self.deployment:
            return self.deployment
        origin = f"file:{self._file.resolve()}" if self._file else f"default:{os.getuid()}"
        origin += f"\nfolder:{self.workspace_folder}" if self.workspace.folder else ""
        return hashlib.sha256(origin.encode("utf-8", "surrogateescape")).hexdigest()[:12]

    @property
    def workspace_root(self) -> Path | None:
        """Resolved path of the folder with the persistent workspaces; None where they are engine volumes."""
        return (self._folder / self.workspace.root).resolve() if self.workspace.root else None

    @property
    def archive_store(self) -> Path | None:
        """The folder of this deployment in the one that all of its servers reach; None where none is named."""
        return (self._folder / self.workspace.store / self.deployment_id).absolute() if self.workspace.store else None

    @property
    def workspace_folder_as_written(self) -> Path | None:
        """The same with its links, and without a look at it: it may lie on a file system that hangs."""
        return self._folder / self.workspace.folder if self.workspace.folder else None

    @property
    def workspace_folder(self) -> Path | None:
        """Resolved path of the host folder that is the workspace of every task; None where tasks have their own."""
        return (self._folder / self.workspace.folder).resolve() if self.workspace.folder else None

    @property
    def keeps_files(self) -> bool:
        """The files of a closed task stay."""
        return self.workspace.persistent or bool(self.workspace.folder)

    @property
    def manifest_paths(self) -> tuple[Path, ...]:
        """Absolute paths of manifest files and folders; the shipped ones where none are named and none is there.

        Without a configuration file nobody has chosen the current folder, so what lies in it is not taken.
        """
        paths = tuple((self._folder / name).absolute() for name in self.manifests)
        if "manifests" in self.model_fields_set or (self._file and any(path.exists() for path in paths)):
            return paths
        shipped = shipped_manifests()
        return (shipped,) if shipped else ()

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Absolute paths of what decides on the server: its configuration file, its manifests and its program."""
        file = (self._file.absolute(),) if self._file else ()
        return (*file, *self.secret_files, *self.manifest_paths, PACKAGE)

    @property
    def secret_files(self) -> tuple[Path, ...]:
        """Absolute paths of what no sandbox may even read."""
        named = [self.sudo.password_file, self.http.tokens_file]
        named += [secret.file for expanded in self._expanded.values() for secret in expanded.secrets]
        return tuple((self._folder / name).absolute() for name in named if name)

    @property
    def tokens_file(self) -> Path | None:
        """Absolute path of the file of tokens; None where none is named."""
        return (self._folder / self.http.tokens_file).absolute() if self.http.tokens_file else None

    @property
    def audit_file(self) -> Path | None:
        """Absolute path of the audit log; None where none is named."""
        return (self._folder / self.audit.path).absolute() if self.audit.path else None

    @property
    def sudo_password(self) -> str | None:
        """The operator's password for sudo; None where each sandbox gets a random one. Secret."""
        own = self._sudo_password or self.sudo.password
        value = own.get_secret_value()
        return None if own is self.sudo.password and value == GENERATED else value

    @property
    def environment(self) -> Environment:
        """What `terminal` holds: the default environment's table, or another one's."""
        return self._environment

    @property
    def terminal_container(self) -> Expanded:
        """The terminal's image, environment and mounts with variables filled in. Raises ConfigError."""
        expanded = self._expanded.get(self._environment.name)
        if expanded is None:
            expanded, found = expand_table(self.terminal, {})
            if found:
                raise ConfigError("\n".join(f"terminal.{fault.key[0]}: {fault.sentence}" for fault in found))
        return replace(expanded, image=self._environment.image) if self._environment.image else expanded

    def terminals(self) -> Iterator[tuple[str, tuple[str, ...], TerminalSettings]]:
        """The tables of `[terminal]`, whose name is empty, and of each environment, with their names and keys."""
        yield "", ("terminal",), self.terminal
        for name, table in self.environments.items():
            yield name, ("environments", name), table

    def in_environment(self, environment: Environment) -> Settings:
        """These settings with the table of an environment as `terminal`. Raises KeyError: there is none of its name."""
        if environment == self._environment:
            return self
        table = self.environments[environment.name] if environment.name else self.terminal
        settings = self.model_copy(update={"terminal": table})
        settings._environment = environment
        return settings

    def placed(
        self,
        file: Path | None,
        folder: Path,
        expanded: Mapping[str, Expanded],
        sudo_password: SecretStr | None = None,
    ) -> Settings:
        """These settings, knowing the file they came from, the folder relative paths begin at, what the password's file
        holds, and the expansions of `[terminal]`, under an empty name, and of each environment."""
        settings = self.model_copy()
        settings._file, settings._folder, settings._expanded = file, folder, expanded
        settings._sudo_password = sudo_password
        return settings
