"""Puts a server into a client's configuration and takes it out again; everything else in the file stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskcell.clients.catalog import IDENTITY, Client, Places
from taskcell.clients.config_file import ConfigFile
from taskcell.clients.lines import is_just
from taskcell.clients.program import ENGINE_VARIABLES
from taskcell.errors import ConfigError

#: Sets `limits.wait` for one client's server.
WAIT_VARIABLE = "TASKCELL__LIMITS__WAIT"

_ADDRESS = ("url", "serverUrl", "httpUrl", "uri")
_HEADERS = ("headers", "http_headers")
_ENVIRON = ("env", "envs")
_MANAGED = frozenset({WAIT_VARIABLE, *ENGINE_VARIABLES})


@dataclass(frozen=True, slots=True)
class Change:
    """What was done. `kept`: where the old file is now, if there was one and it has changed."""

    path: Path
    changed: bool
    kept: Path | None = None


def install(client: Client, places: Places, name: str, entry: Mapping[str, Any]) -> Change:
    """Write a server into the client's file.

    Arguments:
        name: the server's name there. One that exists keeps what a person added to it.
        entry: as the client's `local` or `remote` makes it.

    Raises:
        ConfigError: the file cannot be read, understood or written. It is as it was.
    """
    file = ConfigFile.read(client.file(places))
    old = servers(client, file).get(name)
    return _changed(client, file, name, old, merged(old, entry))


def uninstall(client: Client, places: Places, name: str) -> Change:
    """Take a server out of the client's file. Raises ConfigError, as `install`.

    Where nothing else has changed since it came in, the file is as it was before, byte for byte.
    """
    file = ConfigFile.read(client.file(places))
    old = servers(client, file).get(name)
    if isinstance(old, Mapping):
        for text in file.kept():
            if _with_server(client, text, name, old) == file.text:
                return Change(file.path, True, file.replace(text))
    return _changed(client, file, name, old, None)


def _with_server(client: Client, text: str, name: str, entry: Mapping[str, Any]) -> str | None:
    """Return a text with a server added; None if it has one of that name, or cannot take one."""
    try:
        found = client.format.parse(text).get(client.servers) or {}
        if not isinstance(found, Mapping) or name in found:
            return None
        return client.format.edit(text, (client.servers, name), entry)
    except ValueError:
        return None


def shown_alone(client: Client, name: str, entry: Mapping[str, Any]) -> str:
    """Return what a file would hold that has this server alone."""
    return client.format.edit("", (client.servers, name), entry)


def servers(client: Client, file: ConfigFile) -> Mapping[str, Any]:
    """Return the servers that a client's file has. Raises ConfigError."""
    found = _parsed(client, file).get(client.servers)
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"'{client.servers}' in {file.path} does not hold a table of servers; correct it.")
    return found or {}


def merged(old: object, new: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry that is the server `new`, with what a person added to the entry `old`."""
    if not isinstance(old, Mapping):
        return dict(new)
    remote = any(key in new for key in _ADDRESS)
    same_address = any(old.get(key) == new[key] for key in _ADDRESS if key in new)
    result: dict[str, Any] = {}
    for key, value in old.items():
        if key in _ENVIRON and isinstance(value, Mapping):
            others = {} if remote else {name: text for name, text in value.items() if name not in _MANAGED}
            result |= {key: others | new.get(key, {})} if others or key in new or value == {} else {}
        elif key in IDENTITY and not (key in _HEADERS and key not in new and same_address):
            result |= {key: new[key]} if key in new else {}
        else:
            result[key] = value
    return result | {key: value for key, value in new.items() if key not in result}


def _parsed(client: Client, file: ConfigFile) -> dict[str, Any]:
    try:
        return client.format.parse(file.text)
    except ValueError as error:
        raise ConfigError(
            f"{file.path} is not valid {client.format.title} ({error}). It stays as it is; correct it, then try again."
        ) from None


def _changed(client: Client, file: ConfigFile, name: str, old: object, new: Mapping[str, Any] | None) -> Change:
    """Write the file anew where that changes anything, and only if nothing else in it changes."""
    if old == new:
        return Change(file.path, changed=False)
    path = (client.servers, name)
    try:
        text = client.format.edit(file.text, path, new)
        is_just_that = is_just(client.format.parse(text), _parsed(client, file), path, new)
    except ValueError:
        is_just_that = False
    if not is_just_that:
        raise ConfigError(
            f"{file.path} is written in a way that cannot be changed safely, so it stays as it is. Change it by hand; "
            f"`taskcell install {client.name} --print` shows what belongs there."
        )
    return Change(file.path, True, file.replace(text))
