"""Find and load `taskcell.toml`, lay the environment's overrides over it, and report everything that is wrong."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from taskcell.config.container_table import default_tmpfs
from taskcell.config.expansion import Expanded, expand_table
from taskcell.config.fields import faults
from taskcell.config.password_file import read_password
from taskcell.config.settings import GENERATED, Settings
from taskcell.config.terminal_table import TerminalSettings
from taskcell.config.toml_source import Fault, Key, TomlSource, UnreadableToml
from taskcell.errors import ConfigError
from taskcell.units import SHM, format_seconds, format_size, ipc_size

FILE_NAME = "taskcell.toml"
FILE_VARIABLE = "TASKCELL_CONFIG"
OVERRIDE_PREFIX = "TASKCELL__"


def load(path: Path | None, environ: Mapping[str, str], cwd: Path, *, engines: Mapping[str, bool]) -> Settings:
    """Find, read and check the configuration.

    Arguments:
        path: the file that `--config` names; None means the usual places.
        environ: the server's environment: its overrides, and what `[terminal]` may expand.
        cwd: what relative paths begin at.
        engines: the values that `engine.kind` may have, and whether each engine isolates.

    Raises:
        ConfigError: the message has one line for every fault, with file, line and key where they are known.
    """
    file = find_file(path, environ, cwd)
    document = _Document.read(file)
    wrong = [*document.override(environ), *document.secrets_in_file(), *document.unknown_engine(engines)]
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        wrong += faults(error, Settings)
        raise ConfigError(document.describe(wrong)) from None
    expanded, unexpanded = _expand(settings, environ)
    wrong += unexpanded
    wrong += _contradictions(settings)
    folder, password = file.parent if file else cwd.absolute(), None
    try:
        if settings.sudo.password_file:
            password = SecretStr(read_password(folder / settings.sudo.password_file))
    except ValueError as error:
        wrong.append(Fault(("sudo", "password_file"), str(error)))
    was_only_found = file == cwd.absolute() / FILE_NAME and path is None and not environ.get(FILE_VARIABLE)
    if was_only_found:
        wrong += document.isolation_turned_off(engines)
    if wrong:
        raise ConfigError(document.describe(wrong))
    return settings.placed(file, folder, expanded, password)


def _expand(settings: Settings, environ: Mapping[str, str]) -> tuple[dict[str, Expanded], list[Fault]]:
    """Expand `[terminal]`, under an empty name, and each environment."""
    expanded, found = {}, []
    for name, key, table in settings.terminals():
        expanded[name], unexpanded = expand_table(table, environ)
        found += [Fault((*key, *fault.key), fault.sentence) for fault in unexpanded]
    return expanded, found


def find_file(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Find the file: `--config`, `$TASKCELL_CONFIG`, `./taskcell.toml`, the user's. Returns None where there is none.

    Raises:
        ConfigError: a file that is named does not exist.
    """
    named = environ.get(FILE_VARIABLE)
    if path is not None or named:
        file = cwd.absolute() / (path if path is not None else str(named))
        if not file.is_file():
            origin = "--config" if path is not None else f"${FILE_VARIABLE}"
            raise ConfigError(f"{file}: there is no such file; {origin} names it, so correct it or leave it out.")
        return file
    places = [cwd.absolute() / FILE_NAME]
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if base.is_absolute():
        places.append(base / "taskcell" / FILE_NAME)
    elif Path(environ.get("HOME", "")).is_absolute():
        places.append(Path(environ["HOME"]) / ".config" / "taskcell" / FILE_NAME)
    return next((place for place in places if place.is_file()), None)


@dataclass
class _Document:
    """The parsed file with the environment's overrides laid over it, and where each key came from."""

    source: TomlSource | None
    data: dict[str, Any]
    variables: dict[Key, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path | None) -> _Document:
        if file is None:
            return cls(None, {})
        try:
            source = TomlSource.read(file)
        except UnreadableToml as error:
            raise ConfigError(str(error)) from None
        return cls(source, copy.deepcopy(dict(source.data)))

    def override(self, environ: Mapping[str, str]) -> list[Fault]:
        """Take every `TASKCELL__SECTION__KEY` of the environment."""
        wrong = []
        for name in sorted(name for name in environ if name.startswith(OVERRIDE_PREFIX)):
            key = tuple(name.removeprefix(OVERRIDE_PREFIX).lower().split("__"))
            self.variables[key] = name
            annotation = _leaf(key)
            if annotation is None:
                wrong.append(Fault(key, f"there is no such key to override; {_nearest_variable(name)}"))
                continue
            try:
                self._set(key, _value(environ[name], annotation))
            except ValueError as error:
                wrong.append(Fault(key, str(error)))
        return wrong

    def _set(self, key: tuple[str, ...], value: object) -> None:
        table = self.data
        for part in key[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                return  # the file holds no table there, and that is the fault to report
        table[key[-1]] = value

    def secrets_in_file(self) -> Iterator[Fault]:
        """Refuse a password in the file: everyone who may read the configuration could read it."""
        sudo, key = self.data.get("sudo"), ("sudo", "password")
        literal = isinstance(sudo, dict) and sudo.get("password", GENERATED) != GENERATED
        if literal and key not in self.variables:
            yield Fault(
                key, f"must be '{GENERATED}'; put a password into a file of its own and name it in password_file"
            )

    def unknown_engine(self, engines: Mapping[str, bool]) -> Iterator[Fault]:
        """An engine that there is none of; one without isolation is proposed to nobody."""
        kind = self._engine_kind()
        if isinstance(kind, str) and kind not in engines:
            choices = " or ".join(f"'{name}'" for name, isolates in engines.items() if isolates)
            yield Fault(("engine", "kind"), f"must be {choices}; this version has no other engine")

    def isolation_turned_off(self, engines: Mapping[str, bool]) -> Iterator[Fault]:
        """What the writer of the file must not decide when nobody has chosen the file: it may be a stranger's."""
        kind, key = self._engine_kind(), ("engine", "kind")
        if isinstance(kind, str) and not engines.get(kind, True) and key not in self.variables:
            yield Fault(
                key,
                f"'{kind}' turns isolation off, which a file that was only found in the current folder may not; if "
                f"you mean it, name the file with --config or ${FILE_VARIABLE}, or set "
                f"{OVERRIDE_PREFIX}ENGINE__KIND={kind}",
            )

    def _engine_kind(self) -> object:
        engine = self.data.get("engine")
        return engine.get("kind") if isinstance(engine, dict) else None

    def describe(self, wrong: list[Fault]) -> str:
        return "\n".join(self._line(fault) for fault in wrong)

    def _line(self, fault: Fault) -> str:
        for length in range(len(fault.key), 0, -1):
            if name := self.variables.get(fault.key[:length]):
                return f"${name}: {fault.sentence}"
        if self.source is None:
            return f"{'.'.join(map(str, fault.key))}: {fault.sentence}"
        return self.source.describe(fault)


def _contradictions(settings: Settings) -> Iterator[Fault]:
    """Report values that are right alone and wrong together."""
    limits, pool, http = settings.limits, settings.pool, settings.http
    longest = format_seconds(limits.max_timeout)
    if limits.timeout > limits.max_timeout:
        yield Fault(("limits", "timeout"), f"is longer than limits.max_timeout, which is {longest} seconds")
    for _, key, table in settings.terminals():
        if table.timeout is not None and table.timeout > limits.max_timeout:
            yield Fault((*key, "timeout"), f"is longer than limits.max_timeout, which is {longest} seconds")
        yield from _memory_faults(settings, key, table)
    if pool.warm > pool.max_sandboxes:
        yield Fault(("pool", "warm"), f"is more than pool.max_sandboxes, which is {pool.max_sandboxes}")
    yield from _folder_faults(settings)
    if settings.engine.storage_class and settings.engine.kind != "kubernetes":
        yield Fault(("engine", "storage_class"), "has an effect with engine.kind = 'kubernetes' alone; leave it out")
    if settings.sudo.password_file and settings.sudo.password.get_secret_value() != GENERATED:
        yield Fault(("sudo", "password_file"), "stands beside a password; leave one of the two out")
    jwt = {"issuer": http.issuer, "audience": http.audience, "jwks_url": http.jwks_url}
    if any(jwt.values()) and not all(jwt.values()):
        missing = " and ".join(name for name, value in jwt.items() if not value)
        yield Fault(("http",), f"JWT tokens need issuer, audience and jwks_url together; {missing} is missing")


def _folder_faults(settings: Settings) -> Iterator[Fault]:
    workspace = settings.workspace
    if workspace.store and not settings.http.peer_url:
        yield Fault(
            ("workspace", "store"), "has no effect without http.peer_url: one server keeps files in its own folder"
        )
    for key in ("persistent", "root") if workspace.folder else ():
        if getattr(workspace, key):
            yield Fault(("workspace", key), "has no effect beside workspace.folder; leave one of the two out")


def _memory_faults(settings: Settings, key: Key, table: TerminalSettings) -> Iterator[Fault]:
    """Files in memory count as the container's memory, so that even full they must leave some for processes."""
    memory, place = table.memory, ".".join(map(str, key))
    sizes = {tmpfs.target: tmpfs.size for tmpfs in default_tmpfs(memory, table.shm_size)}
    sizes["System V IPC"] = ipc_size(sizes[SHM])
    # On disk they are no memory.
    files = 0 if settings.keeps_files else settings.workspace.size
    total = sum(sizes.values()) + files
    if total >= memory:
        named = f"workspace.size {format_size(files)}, the rest for " if files else ""
        yield Fault(
            (*key, "memory"),
            f"{format_size(memory)} is not more than the {format_size(total)} that files and IPC in memory may "
            f"hold together ({named}{', '.join(sizes)}); raise {place}.memory or lower "
            f"{'workspace.size' if files else f'{place}.shm_size'}",
        )


def _leaf(key: tuple[str, ...]) -> Any:
    """Return the type of the setting at `key`; None where no setting or a whole table is there."""
    annotation: Any = Settings
    for part in key:
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        found = annotation.model_fields.get(part)
        if found is None:
            return None
        annotation = found.annotation
    return None if isinstance(annotation, type) and issubclass(annotation, BaseModel) else annotation


def _leaves(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, found in model.model_fields.items():
        annotation = found.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _leaves(annotation, (*prefix, name))
        else:
            yield (*prefix, name)


def _nearest_variable(name: str) -> str:
    names = ["__".join((OVERRIDE_PREFIX[:-2], *leaf)).upper() for leaf in _leaves(Settings)]
    close = difflib.get_close_matches(name.upper(), names, n=1)
    return f"did you mean {close[0]}?" if close else "docs/configuration.md lists them all"


def _value(text: str, annotation: Any) -> object:
    """Read a variable's text as the setting's type needs it: words as they are, all else as JSON where it is JSON."""
    if annotation in (str, SecretStr) or get_origin(annotation) is Literal:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if get_origin(annotation) is tuple:
            raise ValueError("""must be a JSON list, as in '["one", "two"]'""") from None
        return text
